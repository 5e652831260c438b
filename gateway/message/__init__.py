"""Messages: bytes in, bytes out, no I/O. Nothing here parses and re-serialises; all of it is linear in its input."""

from gateway.message.charset import Undecodable
from gateway.message.content import FEATURES, Content, walk
from gateway.message.header import (
    HEADER_LIMIT,
    Field,
    Header,
    has_bare_newlines,
    normalise_newlines,
    repaired,
    replace_fields,
    scan,
)
from gateway.message.leaf import Leaf, leaf_bytes, leaf_pieces, leaf_text
from gateway.message.mailboxes import every_address, may_show_address, plain_addresses, qualify, sole_address
from gateway.message.recipients import (
    Split,
    address_call,
    address_to,
    qualify_header,
    readdress,
    redirected,
    split_recipients,
)
from gateway.message.stamp import Arrival, received, stamp

__all__ = [
    "FEATURES", "HEADER_LIMIT", "Arrival", "Content", "Field", "Header", "Leaf", "Split", "Undecodable", "address_call",
    "address_to", "every_address", "has_bare_newlines", "leaf_bytes", "leaf_pieces", "leaf_text", "may_show_address",
    "normalise_newlines", "plain_addresses", "qualify", "qualify_header", "readdress", "received",
    "redirected", "repaired", "replace_fields", "scan", "sole_address", "split_recipients", "stamp", "walk",
]  # fmt: skip
