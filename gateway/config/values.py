"""The small value types of the configuration: durations, sizes, rates, names, networks, addresses."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from datetime import time, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, SecretStr, StringConstraints, WithJsonSchema

from gateway.address import parse_address, with_a_labels
from gateway.config.database import parse_database, parse_failover, parse_instance
from gateway.config.durations import format_duration, parse_duration
from gateway.config.locate import absolute
from gateway.model import BadAddress, Network
from gateway.quota import Rate
from gateway.url import check_url

_BYTES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_HOST = re.compile(r"(?=.{1,253}$)(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.IGNORECASE)
_SCRYPT = re.compile(r"\$scrypt\$ln=(\d\d?),r=(\d\d?),p=(\d\d?)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")
_PATTERN = re.compile(r"(\*|[^*]+)@(\*|(\*\.)?[^*]+)")  # what gateway.address.matches understands, beside "*"


MASK = "********"  # in the place of what is not shown


def _match(pattern: str, value: Any, wanted: str) -> re.Match[str]:
    if match := re.fullmatch(pattern, str(value).strip(), re.IGNORECASE):
        return match
    raise ValueError(f'"{value}" is not {wanted}')


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0")
    return value


def parse_size(value: Any) -> int:
    """``25MB`` (decimal), ``25MiB`` (binary) or a number of bytes."""
    match = _match(r"([0-9]{1,15})\s*([kmg]?i?b|)", value, "a size, write for example 25MB or 512KB")
    return int(match[1]) * _BYTES.get(match[2].upper(), 1)


def format_size(value: int) -> str:
    unit = next((unit for unit in ("GB", "MB", "KB") if value and value % _BYTES[unit] == 0), "")
    return f"{value // _BYTES[unit]}{unit}"


def parse_rate(value: Any) -> Rate:
    """``60/minute``: a count per second, minute, hour or day."""
    if isinstance(value, Rate):
        return value
    wanted = "a rate, write for example 60/minute or 1000/hour"
    match = _match(r"([1-9][0-9]{0,8})\s*/\s*(second|minute|hour|day)", value, wanted)
    return Rate(int(match[1]), timedelta(seconds=_PERIODS[match[2].lower()]))


def format_rate(rate: Rate) -> str:
    return f"{rate.count}/{next(name for name, s in _PERIODS.items() if s == rate.period.total_seconds())}"


def parse_network(value: Any) -> Network:
    if not isinstance(value, str):
        return value  # type: ignore[no-any-return]  # not text: pydantic's own check of the type refuses it
    try:
        return ip_network(value.strip())
    except ValueError as error:
        if "host bits" in str(error):
            fixed = ip_network(value.strip(), strict=False)
            raise ValueError(f'"{value}" has bits set behind the prefix, did you mean "{fixed}"?') from None
        raise ValueError(f'"{value}" is not an IP address or network such as 192.0.2.0/24') from None


def parse_spool_free(value: Any) -> float:
    """A share of the disk (``10%``) as 0.1, or a size in bytes (1 or more)."""
    if isinstance(value, float):
        return value
    if match := re.fullmatch(r"([0-9]{1,2})\s*%", str(value).strip()):
        return int(match[1]) / 100
    try:
        return float(parse_size(value))
    except ValueError:
        share = "a share of the disk (a whole percentage from 0% to 99%)"
        raise ValueError(f'"{value}" is neither {share} nor a size, write for example 10% or 5GB') from None


def parse_scrypt(text: str) -> tuple[int, int, int, bytes, bytes]:
    """``$scrypt$ln=14,r=8,p=1$salt$hash`` as passlib writes it: ln, r, p, salt and hash. The error holds none of it."""
    match = _SCRYPT.fullmatch(text)
    if match is None or any(len(part) % 4 == 1 for part in match.groups()[3:]):
        raise ValueError('is not a whole $scrypt$ hash, make one with "gateway password mint"')
    ln, r, p = map(int, match.groups()[:3])
    salt, digest = (base64.b64decode(part + "=" * (-len(part) % 4)) for part in match.groups()[3:])
    if ln < 10 or not 0 < r << ln <= 1 << 20 or not 0 < p <= 16 or len(salt) < 8 or len(digest) < 32:
        raise ValueError("is a $scrypt$ hash that is too weak, or needs more than 128 MiB")
    return ln, r, p, salt, digest


def parse_bind(text: str) -> tuple[str, int]:
    """``127.0.0.1:25``, ``[::1]:25`` or ``localhost:25`` as host and port."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        good = (ip_address(bare).version == 6) == (host != bare)
    except ValueError:
        good = _HOST.fullmatch(host) is not None and re.fullmatch("[0-9.]+", host) is None
    if not (good and re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535):
        raise ValueError(f'"{text}" is not a place to listen at, {_place(text)}')
    return bare, int(port)


def unlikely_path(text: str) -> str:
    """Why this is hardly the path of a file here, "" where it may be one."""
    if text.startswith("~"):
        return f'"{text}": ~ is not filled in, for the service is another user than you; write the whole path'
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        return f'"{text}" is a path of Windows; write one of this machine, such as /etc/gateway/smtp2go.key'
    if re.search(r"\$\{?[A-Za-z_]", text):
        return f'"{text}": variables are not filled in; write the whole path'
    return ""


def parse_time_of_day(value: Any) -> time:
    """``07:00`` or ``17:30``. YAML reads what is not in quotes as minutes in base 60."""
    if isinstance(value, time):
        return value
    text = f"{value // 60}:{value % 60:02}" if isinstance(value, int) else str(value).strip()
    if not (match := re.fullmatch("([0-9]{1,2}):([0-5][0-9])", text)) or int(match[1]) > 23:
        raise ValueError(f'"{value}" is not a time of the day, write for example "07:00"')
    return time(int(match[1]), int(match[2]))


def _place(text: str) -> str:
    """What may have been meant to listen at."""
    if port := re.fullmatch(r"(?:\*?:)?([0-9]{1,5})", text):
        return f'did you mean "0.0.0.0:{port[1]}" (every address), or "127.0.0.1:{port[1]}" (this machine only)?'
    host, _, number = text.rpartition(":")
    with suppress(ValueError):
        if number.isdigit() and int(number) <= 65535 and ip_address(host).version == 6:
            return f'did you mean "[{host}]:{number}"?'
    with suppress(ValueError):
        found = ip_address(text.strip("[]"))
        return f'did you mean "{found}:25"?' if found.version == 4 else f'did you mean "[{found}]:25"?'
    return "write for example 127.0.0.1:25 or [::1]:25"


def parse_hostname(text: str) -> str:
    """A host name as it may stand in EHLO (RFC 5321 section 4.1.2)."""
    _match(_HOST.pattern, text, "a host name such as relay.example.com")
    return text


def _address(text: str, *, instead: str = "") -> str:
    try:
        return parse_address(text)
    except BadAddress as error:
        raise ValueError(f'"{text}": {error}{instead}') from None


def _plain_address(text: str) -> str:
    plain = with_a_labels(_address(text))
    if not plain.isascii():  # the message need not be one that needs SMTPUTF8
        raise ValueError(f'"{text}": not every backend can send to such an address (SMTPUTF8); write one in ASCII')
    return plain


def _local_domain(text: str) -> str:
    return f"*.{parse_hostname(text[2:])}".lower() if text.startswith("*.") else parse_hostname(text).lower()


def _mailbox(text: str) -> str:
    if "*" in text:
        raise ValueError(f'"{text}" is a pattern: write mailbox: sender, and the pattern in senders')
    return text if text in ("sender", "me") else _address(text, instead="; give an address, sender or me")


def _api_key(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not (text and text.isascii() and text.isprintable()):  # it is sent as a field of an HTTP header
        raise ValueError("must be one line of ASCII characters, and nothing else")
    return secret


def _secret_url(secret: SecretStr) -> SecretStr:
    check_url(secret.get_secret_value())
    return secret


def parse_pattern(text: str) -> str:
    """An address pattern; ``{sub}`` and ``{email}`` stand for the token's claims."""
    example = re.sub(r"^\{(sub|email)\}$", "x@example.com", text).replace("{sub}", "x")
    if text != "*" and "@" not in example:
        raise ValueError(f'"{text}" is not an address pattern, did you mean "*@{text}"?')
    if example.startswith("@"):
        raise ValueError(f'"{text}" is not an address pattern, did you mean "*{text}"?')
    if text != "*" and not _PATTERN.fullmatch(example):
        raise ValueError(f'"{text}": a * stands for the whole local part, the whole domain, or what precedes .domain')
    return text if text == "*" or _address(example.replace("*", "x")) else ""


def parse_choice(text: str) -> str:
    """An address pattern, or ``!`` before one: whom that matches is not meant."""
    if not text.startswith("!"):
        return parse_pattern(text)
    if text in ("!", "!*", "!*@*"):
        raise ValueError(f'"{text}" blocks everybody, write [] for that')
    if "{" in text:
        raise ValueError(f'"{text}": what is blocked is an address or pattern, no claim of a token')
    return f"!{parse_pattern(text[1:])}"


def check_choices(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError where it says only who is blocked."""
    if patterns and all(one.startswith("!") for one in patterns):
        raise ValueError(f'says only who is blocked, and nobody else is allowed either: put "*" before {patterns[0]}')
    return patterns


def _text_schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "integer"], "pattern": pattern})


_DURATION_TEXT = _text_schema(r"^(0|(\d+[smhdw])+)$")
_SIZE_TEXT = _text_schema(r"^\d+ ?([kKmMgG]?i?[bB])?$")
_RATE_TEXT = _text_schema(r"^\d+ ?/ ?(second|minute|hour|day)$")
_FREE_TEXT = _text_schema(r"^\d+ ?(%|[kKmMgG]?i?[bB])?$")

Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration), _DURATION_TEXT]
LongDuration = Annotated[Duration, AfterValidator(_positive)]
Failover = Annotated[timedelta, BeforeValidator(parse_failover), PlainSerializer(format_duration), _DURATION_TEXT]
Database = Annotated[str, AfterValidator(parse_database)]
InstanceName = Annotated[str, AfterValidator(parse_instance)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size), _SIZE_TEXT]
RateLimit = Annotated[Rate, BeforeValidator(parse_rate), PlainSerializer(format_rate), _RATE_TEXT]
_STRING = WithJsonSchema({"type": "string"})
NetworkText = Annotated[Network, BeforeValidator(parse_network), PlainSerializer(str), _STRING]
_format_free = PlainSerializer(lambda free: f"{free:.0%}" if free < 1 else format_size(int(free)))
FreeSpace = Annotated[float, BeforeValidator(parse_spool_free), _format_free, _FREE_TEXT]
_TIME_TEXT = _text_schema(r"^([01]?[0-9]|2[0-3]):[0-5][0-9]$")
TimeOfDay = Annotated[time, BeforeValidator(parse_time_of_day), PlainSerializer("{:%H:%M}".format), _TIME_TEXT]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Bind = Annotated[str, AfterValidator(lambda text: text if parse_bind(text) else "")]
BindOrNone = Annotated[str, AfterValidator(lambda text: text if not text or parse_bind(text) else "")]
UrlAsWritten = Annotated[str, AfterValidator(lambda text: text if check_url(text) else "")]
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
# A program and its arguments, of which any may hold a secret: they are never shown.
CommandLine = Annotated[tuple[str, ...], PlainSerializer(lambda words: (*words[:1], *(MASK for _ in words[1:])))]
Hostname = Annotated[str, AfterValidator(parse_hostname)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
Directory = Annotated[Path, AfterValidator(absolute)]
Address = Annotated[str, AfterValidator(_address)]
PlainAddress = Annotated[str, AfterValidator(_plain_address)]
LocalDomain = Annotated[str, AfterValidator(_local_domain)]  # "*.lan": all below it
Mailbox = Annotated[str, AfterValidator(_mailbox)]  # "sender": the From address of each message; "me": who signed in
Pattern = Annotated[str, AfterValidator(parse_pattern)]
# "" is the null sender.
Choices = Annotated[tuple[Annotated[str, AfterValidator(parse_choice)], ...], AfterValidator(check_choices)]
SenderPattern = Annotated[str, AfterValidator(lambda text: parse_pattern(text) if text else "")]
