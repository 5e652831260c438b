"""Lines that stand in the wrong column: what should be within a section and is beside it. One error for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.config.document import Document, Keys

_NAMED: tuple[Keys, ...] = (("listeners",), ("clients",), ("backends",), ("tenants",), ("pickup",), ("auth", "keys"))


def find_misplaced(document: Document, sections: Iterable[str]) -> None:
    """Note what is not indented below the empty section or name right above it, and take it out."""
    top, known = document.data, set(sections)
    above = ""
    for key, value in list(top.items()):
        if key in known:
            above = key if value is None and document.place((key,)).line else ""
        elif above and document.place((key,)).line:
            _note(document, top, (key,), above)
            document.bad.add((above,))
    for keys in _NAMED:
        section: Any = top
        for part in keys:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            _within(document, section, keys)


def _within(document: Document, section: dict[str, Any], keys: Keys) -> None:
    above, noted = "", False
    for name, value in list(section.items()):
        if value is None:
            above, noted = name, False
        elif isinstance(value, dict):
            above = ""
        elif above:  # several lines of one slip are one error
            if noted:
                document.bad.add((*keys, name))
                del section[name]
            else:
                _note(document, section, (*keys, name), above)
                document.bad.add((*keys, above))
                noted = True


def _note(document: Document, holder: dict[str, Any], keys: Keys, above: str) -> None:
    document.fail(keys, f'is not indented below "{above}": begin this line, and those that belong to it, further right')
    del holder[str(keys[-1])]
