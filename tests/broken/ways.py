"""What can stand between this machine and any provider. The same for all of them, whatever they speak."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import trustme

from tests.backends.kit import Handler, Request, http
from tests.broken.kit import Case, Ends, Lab, Settings
from tests.flow.kit import free_port

# Given where its API is and what else has to be set, a provider's settings.
Reached = Callable[[Lab, str, Settings], Awaitable[Settings]]
_KEYS = r"api_key|secret|password|credential|sign in again"


def tls(lab: Lab, *names: str, authority: str = "", trusted: bool = True, **times: Any) -> ssl.SSLContext:
    """A certificate for these names; where it is ``trusted``, ca.pem of that authority says so."""
    ca = trustme.CA(organization_name=authority or "World CA")
    if trusted:
        ca.cert_pem.write_to_path(str(lab.folder / f"{names[0]}-{authority or 'world'}-{len(times)}.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, **times).configure_cert(context)
    return context


def ca_file(lab: Lab, name: str, authority: str = "world", times: int = 0) -> str:
    return str(lab.folder / f"{name}-{authority}-{times}.pem")


def portal(request: Request) -> bytes:
    return http(
        200, "<!DOCTYPE html><title>Welcome to the hotel</title>Accept our terms.", {"Content-Type": "text/html"}
    )


def refusing(request: Request) -> bytes:
    return http(407, "Proxy authentication required", {"Proxy-Authenticate": 'Basic realm="corp"'})


def on_the_way(provider: str, host: str, fake: Handler, reached: Reached, *, slow: bool) -> tuple[Case, ...]:
    """``reached`` makes settings for an API at a URL; ``slow``: the page tells of these at another provider."""

    async def by_proxy(lab: Lab) -> Settings:
        proxy = await lab.web(refusing, "proxy.corp.example")
        lab.known[f"proxy.corp.example:{proxy.port}"] = "proxy.corp.example:3128"
        return await reached(lab, f"https://{host}", {"proxy": f"http://proxy.corp.example:{proxy.port}"})

    async def inspected(lab: Lab) -> Settings:
        web = await lab.web(fake, host, tls(lab, host, authority="Corp Proxy", trusted=False))
        return await reached(lab, f"https://{host}:{web.port}", {})

    async def hotel(lab: Lab) -> Settings:
        web = await lab.web(portal, host)
        return await reached(lab, web.url, {})

    async def moved(lab: Lab) -> Settings:
        web = await lab.web(lambda request: http(302, b"", {"Location": "https://portal.hotel.example/login"}), host)
        return await reached(lab, web.url, {})

    async def login_page(lab: Lab) -> Settings:
        web = await lab.web(portal, host, tls(lab, "portal.hotel.example", authority=provider))
        return await reached(
            lab, f"https://{host}:{web.port}", {"ca_file": ca_file(lab, "portal.hotel.example", provider)}
        )

    async def misspelled(lab: Lab) -> Settings:
        return await reached(lab, f"https://wrong.{host}", {})

    async def nobody(lab: Lab) -> Settings:
        port = free_port()
        lab.known[f"{host}:{port}"] = host
        return await reached(lab, f"https://{host}:{port}", {})

    async def early(lab: Lab) -> Settings:
        times = {"not_before": datetime(2090, 1, 1, tzinfo=UTC), "not_after": datetime(2091, 1, 1, tzinfo=UTC)}
        web = await lab.web(fake, host, tls(lab, host, authority=f"{provider} early", **times))
        return await reached(lab, f"https://{host}:{web.port}", {"ca_file": ca_file(lab, host, f"{provider} early", 2)})

    rows: tuple[tuple[str, str, Any, str, str, str], ...] = (
        (
            "proxy",
            "a proxy wants a password (407)",
            by_proxy,
            r"proxy answered 407|the proxy .* 407",
            r"HTTPS_PROXY|setting proxy",
            _KEYS.replace("|password", ""),
        ),
        (
            "inspected",
            "a proxy or firewall opens TLS, with a certificate of its own",
            inspected,
            r"certificate (is )?not trusted|certificate shown .* not trusted",
            r"ca_file",
            _KEYS,
        ),
        (
            "portal",
            "a portal or proxy answers with a web page",
            hotel,
            r"web page|no JSON|no usable token",
            r"stands between",
            _KEYS,
        ),
        (
            "redirect",
            "a portal or proxy redirects to a log-in page",
            moved,
            r"redirect|HTTP 302",
            r"stands between",
            _KEYS,
        ),
        (
            "mismatch",
            "somebody else answers in its place (certificate for another name)",
            login_page,
            r"[Hh]ostname mismatch|not valid for",
            r"portal|proxy",
            _KEYS,
        ),
        (
            "name",
            "the name of the server is not found",
            misspelled,
            r"wrong\.\S+.*not (found|known)|cannot find",
            r"name|DNS",
            _KEYS,
        ),
        (
            "nobody",
            "nothing answers there (firewall, wrong port)",
            nobody,
            r"[Cc]onnection refused|Connect call failed",
            r"firewall|network|reach|port",
            _KEYS,
        ),
        (
            "early",
            "the clock of this machine is years behind",
            early,
            r"not yet valid",
            r"clock of this machine",
            _KEYS,
        ),
    )
    return tuple(
        Case(
            provider=provider,
            key=key,
            cause=cause,
            set_up=make,
            named=named,
            cure=cure,
            never=never,
            slow=slow,
            ends=Ends.STOPPED,
        )
        for key, cause, make, named, cure, never in rows
    )
