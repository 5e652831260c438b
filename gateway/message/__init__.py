"""Messages: bytes in, bytes out, no I/O. Nothing here parses and re-serialises; all of it is linear in its input."""

from gateway.message.header import Field, Header, normalise_newlines, scan
from gateway.message.mailboxes import plain_addresses
from gateway.message.recipients import Split, address_to, readdress, split_recipients
from gateway.message.stamp import Trace, stamp
from gateway.message.structure import Part, structure

__all__ = [
    "Field", "Header", "Part", "Split", "Trace", "address_to", "normalise_newlines", "plain_addresses",
    "readdress", "scan", "split_recipients", "stamp", "structure",
]  # fmt: skip
