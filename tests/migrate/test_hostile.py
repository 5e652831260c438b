"""Files that are no settings, or half of them, end in a sentence; and nothing is written over."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.migrate.kit import put, run
from tests.migrate.test_others import DEBIAN, GRAPH, METABASE, PROXY
from tests.migrate.test_postfix import MAIN, MASTER, SASL

SEEDS = {
    "postfix": MAIN, "exim": DEBIAN, "smtp2graph": GRAPH, "email-oauth2-proxy": PROXY, "iis": METABASE,
}  # fmt: skip
BITS = [
    "\n",
    "=",
    ":",
    "[",
    "]",
    "{",
    "$",
    "${",
    '"',
    "'",
    "#",
    " ",
    "\t",
    "!",
    "<",
    "%",
    "/",
    "0",
    "é",
    "\x1b",
    "\u202e",
    "\ud7ff",
]


def damaged(text: str, rng: random.Random) -> str:
    """Characters lost, doubled, changed and put in, lines swapped."""
    letters = list(text)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(letters))
        letters[at : at + rng.randint(0, 6)] = rng.choice([[], rng.choice(BITS), letters[at : at + 2] * 3])
    lines = "".join(letters).split("\n")
    rng.shuffle(lines) if rng.random() < 0.1 else None
    return "\n".join(lines)


def survive(kind: str, folder: Path, rounds: int) -> None:
    for seed in range(rounds):
        text = damaged(SEEDS[kind], random.Random(seed))
        put(folder, main__cf=text, master__cf=damaged(MASTER, random.Random(seed)), sasl_passwd=SASL)
        done = run(kind, folder / "main.cf")
        assert done.exit_code in (0, 1), (seed, text)
        assert done.exception is None or isinstance(done.exception, SystemExit), (seed, text, done.exception)
        assert "Traceback" not in done.output
        assert "report it as a bug" not in done.stderr, (seed, text)


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    survive(kind, tmp_path, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SEEDS)
def test_many_damaged_files(kind: str, tmp_path: Path) -> None:
    survive(kind, tmp_path, 300)


@pytest.mark.parametrize("kind", SEEDS)
def test_no_file_at_all(kind: str, tmp_path: Path) -> None:
    """A folder, nothing, and what is not there."""
    for path in (tmp_path, tmp_path / "none"):
        done = run(kind, path)
        assert done.exit_code == 1
        assert str(tmp_path) in done.stderr


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """Neither settings nor secrets, unless --force says so; the second time both are new."""
    source = put(tmp_path / "a", main__cf=MAIN, sasl_passwd=SASL)
    target = tmp_path / "config.yaml"
    (tmp_path / "smart.pw").write_text("mine")
    done = run("postfix", source, "--write", str(target))
    assert done.exit_code == 1
    assert "smart.pw is there already" in done.stderr
    assert not target.exists()
    assert run("postfix", source, "--write", str(target), "--force").exit_code == 0
    assert (tmp_path / "smart.pw").read_text() != "mine"
    assert run("postfix", source, "--write", str(target)).exit_code == 1
    assert {file.stat().st_mode & 0o777 for file in (target, tmp_path / "smart.pw")} == {0o600}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = run("postfix", put(tmp_path, main__cf=MAIN, sasl_passwd=SASL), "--write", str(tmp_path / "no" / "c.yaml"))
    assert done.exit_code == 1
    assert "No such file" in done.stderr
