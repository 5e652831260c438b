"""What a message says, for ways out that take fields instead of MIME: bodies, files, and what they must carry.

Nothing is dropped in silence: a leaf is a body, an inline part, an attachment, or an alternative to one of the bodies
that its sender offered as equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import unescape
from urllib.parse import unquote

from gateway.address import comparable
from gateway.message.charset import Undecodable
from gateway.message.header import Header
from gateway.message.leaf import Leaf, plain_text, rough_text
from gateway.message.parts import Multipart, Placed, Tree, ancestors
from gateway.message.text import surely

FEATURES = frozenset((
    "malformed", "encrypted", "signed", "report", "charset", "no_charset", "attached_message", "calendar",
    "attachments", "inline_images", "reply_to", "headers", "threading", "both_bodies", "no_subject", "no_text",
))  # fmt: skip
_ORDINARY = frozenset((
    "from", "sender", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "mime-version", "received",
    "return-path", "dkim-signature", "domainkey-signature", "x-mailer", "user-agent",
    "authentication-results", "x-received", "x-originating-ip", "thread-index", "thread-topic",  # traces
    "x-envelope-to", "x-original-to", "x-original-cc", "x-original-resent-to", "x-original-resent-cc",  # redirect_to
))  # fmt: skip
_THREADING = frozenset(("in-reply-to", "references"))
_REPORTS = frozenset(("message/delivery-status", "message/disposition-notification"))
_SMIME = frozenset(("application/pkcs7-mime", "application/x-pkcs7-mime"))
_SIGNATURES = frozenset((
    "application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature",
))  # fmt: skip
_CID = re.compile(r"cid:([^\s\"'<>()]{1,1000}+)")
_VISIBLE = re.compile(rb"\S")
_REPLY_LIMIT = 16_384  # octets
_STEP = 1 << 18
_OVERLAP = 1100
_NAMED = 5
_NAME_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Content:
    """``text`` and ``html`` are the bodies; ``leaves`` are all parts in order, also those in no other field.

    ``features`` says which of FEATURES a way out must carry, and where each stands; what explains most comes first.
    """

    subject: str
    text: Leaf | None
    html: Leaf | None
    reply_to: tuple[str, ...]
    inline: tuple[Leaf, ...]
    attachments: tuple[Leaf, ...]
    leaves: tuple[Leaf, ...]
    features: Mapping[str, str]


def walk(raw: bytes) -> Content:
    """What the message says, whatever its bytes; where ``features`` has "malformed" it may say something else."""
    tree = Tree(raw)
    reply_to = _reply_to(tree)
    text, html = _bodies(tree.root, only=len(tree.leaves) == 1)
    chosen = [body for body in (text, html) if body]
    inline = [part for part in _shown(raw, tree, html) if part not in chosen] if html else []
    spoken_for = {*chosen, *inline, *(other for body in chosen for other in _alternatives(body))}
    attachments = [part for part in tree.leaves if part not in spoken_for]
    return Content(
        subject=tree.header.first("subject"),
        text=text.leaf if text else None,
        html=html.leaf if html else None,
        reply_to=reply_to,
        inline=tuple(part.leaf for part in inline),
        attachments=tuple(part.leaf for part in attachments),
        leaves=tuple(part.leaf for part in tree.leaves),
        features=_features(raw, tree, chosen, inline, attachments, reply_to),
    )


def _bodies(node: Multipart | Placed, *, only: bool) -> tuple[Placed | None, Placed | None]:
    """The text and the HTML body inside. A file is no body unless it is all there is."""
    if isinstance(node, Placed):
        leaf = node.leaf
        bare = leaf.disposition != "attachment" and (only or not leaf.filename)
        kind = leaf.content_type if bare else ""
        return node if kind == "text/plain" else None, node if kind == "text/html" else None
    found = [_bodies(child, only=only) for child in node.children]
    if node.kind == "multipart/alternative":  # the last is the best (RFC 2046 5.1.4)
        best = [next((body for body in bodies if body), None) for bodies in zip(*reversed(found), strict=True)]
        return (best[0], best[1]) if best else (None, None)
    # Elsewhere parts follow each other, and what comes after the first body is more to read. Only HTML right behind a
    # text is taken for its other form: so scripts write it that do not know of alternatives.
    for index, (text, html) in enumerate(found):
        if text and not html:
            other, behind = found[index + 1] if index + 1 < len(found) else (None, None)
            adjacent = behind and not other and behind.leaf.number == text.leaf.number + 1
            return text, behind if adjacent else None
        if html:
            return text, html
    return None, None


def _alternatives(body: Placed) -> Iterator[Placed]:
    """What stands beside a body as another form of the same text. An invitation does not: it is to be acted on."""
    for multipart in ancestors(body):
        if multipart.kind == "multipart/alternative":
            for part in multipart.children:
                if isinstance(part, Placed) and _is_alternative(part.leaf):
                    yield part


def _is_alternative(leaf: Leaf) -> bool:
    text = leaf.content_type.startswith("text/") and leaf.content_type != "text/calendar"
    return text and leaf.disposition != "attachment" and not leaf.filename


def _shown(raw: bytes, tree: Tree, html: Placed) -> list[Placed]:
    """What the HTML refers to (RFC 2392), and images beside it that are not said to be attached."""
    ids = {part.leaf.content_id.lower() for part in tree.leaves} - {""}
    referred = _referred(rough_text(raw, html.leaf), ids) if ids else set()
    related = [multipart for multipart in ancestors(html) if multipart.kind == "multipart/related"]

    def beside(part: Placed) -> bool:
        image = part.leaf.content_type.startswith("image/") and part.leaf.disposition != "attachment"
        return image and part.parent in related

    return [part for part in tree.leaves if part.leaf.content_id.lower() in referred or beside(part)]


def _referred(html: str, ids: set[str]) -> set[str]:
    """The ids among ``ids`` that stand in cid: URLs, as they are or escaped."""
    found: set[str] = set()
    for position in range(0, len(html), _STEP):
        for name in _CID.findall(html[position : position + _STEP + _OVERLAP].lower()):
            found.add(name if name in ids else unquote(unescape(name)))
        found &= ids
    return found


def _reply_to(tree: Tree) -> tuple[str, ...]:
    """Reading addresses costs time, and nobody wants answers to go to this many."""
    if sum(len(field.raw) for field in tree.header.fields if field.name == "reply-to") > _REPLY_LIMIT:
        tree.complain(f"Reply-To of more than {_REPLY_LIMIT} bytes")
        return ()
    return tree.header.addresses("reply-to")


def _features(
    raw: bytes,
    tree: Tree,
    bodies: list[Placed],
    inline: list[Placed],
    attachments: list[Placed],
    reply_to: tuple[str, ...],
) -> dict[str, str]:
    typed: dict[str, list[Placed]] = {}
    for part in tree.leaves:
        typed.setdefault(_feature(part), []).append(part)
    kinds = {multipart.kind for multipart in tree.multiparts}
    found = {"malformed": tree.trouble}
    for feature in ("encrypted", "signed", "report"):
        around = f"multipart/{feature}"
        found[feature] = _some(typed.get(feature, ())) or (around if around in kinds else "")
    found |= {
        **_unreadable(raw, tree.header, bodies),
        "attached_message": _some(typed.get("attached_message", ())),
        "calendar": _some(typed.get("calendar", ())),
        "attachments": _some(attachments),
        "inline_images": _some(inline),
        "both_bodies": " and ".join(str(body.leaf) for body in bodies) if len(bodies) > 1 else "",
        **_header_features(tree.header, reply_to),
        "no_subject": "" if tree.header.first("subject") else "Subject",
        "no_text": "" if any(_VISIBLE.search(raw, body.leaf.start, body.leaf.end) for body in bodies) else "body",
    }
    return {feature: where for feature, where in found.items() if where}


def _unreadable(raw: bytes, header: Header, bodies: Sequence[Placed]) -> dict[str, str]:
    """Text that no other form can be made of, apart by whether it names its character set."""
    found = {"charset": "", "no_charset": ""}
    subject = partial(surely, header.value("subject"))
    tries = [("Subject", subject), *((str(one.leaf), partial(plain_text, raw, one.leaf)) for one in bodies)]
    for where, read in tries:
        try:
            read()
        except Undecodable as error:
            feature = "no_charset" if error.unnamed else "charset"
            found[feature] = found[feature] or f"{where[:_NAME_LIMIT]} {error}"
    return found


def _feature(part: Placed) -> str:
    """What it takes to carry a leaf because of its type, or "" (RFC 8551 3.2.2, RFC 3156, RFC 3464, RFC 5545)."""
    kind = part.leaf.content_type
    if kind in _SMIME:
        return "signed" if part.parameters.get("smime-type", "").lower() == "signed-data" else "encrypted"
    if kind in _SIGNATURES:
        return "signed"
    if kind in _REPORTS and any(multipart.kind == "multipart/report" for multipart in ancestors(part)):
        return "report"
    if kind == "text/calendar" and part.leaf.disposition != "attachment":
        return "calendar"
    return "attached_message" if kind.startswith("message/") else ""


def _some(parts: Sequence[Placed]) -> str:
    return _more([str(part.leaf) for part in parts], 1)


def _more(names: Sequence[str], shown: int) -> str:
    """The first of them, cut to a length that suits a refusal, and how many there are besides."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(name[:_NAME_LIMIT] for name in names[:shown]) + more


def _header_features(header: Header, reply_to: Sequence[str]) -> dict[str, str]:
    first = [comparable(address) for address in header.addresses("from")[:1]]
    elsewhere = [address for address in reply_to if comparable(address) not in first]
    own = {name: spelled for name, spelled in header.names().items() if not is_ordinary(name)}
    return {
        "reply_to": _more(elsewhere, 1),
        "headers": _more([spelled for name, spelled in own.items() if name not in _THREADING], _NAMED),
        "threading": _more([spelled for name, spelled in own.items() if name in _THREADING], _NAMED),
    }


def is_ordinary(name: str) -> bool:
    """Fields that every way out makes anew, or that only say how a message came."""
    return name in _ORDINARY or name.startswith(("content-", "arc-"))
