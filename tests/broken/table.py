"""docs/broken.md: what is seen of each broken set-up, as a page to search by the words that one sees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.broken import apis, google, microsoft, smarthost
from tests.broken.kit import Case, Ends, Seen

PAGE = Path(__file__).parents[2] / "docs" / "broken.md"
CASES: tuple[Case, ...] = (*microsoft.CASES, *google.CASES, *smarthost.CASES, *apis.CASES)
SHOWN = tuple(case for case in CASES if not case.slow)
TITLES: Mapping[str, tuple[str, str]] = {
    "graph": ("Microsoft 365 (`type: graph`)", "How it is set up: [microsoft365.md](microsoft365.md)."),
    "gmail": ("Gmail (`type: gmail`)", "How it is set up: [gmail.md](gmail.md)."),
    "smtp": ("An upstream SMTP server (`type: smtp`)", "How it is set up: [smarthost.md](smarthost.md)."),
    "smtp2go": ("SMTP2GO (`type: smtp2go`)", "How it is set up: [smtp2go.md](smtp2go.md)."),
    "js2mail": ("JS2Mail (`type: js2mail`)", "How it is set up: [json-apis.md](json-apis.md)."),
    "justemails": ("JustEmails (`type: justemails`)", "How it is set up: [json-apis.md](json-apis.md)."),
    "mailpass": ("MailPass (`type: mailpass`)", "How it is set up: [json-apis.md](json-apis.md)."),
    "temp_mail": ("Cloudflare temp mail (`type: temp_mail`)", "How it is set up: [json-apis.md](json-apis.md)."),
}
_HEAD = "| what is wrong | `gateway status`, the overview, the alert | `gateway trace`, the page of the message |"
_HEAD += " `gateway doctor` | to do |\n| --- | --- | --- | --- | --- |"
_GOES_ON = "Nothing: it goes on by itself. If it comes often, send less at once, or ask for a higher limit."


def page(seen: Mapping[str, Seen]) -> str:
    parts = [PAGE.read_text().partition("\n## ")[0].rstrip() + "\n"]  # the introduction is written by hand
    for provider, (title, more) in TITLES.items():
        rows = [row(seen[case.name]) for case in SHOWN if case.provider == provider]
        parts.append(f"## {title}\n\n{more}\n\n{_HEAD}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def row(seen: Seen) -> str:
    cells = (seen.case.cause, _status(seen), _life(seen), _doctor(seen), _fix(seen))
    return f"| {' | '.join(re.sub(r'[|]', '/', cell) for cell in cells)} |"


def _quoted(text: str, most: int = 200) -> str:
    text = text.replace("`", "'")
    return f"`{text if len(text) <= most else text[: most - 1] + '…'}`" if text else ""


def _status(seen: Seen) -> str:
    match seen.case.ends:
        case Ends.SLOWED:
            until = re.sub(r"T(\d\d:\d\d):.*", r" \1Z", seen.until)
            return f'no problem, no alert: the backend is "Slowed down" until {until}'
        case Ends.REFUSED:
            return "no problem, no alert: the backend works"
    return f"{seen.status.what} {_quoted(seen.status.said)}"


def _life(seen: Seen) -> str:
    same = seen.tried.said and seen.tried.said in seen.status.said
    said = "" if same else _quoted(seen.tried.said)
    return " ".join(filter(None, (f"{seen.tried.what}.", said, seen.tried.meaning)))


def _doctor(seen: Seen) -> str:
    """What it says of the fault; not what it says of everybody."""
    named = seen.case.named if seen.case.doctor in ("same", "") else seen.case.doctor
    found = next((one for one in seen.doctor if re.search(named, one.text)), None)
    if found is None:
        return "only a message shows it"
    same = found.what in (seen.status.said, seen.tried.said) and found.what
    if found.what.startswith("nothing is wrong that can be seen") or "was asked to slow down" in found.what:
        return "only a message shows it; `backend_rests` repeats the words"
    return "the same words" if same else _quoted(found.what, 160)


def _fix(seen: Seen) -> str:
    """Without what follows from every fault of a kind."""
    fix = seen.status.fix or seen.tried.fix
    fix = re.sub(r" (To see it: gateway queue show|Then: gateway backend fix) \w+$", "", fix).rstrip(".")
    if not fix:
        return _GOES_ON
    capital = not re.match(r"\S*[.@]", fix)
    return f"{fix[:1].upper() if capital else fix[:1]}{fix[1:]}."


def rows_of(text: str, cases: Sequence[Case]) -> Iterator[tuple[Case, str]]:
    """The rows of a page that tell of these cases, "" for none."""
    for case in cases:
        section = text.partition(f"\n## {TITLES[case.provider][0]}\n")[2].partition("\n## ")[0]
        found = [line for line in section.splitlines() if line.startswith(f"| {case.cause} |")]
        yield case, found[0] if len(found) == 1 else ""
