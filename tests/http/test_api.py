"""Messages, backends, tokens, reload and the test message over HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from email import message_from_bytes
from typing import Any

import pytest

from gateway.actor import Actor, Role
from gateway.clock import first_id
from gateway.config import ConfigError
from gateway.drop import folder, letter
from gateway.spool import Filter
from tests.builders import envelope, new_message
from tests.fakes import START
from tests.http.kit import RAW, Reply, Service, ask

M = "/api/v1/messages"


async def get(running: Service, path: str) -> Any:
    reply = await ask(running, "GET", path)
    assert reply.status == 200, reply.body
    return reply.json


async def post(running: Service, path: str, body: object = None) -> Reply:
    return await ask(running, "POST", path, body)


async def put_three(running: Service) -> None:
    await running.put(1)
    await running.put(2)
    await running.put(3, sender="other@example.com")


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["M003", "M002", "M001"]),
        ("?limit=2", ["M003", "M002"]),
        ("?limit=2&before=M002", ["M001"]),
        ("?id=M002", ["M002"]),
        ("?message_id=2@example.com", ["M002"]),
        ("?sender=other@example.com", ["M003"]),
        ("?recipient=BOB@example.net&backend=box&state=queued", ["M003", "M002", "M001"]),
        ("?address=other@example.com", ["M003"]),
        ("?state=sent", []),
        ("?state=unfinished&client=localhost", ["M003", "M002", "M001"]),
        ("?sender=*@example.com&upto=M002", ["M002", "M001"]),
        ("?recipient=example.net&order=oldest", ["M001", "M002", "M003"]),
        ("?order=oldest&after=M001", ["M002", "M003"]),
        ("?limit=1&after=M001", ["M002"]),
        ("?limit=1&order=oldest&before=M003", ["M002"]),
        ("?state=held", []),
        ("?backend=none", []),
    ],
)
async def test_find(running: Service, query: str, ids: list[str]) -> None:
    """Newest first; every filter narrows."""
    await put_three(running)
    assert [row["id"] for row in (await get(running, M + query))["messages"]] == ids


async def test_pages(running: Service) -> None:
    """``next`` leads through all of them and is empty at the end."""
    await put_three(running)
    first = await get(running, f"{M}?limit=2")
    second = await get(running, f"{M}?limit=2&before={first['next']}")
    assert [row["id"] for row in first["messages"] + second["messages"]] == ["M003", "M002", "M001"]
    assert (first["previous"], second["next"], second["previous"]) == ("", "", "M001")
    back = await get(running, f"{M}?limit=1&after={second['previous']}&total=1")
    assert ([row["id"] for row in back["messages"]], back["previous"]) == (["M002"], "M002")
    assert (back["total"], back["total_more"], back["partial"]) == (3, False, False)


async def test_by_time(running: Service) -> None:
    """Ids are made from the time: a period is what lies between two of them, whatever way it is given."""
    for hours in (1, 2, 30):
        at = START - timedelta(hours=hours)
        await running.spool.put(new_message(backend="box", ident=first_id(at), received_at=at))
    for query, number in {
        "since=90m": 1,
        "since=2026-11-20T10:00Z": 2,
        "since=11:00": 1,
        "since=13:00": 2,  # of yesterday: today it is to come
        "since=2026-11-20": 2,
        "since=2026-11-20T11:00%2B01:00&until=11:00": 1,
        "until=2026-11-20T10:00": 1,
        "older=90m": 2,
        "older=90m&until=1d": 1,
    }.items():
        assert len((await get(running, f"{M}?{query}"))["messages"]) == number, query


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=x", "1 to 1000"),
        ("older=x", "not a duration"),
        ("from=a@example.com", "unknown filter from"),
        ("state=sending", "no state sending; there are queued, held"),
        ("since=yesterday", "since: "),
        ("until=2026-13-01", "neither a time"),
        ("older=2026-01-01", "not a duration"),
        ("order=random", "newest, oldest"),
        ("before=M1&after=M2", "not both"),
    ],
)
async def test_wrong_filters(running: Service, query: str, words: str) -> None:
    """A filter that is not understood is refused, never ignored."""
    reply = await ask(running, "GET", f"{M}?{query}")
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert words in reply.json["detail"]


async def test_show_and_raw(running: Service) -> None:
    """The message with recipients, attempts and deliveries; its bytes as they lie in the spool."""
    await running.put(1)
    shown = await get(running, f"{M}/M001")
    assert shown["sender"] == "app@example.com"
    assert shown["received_at"] == "2026-11-20T11:59:00Z"
    assert [(row["address"], row["state"]) for row in shown["recipients"]] == [("bob@example.net", "queued")]
    assert [delivery["backend"] for delivery in shown["deliveries"]] == ["box"]
    assert shown["attempts"] == []
    raw = await ask(running, "GET", f"{M}/M001/raw")
    assert (raw.body, raw.headers["content-type"]) == (RAW, "message/rfc822")


async def test_the_life_of_a_message(running: Service) -> None:
    """Entries in words, the state as people read it, until when the text is kept; what is in it, on demand."""
    await running.put(1)
    shown = await get(running, f"{M}/M001?content=1")
    assert (shown["shown"], shown["kept_until"], "how" in shown) == ("waiting", None, False)
    assert [(row["kind"], row["at"], row["tone"]) for row in shown["life"]] == [
        ("accepted", "2026-11-20T11:59:00Z", "ok"),
        ("now", None, "quiet"),
        ("now", None, "quiet"),
    ]
    assert ["Client", "localhost"] in shown["life"][0]["facts"]
    assert shown["content"] == {
        "header": [["Subject", "secret"]],
        "more": 0,
        "parts": [{"name": "", "size": 6, "type": "text/plain"}],
    }
    assert "secret" not in json.dumps(await get(running, f"{M}/M001")) + json.dumps(await get(running, M))
    await running.spool.delete(Filter(ids=("M001",)), running.spool.now())


async def test_trace(running: Service) -> None:
    """By all that somebody may know of it; several as a list, and whether there are more."""
    await put_three(running)
    for what in ("m002", "<2@example.com>", "2@example.com"):
        assert [row["id"] for row in (await get(running, f"/api/v1/trace?what={what}"))["messages"]] == ["M002"]
    found = await get(running, "/api/v1/trace?what=%20<Bob@Example.NET>&limit=2")
    assert ([row["id"] for row in found["messages"]], found["more"]) == (["M003", "M002"], True)
    for odd in ("what=", "what=x&limit=0", ""):
        assert (await ask(running, "GET", f"/api/v1/trace?{odd}")).status == 400


async def test_trace_by_a_name_with_a_dot_and_by_a_device(running: Service) -> None:
    """What looks like a domain and is none; the address of the network that mail came from."""
    await running.spool.put(new_message(ident="M009", backend="box", sender="john.doe@example.com", peer="192.0.2.17"))
    for what in ("john.doe", "192.0.2.17", "<M009>", "m009,"):
        assert [row["id"] for row in (await get(running, f"/api/v1/trace?what={what}"))["messages"]] == ["M009"], what
    await running.spool.delete(Filter(ids=("M009",)), running.spool.now())
    found = await get(running, "/api/v1/trace?what=it's%20gone")
    assert "no subject is kept" in found["elsewhere"][0]
    assert found["elsewhere"][1].endswith("""gateway refused 'it'"'"'s gone'""")


async def test_trace_of_what_is_not_here(running: Service) -> None:
    """What was looked at, how long that is kept, what is like it, who deleted it, and where else to look."""
    await put_three(running)
    found = await get(running, "/api/v1/trace?what=bob@exmaple.net")
    assert (found["messages"], found["near"]) == ([], [{"address": "bob@example.net", "messages": 3}])
    assert (found["kept"], "rewritten sender" in found["looked_at"]) == ("90 days", True)
    assert "gateway refused bob@exmaple.net" in found["elsewhere"][0]
    await post(running, f"{M}/M002/delete")
    found = await get(running, "/api/v1/trace?what=M002")
    assert [act["verb"] for act in found["acts"]] == ["delete"]
    assert "gateway acts" not in " ".join(found["elsewhere"])
    found = await get(running, "/api/v1/trace?what=zoe@example.net")  # that may have been its recipient
    assert found["elsewhere"][-1].startswith("among what was deleted, of which only the queue ids are kept (last by ")
    assert found["elsewhere"][-1].endswith(": gateway acts --did delete")
    await post(running, f"{M}/M001/hold")
    assert {act["verb"] for act in (await get(running, "/api/v1/acts?verb=delete"))["acts"]} == {"delete"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{M}/M009", 404),
        ("GET", f"{M}/M009/raw", 404),
        ("POST", f"{M}/M009/hold", 404),
        ("POST", f"{M}/M001/release", 409),
        ("POST", f"{M}/M001/explode", 404),
        ("POST", f"{M}/explode", 404),
        ("DELETE", f"{M}/M001", 405),
        ("GET", "/nonsense", 404),
        ("POST", "/api/v1/backends/none/pause", 404),
        ("POST", "/api/v1/backends/box/explode", 404),
        ("GET", "/metrics/", 404),
    ],
)
async def test_what_is_not_there(running: Service, method: str, path: str, status: int) -> None:
    """Errors are problem+json with words."""
    await running.put(1)
    reply = await ask(running, method, path)
    assert (reply.status, reply.json["status"], reply.headers["content-type"]) == (
        status,
        status,
        "application/problem+json",
    )
    assert reply.json["detail"]


async def test_hold_release_retry_delete(running: Service) -> None:
    """Each action does what it says, and only where there is something to do."""
    await running.put(1)
    one = {"changed": 1, "unchanged": [], "why": []}
    assert (await post(running, f"{M}/M001/hold")).json == one
    assert (await get(running, f"{M}/M001"))["state"] == "held"
    assert (await post(running, f"{M}/M001/release")).json == one
    assert (await post(running, f"{M}/M001/retry")).json == one | {"told": 0}
    assert (await get(running, f"{M}/M001"))["next_attempt_at"] == "2026-11-20T12:00:00Z"
    assert (await post(running, f"{M}/M001/bounce")).json == one | {"told": 1, "left": 0}
    assert running.done == [("bounce", ("M001",))]
    assert (await post(running, f"{M}/M001/delete")).status == 200
    assert (await ask(running, "GET", f"{M}/M001")).status == 404


@pytest.mark.parametrize(
    ("body", "held"),
    [
        ({"ids": ["M001", "M003", "M009"]}, ["M001", "M003"]),
        ({"filter": {}}, ["M001", "M002", "M003"]),
        ({"filter": {"sender": "other@example.com"}}, ["M003"]),
        ({"filter": {"upto": "M002"}}, ["M001", "M002"]),
        ({"filter": {"state": "held"}}, []),
    ],
)
async def test_many_at_once(running: Service, body: object, held: list[str]) -> None:
    """By ids or by filter; ids with nothing to do are named."""
    await put_three(running)
    reply = await post(running, f"{M}/hold", body)
    assert reply.json["changed"] == len(held)
    assert reply.json["unchanged"] == (["M009"] if "M009" in str(body) else [])
    assert sorted(row.id for row in await running.spool.find(Filter(state="held"))) == held


async def test_more_than_any_page(running: Service) -> None:
    """A filter and a list of ids reach every message, however many there are."""
    ids = await asyncio.gather(*(running.put(number) for number in range(1, 1202)))
    which = {"filter": {"sender": "app@example.com"}}
    assert (await post(running, f"{M}/hold", which)).json == {"changed": 1201, "unchanged": [], "why": []}
    some = {"ids": [*ids, "M9999"]}
    assert (await post(running, f"{M}/release", some)).json == {
        "changed": 1201, "unchanged": ["M9999"], "why": [{"why": "no such message", "count": 1, "ids": ["M9999"]}],
    }  # fmt: skip


async def test_all_means_what_waits(running: Service) -> None:
    """Deleting all leaves what is finished in the history."""
    await running.put(1)
    await running.put(2)
    await post(running, f"{M}/M001/hold")
    assert (await post(running, f"{M}/delete", {"filter": {}})).json == {
        "changed": 2,
        "unchanged": [],
        "why": [],
        "bounces": 0,
    }


@pytest.mark.parametrize(
    ("action", "body", "answer"),
    [
        ("bounce", {"filter": {"backend": "box"}}, {"changed": 2, "told": 2, "left": 2}),
        ("bounce", {"filter": {"state": "held"}}, {"changed": 0, "told": 0, "left": 1}),
        ("bounce", {"filter": {"sender": "<>"}}, {"changed": 2, "told": 0, "left": 0}),
        ("bounce", {"ids": ["M001", "M003"]}, {"changed": 2, "told": 1, "left": 0}),
        ("delete", {"ids": ["M001", "M003"]}, {"changed": 2, "bounces": 1}),
    ],
)
async def test_nobody_is_left_untold_by_a_filter(
    running: Service, action: str, body: object, answer: dict[str, int]
) -> None:
    """Bounces are how senders hear of failures: to give these up takes their ids or their sender, and is said."""
    for number, sender in enumerate(("app@example.com", "app@example.com", "", ""), 1):
        await running.put(number, sender=sender)
    await post(running, f"{M}/M004/hold")
    assert (await post(running, f"{M}/{action}", body)).json == {"unchanged": [], "why": [], **answer}


async def test_bounces_among_more_than_any_page(running: Service) -> None:
    """They are left out by the one statement that finds the others, however many there are."""
    await asyncio.gather(*(running.put(n, sender="" if n % 2 else "app@example.com") for n in range(1, 1203)))
    every = {"filter": {}}
    bounced = {"changed": 601, "unchanged": [], "why": [], "told": 601, "left": 601}
    assert (await post(running, f"{M}/bounce", every)).json == bounced
    assert (await post(running, f"{M}/delete", every)).json == {
        "changed": 1202,
        "unchanged": [],
        "why": [],
        "bounces": 601,
    }


async def test_what_lies_in_folders(running: Service) -> None:
    """The maildrop, before a service has made it and with a file in it."""
    empty = {"waiting": 0, "corrupt": 0, "reason": "", "files": []}
    there = folder.maildrop(running.settings.state_dir)
    (found,) = (await get(running, "/api/v1/drop"))["folders"]
    assert found == {"name": "maildrop", "path": str(there.new), **empty}
    folder.make_maildrop(there)
    folder.drop(there, letter.write(envelope("a@x.org", sender="s@x.org"), b"Subject: x\r\n"))
    (found,) = (await get(running, "/api/v1/drop"))["folders"]
    assert found["waiting"] == 1
    assert [(file["sender"], file["recipients"]) for file in found["files"]] == [("s@x.org", ["a@x.org"])]


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"ids": "M001"},
        {"filter": []},
        {"ids": [], "filter": {}},
        {"filter": {"form": "x"}},
        {"filter": {"backend": ""}},
        {"ids": ["\udcff"]},
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"filter": {}, "filter": {"state": "held"}}',
        b'{"ids": ["M001\xff"]}',
    ],
)
async def test_unclear_bulk_changes_nothing(running: Service, body: object) -> None:
    """A slip must never widen what a bulk action hits."""
    await running.put(1)
    assert (await post(running, f"{M}/delete", body)).status == 400
    assert await running.spool.show("M001") is not None


async def test_bodies_have_a_limit(running: Service) -> None:
    """Nobody fills the memory through the admin interface."""
    assert (await post(running, f"{M}/delete", b" " * 8_000_001)).status == 413


async def test_a_backend_that_another_instance_works_is_steered_from_here(running: Service) -> None:
    """Where it is not worked nobody knows for certain that there is nothing to resume."""
    assert running.dispatcher is not None
    assert (await post(running, "/api/v1/backends/box/resume")).status == 409
    running.dispatcher.owners["box"] = "b"
    for action in ("pause", "resume", "pause", "fix"):
        assert (await post(running, f"/api/v1/backends/box/{action}")).status == 200
    assert running.dispatcher.paused == {}
    found = (await post(running, "/api/v1/backends/box/check")).json
    assert (found["by"], found["ok"], found["unlike"], found["status"]["name"]) == ("b", True, False, "box")
    for owner, words in (
        ("b", "instance b, which works box, has not answered"),
        ("", "no instance works box just now"),
    ):
        running.dispatcher.owners["box"], running.dispatcher.wishes.silent = owner, True
        refused = await post(running, "/api/v1/backends/box/fix")
        assert (refused.status, refused.json["detail"].partition(":")[0]) == (503, words)


@pytest.mark.parametrize(("body", "seconds"), [(None, None), ({"for": None}, None), ({"for": "30m"}, 1800.0)])
async def test_pause_and_resume(running: Service, body: object, seconds: float | None) -> None:
    """Pause for a time or until resumed; the answer is the new status."""
    assert (await post(running, "/api/v1/backends/box/pause", body)).json["paused_by"] == "operator"
    assert running.dispatcher is not None
    assert running.dispatcher.paused == {"box": seconds}
    assert (await post(running, "/api/v1/backends/box/resume")).json["paused_by"] == ""
    again = await post(running, "/api/v1/backends/box/resume")
    assert (again.status, again.json["detail"].partition(";")[0]) == (409, "backend box: nothing to resume: it works")
    assert (await post(running, "/api/v1/backends/box/pause", {"for": "soon"})).status == 400
    assert (await post(running, "/api/v1/backends/box/pause", {"for": "0s"})).status == 400
    assert (await post(running, "/api/v1/backends/box/check")).json["ok"] is True


async def test_without_a_running_service(running: Service) -> None:
    """What needs the service says so, and how to start it."""
    running.dispatcher = None
    await running.put(1)
    for path in ("/api/v1/backends/box/pause", "/api/v1/send", "/api/v1/reload", f"{M}/M001/bounce"):
        reply = await post(running, path)
        assert (reply.status, "gateway serve" in reply.json["detail"]) == (503, True), path


async def test_tokens(running: Service) -> None:
    """Minted here, remembered by id, explained, listed, revoked; the token itself is in one answer only."""
    wanted = {"subject": "billing", "expires": "1h", "note": "n", "claims": {"senders": ["a@example.com"]}}
    made = await post(running, "/api/v1/tokens", wanted)
    assert (made.status, made.json["expires_at"]) == (201, "2026-11-20T13:00:00Z")
    token, jti = made.json["token"], made.json["jti"]
    client = await running.authenticator.login("jwt", token, "127.0.0.1")
    assert (client.login, client.senders[-1]) == ("billing", ("a@example.com",))
    report = await post(running, "/api/v1/tokens/inspect", {"token": token})
    assert (report.json["valid"], report.json["claims"]["jti"]) == (True, jti)
    assert (await post(running, "/api/v1/tokens/revoke", {"jti": jti})).json == {"revoked": jti, "known": True}
    assert (await post(running, "/api/v1/tokens/revoke", {"jti": "foreign"})).json["known"] is False
    listed = await get(running, "/api/v1/tokens")
    assert [(row["jti"], row["subject"], row["note"]) for row in listed["tokens"]] == [
        (jti, "billing", "n"),
        ("foreign", "", ""),
    ]
    row = listed["tokens"][0]
    assert (row["revoked_at"], row["used_from"], row["tried_at"]) == ("2026-11-20T12:00:00Z", "127.0.0.1", None)
    after = await post(running, "/api/v1/tokens/inspect", {"token": token})
    assert (after.json["valid"], after.json["verdict"]) == (False, "revoked")
    assert token not in str(listed) + str(after.json)


async def test_a_revoked_subject_is_told(running: Service) -> None:
    """What a login would say of the token is said here too, also when not the token but whom it is for was revoked."""
    token = (await post(running, "/api/v1/tokens", {"subject": "leaver", "expires": "1h"})).json["token"]
    running.clock.advance(1)
    await post(running, "/api/v1/tokens/revoke", {"subject": "leaver"})
    report = (await post(running, "/api/v1/tokens/inspect", {"token": token})).json
    assert (report["valid"], report["verdict"]) == (False, "revoked")


@pytest.mark.parametrize(
    "body",
    [
        {"jti": ["x"]}, {"jti": {"a": 1}}, {"subject": 7}, {"jti": "x", "subject": ["y"]}, {"jti": "a\0b"},
        {"subject": "x" * 100_000},
    ],
)  # fmt: skip
async def test_what_no_token_can_be_called_is_not_revoked(running: Service, body: dict[str, object]) -> None:
    """Nobody is told that something was revoked which is not what they meant, and nothing of it is kept."""
    assert (await post(running, "/api/v1/tokens/revoke", body)).status == 400
    assert (await get(running, "/api/v1/tokens"))["tokens"] == []


async def test_admin_tokens(running: Service) -> None:
    """A token for the HTTP interface is asked for by name, and is no login."""
    made = await post(running, "/api/v1/tokens", {"subject": "ops", "expires": "1h", "admin": True})
    assert running.authenticator.admin_token(made.json["token"], "127.0.0.1") == Actor("ops", "token", Role.ADMIN)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"subject": "x"}),
        ("", {"subject": "x", "expires": "soon"}),
        ("", {"subject": "x", "expires": "1h", "key": "none"}),
        ("", {"subject": "x", "expires": "1h", "claims": {"networks": ["nowhere"]}}),
        ("", {"subject": "x", "expires": "1h", "claims": 5}),
        ("", {"subject": "x", "claims": {"exp": 4_000_000_000}}),
        ("", {"subject": "x", "expires": "0s"}),
        ("", {"subject": "x", "expires": 0}),
        ("", {"subject": "x", "expires": "1h", "claims": {"senders": ["foo"]}}),
        ("", {"subject": "x", "expires": "1h", "claims": {"backend": "nix"}}),
        ("/revoke", {}),
        ("/revoke", {"jti": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."}),
        ("/revoke", {"subject": "eyJhbGciOi"}),
        ("/revoke", {"jti": "a", "subject": "b"}),
        ("/revoke", {"jti": "\udcff"}),
        ("", {"subject": "x", "expires": "1h", "note": "\udcff"}),
    ],
)
async def test_wrong_token_requests(running: Service, path: str, body: object) -> None:
    """Refused with words, and nothing is remembered."""
    reply = await post(running, f"/api/v1/tokens{path}", body)
    assert (reply.status, bool(reply.json["detail"])) == (400, True)
    assert await running.spool.tokens() == []


async def test_send(running: Service) -> None:
    """The test message says where it comes from; sender, recipients and backend are as asked."""
    body = {"from": "a@example.com", "to": ["b@example.net", "c@example.net"], "backend": "box"}
    assert (await post(running, "/api/v1/send", body)).json == {"id": "NEW"}
    ((sender, recipients, raw, client, pin),) = running.done
    assert (sender, recipients, client, pin) == ("a@example.com", ("b@example.net", "c@example.net"), "admin", "box")
    message = message_from_bytes(raw)
    assert (message["From"], message["To"]) == ("a@example.com", "b@example.net, c@example.net")
    assert running.settings.hostname in message["Subject"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, {}),
        ({"to": 5}, 400, {}),
        ({"to": "b@example.net"}, 400, {}),
        ({"to": ["b@example.net"], "backend": "none"}, 404, {}),
        ({"to": ["b@example.net\r\nBcc: x@example.net"]}, 422, {"detail": "The address is malformed"}),
        ({"to": ["b"]}, 422, {"detail": "The address needs a domain, write user@example.com"}),
        (
            {"to": ["b@example.net"], "from": "bad@example.com"},
            422,
            {"detail": "sender not allowed", "code": 553, "enhanced": "5.7.1"},
        ),
        ({"to": ["b@example.net"], "from": "big@example.com"}, 422, {"detail": "too big for box"}),
        ({"to": ["b@example.net"], "from": "full@example.com"}, 503, {"detail": "no room"}),
    ],
)
async def test_send_refused(running: Service, body: object, status: int, said: dict[str, object]) -> None:
    """What cannot be sent is refused at once, with the words of whoever refuses it."""
    reply = await post(running, "/api/v1/send", body)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert running.done == []
    assert said.items() <= reply.json.items()


async def test_reload(running: Service) -> None:
    """What changed; or every error, and the old configuration stays."""
    assert (await post(running, "/api/v1/reload")).json == {"changes": ["limits.max_size"], "warnings": []}
    running.reload_error = ConfigError(["c.yaml:1:1: wrong", "c.yaml:2:1: wrong too"])
    reply = await post(running, "/api/v1/reload")
    assert (reply.status, reply.json["errors"]) == (422, ["c.yaml:1:1: wrong", "c.yaml:2:1: wrong too"])
    assert [one["text"] for one in reply.json["findings"]] == reply.json["errors"]


async def test_a_bug_is_reported_and_tells_nothing(running: Service) -> None:
    """The traceback is in our log, not in the answer; the next request works."""
    running.reload_error = RuntimeError("inner detail")
    reply = await post(running, "/api/v1/reload")
    assert (reply.status, b"inner detail" in reply.body) == (500, False)
    running.events.flush()
    assert "inner detail" in running.log.read_text()
    assert b"gateway_bugs_total 1.0" in (await ask(running, "GET", "/metrics")).body
