"""What is wrong with a file that cannot be read as YAML, in words for whoever typed it. Never repeats a value."""

from __future__ import annotations

import re
from typing import Any

import yaml

_HINTS = {  # what PyYAML says -> what to do about it
    "unknown escape": "within \"...\" a \\ begins an escape: write it within '...', or a / instead",
    "cannot start any token": "a value that begins with this character must be quoted",
    "mapping values are not allowed": 'a ":" too many: quote a value that holds ": ", and look at the line above',
    "expected <block end>": "the indentation does not fit the lines above",
    "while scanning a quoted scalar": "a quote is not closed",
    "alias": "a value that begins with * must be quoted",
    "anchor": "a value that begins with & must be quoted",
    "tag": "a value that begins with ! must be quoted",
    "could not find expected ':'": 'write "key: value", with a space behind the colon',
    "block scalar": "a value that begins with | or > must be quoted",
    "parsing a flow": "a comma or a closing bracket is missing",
    "single document": 'there may be only one document, without a second "---"',
}
_KEY = re.compile(r"( *)[\w-]+:( |$)")
_KEYS = 'must hold "key: value" lines, such as "hostname: relay.example.com"'
_UNSEEN = {
    "\u00a0": "a space that is none (no-break space)", "\u202f": "a space that is none (narrow no-break space)",
    "\u3000": "a space that is none (ideographic space)", "\u200b": "an invisible character (zero width space)",
    "\u2060": "an invisible character (word joiner)", "\ufeff": "an invisible character (byte order mark)",
}  # fmt: skip
_QUOTES = tuple("\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb")
_SECTION = re.compile(r"\s*\[[\w.-]+\]\s*")
_COMMENT = re.compile(r"\s*(;|//|--(?!-)|/\*)")


def explain(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong where ``error`` was noticed, and what to do."""
    said = f"{error.context or ''} {error.problem}".strip()
    lines, mark = text.splitlines(), error.problem_mark
    number = mark.line if mark is not None else 0
    line = lines[number] if number < len(lines) else ""
    column = mark.column if mark is not None else 0
    if "\\t" in said:
        behind = "write a space behind the colon, not a tab"
        return behind if line[:column].strip() else "indent with spaces, not with tabs"
    if found := _of_the_lines_above(lines, number, line, column, said):
        return found
    if "parsing a flow" in said and (commented := _commented(lines, error, number)):
        return commented
    return next((advice for words, advice in _HINTS.items() if words in said), re.sub(r"'.*'", "...", said))


def unseen(value: str) -> str:
    """What is wrong with a value that looks right: characters of word processors and web pages; "" where nothing is."""
    if found := next((name for sign, name in _UNSEEN.items() if sign in value), ""):
        return f"holds {found}, copied from somewhere: type it anew (a secret that really holds one goes into a _file)"
    if value[:1] in _QUOTES or value[-1:] in _QUOTES:
        return "has typographic quotes around it: write \" or '"
    if value[:2] in ("\u2013 ", "\u2014 ", "\u2022 "):
        return 'begins with a sign that is no hyphen: an item of a list begins with "- "'
    return ""


def no_mapping(text: str) -> tuple[int, str]:
    """The line from 1 (0: none in particular), and why a file that is YAML holds no settings."""
    for number, line in enumerate(text.splitlines(), 1):
        if _COMMENT.match(line):
            return number, "a comment begins with #"
        if found := unseen(line):
            return number, found
        if re.match(r"\s*[\w-]+\s*=", line):
            return number, 'write "key: value", not "key = value"'
        if re.match(r"\s*[\w-]+:\S", line):
            return number, 'write "key: value", with a space behind the colon'
    return 0, _KEYS


def _of_the_lines_above(lines: list[str], number: int, line: str, column: int, said: str) -> str:
    """Where the mistake was made earlier than it was noticed."""
    settings = [n for n, each in enumerate(lines[:number]) if each.strip() and not each.strip().startswith("#")]
    found = ""
    if not settings:
        return found
    first, above = settings[0], settings[-1]
    if _SECTION.fullmatch(lines[first]):
        return 'this is an INI or TOML file: write "section:", and below it indented "key: value" lines'
    if odd := [n + 1 for n in (above, number) if n < len(lines) and _COMMENT.match(lines[n])]:
        return f"line {odd[0]} is no setting; a comment begins with #"
    if "could not find expected ':'" in said:
        equals = [n + 1 for n in (above, number) if n < len(lines) and re.match(r"\s*[\w-]+\s*=", lines[n])]
        return f'write "key: value", not "key = value", in line {equals[0]}' if equals else ""
    if "document start" in said and _indent(line) < _indent(lines[first]):
        found = f"line {first + 1} is indented too far: all keys of the first level begin in one column"
    elif "mapping values" in said or "found '<block mapping start>'" in said:
        found = _of_the_line_above(lines[above], above, line, column)
    return found


def _of_the_line_above(before: str, above: int, line: str, column: int) -> str:
    key = _KEY.match(line)
    here = key and column in (_indent(line), key.end() - len(key[2]) - 1)
    if here and _KEY.match(before) and _indent(line) > _indent(before):
        return f"indented too far: this line must begin below the line above it, in column {_indent(before) + 1}"
    if key and re.match(r"\s*[\w-]+\s*=", before):
        return f'write "key: value", not "key = value", in line {above + 1}'
    return ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _commented(lines: list[str], error: yaml.MarkedYAMLError, number: int) -> str:
    """A value that holds " #" loses all behind it, the closing brackets too."""
    begun: Any = error.context_mark
    for n in range(begun.line if begun is not None else number, min(number + 1, len(lines))):
        if " #" in lines[n] and re.search(r"[{\[].* #.*[}\]]", lines[n]):
            return f'in line {n + 1} a # behind a blank begins a comment: quote a value that holds " #"'
    return ""
