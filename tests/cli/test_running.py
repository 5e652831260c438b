"""What the running service goes by: its settings and its clients, asked of it and not of the file."""

from __future__ import annotations

from tests.cli.kit import Commands
from tests.flow.kit import Gateway


def test_what_the_service_goes_by(service: Gateway, run: Commands) -> None:
    """Settings in force with their places; after a reload that is refused the old ones, and every error."""
    text = run.ok("config", "running")
    assert text.startswith("# read at ")
    assert 'backends.spare.type: "capture"  # config.yaml:' in text
    assert "more are as by default: --all" in text
    assert run.ok("config", "running", "jitter").splitlines()[1:] == ["retry.jitter: 0.2  # default"]
    with run.with_more("retry: {jitter: 9}"):
        assert run("reload").exit_code == 78
        failed = run.json("config", "running")["failed"]
        assert "retry.jitter: must be 0.5 or less" in "".join(failed["errors"])
        assert "was refused, and these stayed:\n#   " in run.ok("config", "running")
    assert run.json("config", "running")["failed"] is None


def test_clients(service: Gateway, run: Commands) -> None:
    """One line each, and all of one."""
    assert [one["name"] for one in run.json("client", "list")] == ["localhost", "tokens"]
    assert "127.0.0.0/8, ::1" in run.ok("client", "list").splitlines()[1]
    lines = dict(line.split(":", 1) for line in run.ok("client", "show", "tokens").splitlines())
    assert lines["known by"].strip() == "any token"
    assert (run("client", "show", "none").exit_code, run("client", "show", "").exit_code) == (1, 2)
