"""``gateway ui-login``: the link that it prints opens the pages once, under the name of who ran it."""

from __future__ import annotations

import getpass
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlencode

from tests.cli.kit import Commands
from tests.flow.kit import Gateway


def ask(service: Gateway, method: str, path: str, body: str = "", cookie: str = "") -> tuple[HTTPResponse, str]:
    """As a browser does from a page of ours."""
    connection = HTTPConnection("127.0.0.1", service.http_port, timeout=10)
    here = f"http://127.0.0.1:{service.http_port}"
    headers = {"origin": here, "sec-fetch-site": "same-origin", "cookie": cookie}
    connection.request(method, path, body, headers | {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def sign_in(service: Gateway, link: str) -> str:
    """The cookie."""
    base, _, key = link.partition("/ui/login?k=")
    assert base == f"http://127.0.0.1:{service.http_port}"
    assert ask(service, "GET", f"/ui/login?k={key}")[0].status == 200
    answer, _ = ask(service, "POST", "/ui/login", urlencode({"k": key}))
    assert answer.status == 303
    return answer.getheader("set-cookie", "").partition(";")[0]


def test_a_link_opens_the_pages(service: Gateway, run: Commands) -> None:
    """Alone on standard output, so that it can be piped; the page names the user, and --end-all ends it."""
    done = run("ui-login")
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert "works once, until" in done.stderr
    cookie = sign_in(service, done.stdout.strip())
    page = ask(service, "GET", "/ui/", cookie=cookie)[1]
    assert f"Signed in as {getpass.getuser()} until" in page
    assert ask(service, "POST", "/ui/login", urlencode({"k": done.stdout.strip().partition("k=")[2]}))[0].status == 403
    assert "ended: " in run.ok("ui-login", "--end-all")
    assert ask(service, "GET", "/ui/", cookie=cookie)[0].status == 401


def test_a_link_may_give_less(service: Gateway, run: Commands) -> None:
    """--role read: the page says so, and nothing can be pressed."""
    made = run.json("ui-login", "--role", "read")
    assert (made["role"], made["name"]) == ("read", getpass.getuser())
    page = ask(service, "GET", "/ui/messages", cookie=sign_in(service, made["url"]))[1]
    assert "(read)" in page
    assert 'action="/ui/messages/ask"' not in page
