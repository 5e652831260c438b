"""gateway setup microsoft: what is made in a tenant, in which order, and how it goes on after every way to fail."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from gateway.backends import settings_types
from gateway.cli import setup_microsoft
from gateway.cli.root import cli
from gateway.clock import SystemClock
from gateway.config.loading import load
from gateway.setup import certificate
from tests.flow.kit import free_port
from tests.setup.microsoft_fake import TOKEN, Microsoft

RELAY, INVOICE = "relay@example.com", "invoice@example.com"
RBAC = "/beta/roleManagement/exchange/roleAssignments"


class Quick(SystemClock):
    """Time passes as fast as it is slept."""

    def __init__(self) -> None:
        self._slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._slept

    async def sleep(self, seconds: float) -> None:
        self._slept += seconds


@dataclass
class Bench:
    folder: Path
    fake: Microsoft

    @property
    def file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def state(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.folder / "microsoft-setup.json").read_text())
        return found

    def run(self, *more: str) -> Result:
        given = ["--config", str(self.file), "setup", "microsoft", "--yes", "--no-check", *more]
        if "--remove" not in more:
            given += ["--mailbox", RELAY, "--listen", f"127.0.0.1:{free_port()}"]
        given += ["--graph-url", self.fake.url, "--login-url", self.fake.url]
        done = CliRunner().invoke(cli, given)
        assert not done.exception or isinstance(done.exception, SystemExit), done.exception
        assert TOKEN not in done.output
        return done


@pytest.fixture(scope="module")
def pem() -> bytes:
    return certificate.make(datetime.now(UTC))


@pytest.fixture
def bench(tmp_path: Path, pem: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A key of its own takes time, and is made only where it matters."""
    (tmp_path / "graph.pem").write_bytes(pem)
    (tmp_path / "graph.pem").chmod(0o600)
    monkeypatch.setattr(setup_microsoft, "SystemClock", Quick)
    with Microsoft().running() as fake:
        yield Bench(tmp_path, fake)


def test_all_of_it(bench: Bench) -> None:
    """One application, narrow rights, settings that can be used; secrets for nobody else, no token anywhere."""
    (bench.folder / "graph.pem").unlink()
    done = bench.run("--mailbox", INVOICE)
    assert done.exit_code == 0, done.output
    (application,) = bench.fake.applications.values()
    backend = load(bench.file, {}, settings_types()).settings.backends["office"]
    assert (backend.client_id, backend.mailbox, backend.senders) == (application["appId"], "sender", (INVOICE, RELAY))
    assert (backend.certificate_renew, backend.object_id) == (True, application["id"])
    assert backend.certificate_id == application["keyCredentials"][0]["keyId"]
    assert {one["directoryScopeId"] for one in bench.fake.rbac.values()} == {"/Users/user-1", "/Users/user-2"}
    assert bench.fake.wide == []
    assert not {one for one in bench.fake.scopes if "AppRoleAssignment" in one or "Directory" in one}
    for name in ("graph.pem", "microsoft-setup.json"):
        assert stat.S_IMODE((bench.folder / name).stat().st_mode) == 0o600
    assert not [path for path in bench.folder.iterdir() if TOKEN in path.read_text()]
    assert "Enter" not in done.stdout
    assert "Permissions > Revoke" in done.output
    assert "two hours" in done.output


def test_tenant_wide_only_when_asked_for(bench: Bench) -> None:
    done = bench.run("--tenant-wide")
    assert done.exit_code == 0, done.output
    assert len(bench.fake.wide) == 1
    assert bench.fake.rbac == {}
    assert not [call for call in bench.fake.calls if "beta" in call]


def test_dry_run_asks_nobody(bench: Bench) -> None:
    done = bench.run("--dry-run")
    assert done.exit_code == 0, done.output
    assert bench.fake.calls == []
    assert [path.name for path in bench.folder.iterdir()] == ["graph.pem"]
    assert [line.split()[0] for line in done.stdout.splitlines()][1:] == [
        "GET",
        "GET",
        "POST",
        "POST",
        "GET",
        "GET",
        "POST",
    ]


LATE = "The appId 'x' of the service principal does not reference a valid application object."


@pytest.mark.parametrize(
    "key",
    ["POST /v1.0/servicePrincipals", f"POST {RBAC}", "GET /v1.0/users", "POST /v1.0/applications"],
)
def test_servers_that_do_not_know_yet_are_asked_again(bench: Bench, key: str) -> None:
    """400 of a replica that lags, and 503 of one that is busy."""
    late = (400, "Request_BadRequest", LATE, 3)
    bench.fake.refuse[key] = (
        late if "sP" in key or "servicePrincipals" in key or RBAC in key else (503, "Busy", "later", 2)
    )
    done = bench.run()
    assert done.exit_code == 0, done.output
    assert len(bench.fake.rbac) == 1


@pytest.mark.parametrize("call", ["POST /v1.0/applications", "POST /v1.0/servicePrincipals", f"POST {RBAC}"])
@pytest.mark.parametrize("how", ["lose", "unsure"])
def test_a_lost_answer_makes_nothing_twice(bench: Bench, call: str, how: str) -> None:
    """What was made is found again."""
    getattr(bench.fake, how).add(call)
    done = bench.run()
    assert done.exit_code == 0, done.output
    assert (len(bench.fake.applications), len(bench.fake.principals), len(bench.fake.rbac)) == (1, 1, 1)


def test_anothers_application_of_the_same_name_is_left_alone(bench: Bench) -> None:
    assert bench.run().exit_code == 0
    (ours,) = bench.fake.applications.values()
    theirs = {**ours, "id": "theirs", "appId": "their-client", "tags": []}
    bench.fake.applications = {"theirs": dict(theirs)}
    (bench.folder / "microsoft-setup.json").unlink()
    bench.file.unlink()
    done = bench.run()
    assert done.exit_code == 0, done.output
    assert bench.fake.applications["theirs"] == theirs
    assert len(bench.fake.applications) == 2


@pytest.mark.parametrize(
    ("key", "status", "words", "fix"),
    [
        ("GET /v1.0/users", 403, "Insufficient privileges", "role is too small"),
        ("POST /v1.0/applications", 400, "Credential lifetime exceeds the max value allowed", "--certificate-file"),
        ("POST /v1.0/applications", 403, "Insufficient privileges", "Application Administrator"),
        ("POST /v1.0/servicePrincipals", 403, "Insufficient privileges", "Application Administrator"),
    ],
)
def test_a_refusal_names_the_fix_and_resume_goes_on(bench: Bench, key: str, status: int, words: str, fix: str) -> None:
    """In the server's own words; nothing is made twice afterwards."""
    bench.fake.refuse[key] = (status, "Authorization_RequestDenied", words, 1)
    done = bench.run()
    assert (done.exit_code, bench.file.exists()) == (1, False)
    assert words in done.output
    assert fix in done.output
    bench.fake.pending = []
    assert "was begun already" in bench.run().output
    done = bench.run("--resume")
    assert done.exit_code == 0, done.output
    assert len(bench.fake.applications) == len(bench.fake.principals) == len(bench.fake.rbac) == 1


@pytest.mark.parametrize("status", [403, 500, 404])
def test_where_exchange_refuses_powershell_is_printed(bench: Bench, status: int) -> None:
    """With the ids filled in; the settings are made all the same, for the rest is there."""
    bench.fake.refuse["GET /beta"] = (status, "Forbidden", "no", 99)
    done = bench.run()
    assert done.exit_code == 1
    (client, principal) = next(iter(bench.fake.principals.items()))
    assert f"New-ServicePrincipal -AppId {client} -ObjectId {principal}" in done.output
    assert f"PrimarySmtpAddress -eq '{RELAY}'" in done.output
    assert bench.file.exists()
    bench.fake.refuse.clear()
    assert bench.run("--resume").exit_code == 0
    assert len(bench.fake.rbac) == 1


def test_a_filter_that_is_refused(bench: Bench) -> None:
    bench.fake.filters = False
    assert bench.run().exit_code == 0


@pytest.mark.parametrize(
    ("error", "words", "fix"),
    [
        ("access_denied", "AADSTS53003: Access has been blocked by Conditional Access policies.", "--browser"),
        ("invalid_grant", "AADSTS50105: not assigned to a role for the application", "--client-id"),
        ("authorization_declined", "the user declined", "declined at the page"),
        ("expired_token", "AADSTS70020: The provided value for device_code has expired", "--resume"),
        ("consent_required", "AADSTS90094: an administrator must consent", "Global Administrator"),
    ],
)
def test_a_sign_in_that_fails(bench: Bench, error: str, words: str, fix: str) -> None:
    bench.fake.login_error = (error, words)
    done = bench.run()
    assert done.exit_code == 1
    assert words in done.output
    assert fix in done.output
    assert bench.fake.calls == []


def test_a_code_that_nobody_enters(bench: Bench) -> None:
    """It ends; before, it is said what the page may say and this side never hears."""
    bench.fake.pending, bench.fake.lasts = ["authorization_pending"] * 200, 90
    done = bench.run()
    assert (done.exit_code, done.output.count("53003")) == (1, 1)
    assert "expired" in done.output


def test_by_browser(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """PKCE, and an answer with another state is refused."""
    pages: list[str] = []
    page = setup_microsoft.sign_in.SignIn.page

    def seen(self: setup_microsoft.sign_in.SignIn, redirect: str) -> tuple[str, str, str]:
        found = page(self, redirect)
        asked = {key: one[0] for key, one in parse_qs(urlsplit(found[0]).query).items()}
        assert (asked["redirect_uri"], asked["code_challenge_method"]) == (redirect, "S256")
        bench.fake.challenge = asked["code_challenge"]
        pages.append(f"{redirect}?code=thecode&state={asked['state'] if not pages else 'another'}")
        return found

    monkeypatch.setattr(setup_microsoft.sign_in.SignIn, "page", seen)

    async def lands(landed: object, *_: object) -> None: ...

    class Pasted:
        """The address of the last page, in the terminal."""

        def __init__(self, landed: object) -> None:
            found = {key: one[0] for key, one in parse_qs(urlsplit(pages[-1]).query).items()}
            landed.set_result(found)  # type: ignore[attr-defined]

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(setup_microsoft, "pasted", Pasted)
    assert bench.run("--browser").exit_code == 0
    done = bench.run("--browser", "--resume")
    assert (done.exit_code, "another sign-in" in done.output) == (1, True)


def test_remove(bench: Bench) -> None:
    """All that was made, and nothing else; once more there is nothing."""
    assert bench.run().exit_code == 0
    bench.fake.applications["theirs"] = {"id": "theirs", "appId": "x", "displayName": "x", "tags": []}
    done = bench.run("--remove")
    assert done.exit_code == 0, done.output
    assert list(bench.fake.applications) == ["theirs"]
    assert (bench.fake.rbac, bench.fake.principals) == ({}, {})
    assert "nothing to remove" in bench.run("--remove").output


def test_remove_leaves_what_is_not_ours(bench: Bench) -> None:
    """Whoever took our tag away has made it his own."""
    assert bench.run().exit_code == 0
    (application,) = bench.fake.applications.values()
    application["tags"] = []
    done = bench.run("--remove")
    assert (done.exit_code, list(bench.fake.applications)) == (1, [application["id"]])
