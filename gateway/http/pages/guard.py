"""What a request must be before a page is made of it: for a host that is ours, from a page of ours, by somebody known.

Everything here fails closed, and says in words what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.config.models import HttpSettings
from gateway.http.access import Access
from gateway.networks import prefix_length
from gateway.url import is_loopback

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that gets no page: the status, a heading and what to do."""

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(text)
        self.status, self.title, self.text = status, title, text


@dataclass(frozen=True, slots=True)
class Way:
    """How a request came: ``proxy`` by one that is listed, ``secure`` encrypted on its way to that, ``user`` whom the
    proxy signed in."""

    host: str
    peer: str
    proxy: bool
    secure: bool
    user: str = field(default="")


def way_of(settings: HttpSettings, access: Access, peer: str, headers: Headers) -> Way:
    """Raises Refused for a host that the pages do not answer to.

    On this machine that is localhost. Any other name must be listed and come by a listed proxy that took it over TLS;
    so a name that somebody else points at us (DNS rebinding) gets nothing, and no cookie goes over a clear line.
    """
    authority = headers.get("host", "")
    try:
        name = (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        name = ""
    proxy = prefix_length(settings.trusted_proxies, peer) >= 0 if peer else False
    secure = proxy and _only(headers, "x-forwarded-proto").lower() == "https"
    if is_loopback(name) and access is not Access.NETWORK:
        return Way(authority, peer, proxy=False, secure=False)
    if name not in settings.ui_hosts:
        fix = f"To use them by the name {name}, list it under http.ui_hosts." if name else ""
        raise Refused(
            421, "Not by this name", f"These pages answer to localhost and to the names in the settings. {fix}"
        )
    if not proxy:
        raise Refused(
            421, "Not by this way", "By this name the pages answer only through a proxy of http.trusted_proxies."
        )
    if not secure:
        raise Refused(421, "Only over TLS", "The proxy has to say X-Forwarded-Proto: https, and mean it.")
    user = _only(headers, settings.user_header) if settings.user_header else ""
    return Way(authority, peer, proxy=True, secure=True, user=user)


def _only(headers: Headers, name: str) -> str:
    """What the proxy says in this header. Raises Refused where it stands twice: a proxy that adds its own line behind
    that of whoever asks would let him say who he is (RFC 9110 5.2: the first of them is his)."""
    given = headers.getlist(name)
    if len(given) > 1:
        raise Refused(
            400, "Said twice", f"The proxy has to set {name} in the place of what it was sent, not beside it."
        )
    return given[0].strip() if given else ""


def check_origin(way: Way, headers: Headers) -> None:
    """Raises Refused unless a page of ours asks.

    Under no-referrer a browser says ``Origin: null`` of a form (Fetch, "append a request Origin header"); then only
    Sec-Fetch-Site, which no page can set, tells ours from others.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    ours = f"{'https' if way.secure else 'http'}://{way.host}"
    same = origin == ours or (origin in (None, "null") and site == "same-origin")
    if not same or site not in (None, "same-origin"):
        raise Refused(403, "Not from this page", "A page of another site asked for this. Nothing was done.")
