"""A plain RFC 5322 file of an operator's pickup folder, as envelope and message."""

from __future__ import annotations

from gateway.drop.compose import Given, NotSendable, compose, named
from gateway.drop.letter import Letter
from gateway.message import Header, repaired, replace_fields, scan
from gateway.model import BadAddress, BadMessage, Envelope, Recipient

# What .NET's SmtpClient and IIS write before the header: then they are the envelope. Further down they are only fields.
_SENDER, _RECEIVER = "x-sender", "x-receiver"
_AUTHORS = ("sender", "from")


def read(data: bytes, whole: int, *, domain: str) -> Letter:
    """Recipients are those of X-Receiver, else of the header as for ``sendmail -t``; ``domain`` completes local names
    where the settings have none for them.

    The sender is that of X-Sender, else of Sender or From. The file has so many octets as a ``whole``, of which
    ``data`` may be the beginning. Raises BadMessage.
    """
    raw, cut = repaired(data), whole > len(data)
    header = scan(raw)
    raw = raw[: header.end] if cut else raw
    try:
        leading = _leading(header)
        senders = [address for name in (_SENDER, *_AUTHORS) for address in _addresses(header, name, leading)]
        if not senders:
            raise BadMessage("no sender: neither Sender nor From has an address, and no X-Sender comes first")
        if receivers := _addresses(header, _RECEIVER, leading):
            raw = replace_fields(raw, header, b"", dict.fromkeys(range(leading), b""))
            everyone = tuple(map(Recipient, dict.fromkeys(receivers)))
            utf8 = not "".join((senders[0], *receivers)).isascii()
            envelope = Envelope(senders[0], everyone, smtputf8=utf8, eightbit=not raw.isascii())
        else:
            envelope, raw = compose(Given(senders[0], (), from_header=True), raw)
        return Letter(envelope, raw, whole if cut else len(raw), domain)
    except (BadAddress, NotSendable) as error:
        raise BadMessage(str(error)) from None


def _leading(header: Header) -> int:
    """How many fields at the top are the envelope's."""
    names = [field.name for field in header.fields]
    return next((n for n, name in enumerate(names) if name not in (_SENDER, _RECEIVER)), len(names))


def _addresses(header: Header, name: str, leading: int) -> list[str]:
    fields = header.fields[:leading] if name in (_SENDER, _RECEIVER) else header.fields
    values = [field.value for field in fields if field.name == name]
    return [address for value in values for address in named(value)]
