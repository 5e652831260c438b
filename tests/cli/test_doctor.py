"""``gateway doctor`` as an operator types it: with a service, without one, with settings that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.doctor import AREAS, Finding
from tests.cli.kit import Commands


def test_it_asks_the_service(run: Commands) -> None:
    """One backend is not there: that is wrong, exit code 1; what to do and to paste stands below it."""
    done = run("doctor", "--area", "backends", "--area", "settings")
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("1 thing is wrong")
    wrong = done.stdout.partition("\nWRONG\n")[2].partition("\n\n")[0]
    assert "backends.away: cannot connect to 127.0.0.1:" in wrong
    assert "\n      gateway backend check away\n      gateway backend resume away\n  (backend_fails)" in wrong
    assert "All right: settings (1), backends (3)" in done.stdout
    assert "ALL RIGHT" in run("doctor", "--area", "settings", "--all").stdout


def test_json_is_that_of_the_api(run: Commands) -> None:
    """The same fields by the same names, and the report is the one that the service keeps."""
    found = run.json("doctor", "--area", "settings")
    assert set(found) == {
        "at", "by", "seconds", "service", "areas", "findings", "verdict", "worst", "counts", "all_right",
    }  # fmt: skip
    assert (found["service"], found["areas"]) == (True, ["settings"])
    assert all(set(one) == set(Finding.__slots__) for one in found["findings"])


def test_nothing_wrong_is_exit_code_0(run: Commands) -> None:
    """For monitoring."""
    assert run("doctor", "--area", "settings").exit_code == 0


@pytest.fixture
def alone(tmp_path: Path) -> Commands:
    """Settings that no service uses."""
    file = tmp_path / "config.yaml"
    file.write_text(f"state_dir: {tmp_path}/state\nlisteners: {{a: {{bind: '127.0.0.1:0'}}}}\nhttp: {{bind: ''}}\n")
    return Commands(file)


def test_without_a_service(alone: Commands) -> None:
    """It looks itself at what needs none, says what does, and makes nothing."""
    done = alone("doctor", "--json")
    found = json.loads(done.stdout)
    assert (found["service"], found["areas"]) == (False, list(AREAS))
    assert {one["area"] for one in found["findings"] if one["key"] == "needs_service"} == {
        "listeners",
        "machine",
        "spool",
        "relay",
    }
    assert done.exit_code == (1 if found["worst"] == "bad" else 0)
    assert not (alone.file.parent / "state").exists()
    assert "No service is running" in alone("doctor", "--area", "settings").stdout


def test_settings_that_cannot_be_used(alone: Commands) -> None:
    """Every error is a finding, with 78 as from check-config."""
    alone.file.write_text('limits: {idle: never}\nhostnam: "x\\x1b[31m"\n')
    done = alone("doctor")
    assert done.exit_code == 78
    text = " ".join(done.stdout.split())
    assert ": limits.idle: " in text
    assert 'unknown key, did you mean "hostname"?' in text
    assert "\x1b" not in done.stdout


def test_an_area_that_is_none(alone: Commands) -> None:
    """Wrong use, with those that there are."""
    done = alone("doctor", "--area", "weather")
    assert (done.exit_code, "'settings'" in done.output) == (2, True)
