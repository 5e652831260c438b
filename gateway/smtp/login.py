"""The AUTH conversation (RFC 4954): what each mechanism sends, as user name and password."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error, a2b_base64
from collections.abc import Awaitable, Callable, Mapping
from string import ascii_letters, digits

from gateway.model import Refusal

Challenge = Callable[[bytes], Awaitable[bytes]]  # sends one, returns the decoded answer
_Mechanism = Callable[[bytes | None, Challenge], Awaitable[tuple[str, str]]]
# What RFC 7628 3.2.3 has the server say before the final 535.
BEARER_REFUSED = b'{"status":"invalid_token","schemes":"bearer"}'


def decode(text: bytes) -> bytes:
    """An initial response or an answer, out of base64. Raises Refusal 501."""
    if text == b"*":
        raise Refusal(501, "5.7.0", "Authentication cancelled", "bad_syntax")
    try:
        return b"" if text == b"=" else b64decode(text, validate=True)
    except Error:
        raise _bad() from None


# In base64: what PLAIN sends (RFC 4616), XOAUTH2, and OAUTHBEARER (RFC 7628).
_WORDS = bytes(n if chr(n) in f"{ascii_letters}{digits}+/" else 32 for n in range(256))
_LEAST = 6  # characters of one, without padding
_SENT = re.compile(rb"[^\0]*\0[^\0]+\0[^\0]+|(?:user=|n,|y,)[^\x01]*\x01(?:[^\x01]*\x01)*", re.DOTALL)


def holds_answer(line: bytes) -> bool:
    """Whether a line that is no AUTH has in it what can only be the answer to one: a name and a password or token."""
    return any(map(_is_answer, line.translate(_WORDS).split()))


def _is_answer(word: bytes) -> bool:
    if len(word) < _LEAST or len(word) % 4 == 1:
        return False
    said = a2b_base64(word + b"=" * (-len(word) % 4))
    if b"\0" not in said and b"\x01" not in said:
        return False
    try:
        return bool(_SENT.fullmatch(said)) and said.translate(None, b"\0\x01").decode().isprintable()
    except UnicodeDecodeError:
        return False


def encode(challenge: bytes) -> bytes:
    """The reply 334 with a challenge in base64."""
    return b"334 " + b64encode(challenge) + b"\r\n"


async def _plain(initial: bytes | None, challenge: Challenge) -> tuple[str, str]:
    parts = (await challenge(b"") if initial is None else initial).split(b"\0")
    if len(parts) != 3:
        raise _bad()
    identity, user, password = (_text(part) for part in parts)
    if identity not in ("", user):  # RFC 4616 2: to act for somebody else is not something we grant
        raise Refusal(535, "5.7.8", "Authentication credentials invalid", "auth_failed")
    return user, password


async def _login(initial: bytes | None, challenge: Challenge) -> tuple[str, str]:
    user = await challenge(b"Username:") if initial is None else initial
    return _text(user), _text(await challenge(b"Password:"))


async def _bearer(initial: bytes | None, challenge: Challenge) -> tuple[str, str]:
    """XOAUTH2 (``user=``) and OAUTHBEARER (RFC 7628, ``n,a=``): fields parted by ^A, the token behind ``auth=``."""
    fields = _text(await challenge(b"") if initial is None else initial).split("\x01")
    user = fields[0].removeprefix("user=")
    if fields[0].startswith(("n,", "y,")):
        user = fields[0].split(",")[1].removeprefix("a=").replace("=2C", ",").replace("=3D", "=")
    token = next((field.removeprefix("auth=") for field in fields if field.startswith("auth=")), "")
    scheme, _, password = token.partition(" ")
    if scheme.lower() != "bearer":
        raise _bad()
    return user or "jwt", password.strip()


MECHANISMS: Mapping[str, _Mechanism] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "XOAUTH2": _bearer,
    "OAUTHBEARER": _bearer,
}


BEARER = ("XOAUTH2", "OAUTHBEARER")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad() from None


def _bad() -> Refusal:
    return Refusal(501, "5.5.2", "Malformed authentication data", "bad_syntax")
