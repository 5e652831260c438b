"""What goes wrong below the door is said to everyone: each fault and kind has its reply, its status and its reason."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.events import REASONS
from gateway.http.problem import STATUS
from gateway.model import (
    BadAddress,
    BadMessage,
    CannotCarry,
    CannotTell,
    Fault,
    HookRefused,
    Refusal,
    SpoolFull,
    SpoolTrouble,
    SpoolUnavailable,
)
from gateway.refusals import FAULTS
from gateway.smtp.replies import refusal_of

NOT_AT_THE_DOOR = {HookRefused, CannotTell}  # a webhook's own, and a login's, where auth answers
PACKAGES = [module for module in pkgutil.walk_packages(gateway.__path__, "gateway.") if "__main__" not in module.name]


def leaves(kind: type[Fault] = Fault) -> set[type[Fault]]:
    """Those that are raised: the others only gather them. Wherever in the gateway they are defined."""
    for module in PACKAGES:
        if "migrations" not in module.name:
            importlib.import_module(module.name)
    below = kind.__subclasses__()
    return {leaf for one in below for leaf in leaves(one)} if below else {kind}


def kinds(faults: set[type[Fault]]) -> set[tuple[type[Fault], str]]:
    return {(fault, kind) for fault in faults for kind in fault.KINDS}


def test_every_fault_has_a_status() -> None:
    """All of them, for all of them can be met behind the HTTP interface; and none that there is not."""
    assert leaves() >= {SpoolFull, SpoolUnavailable, BadAddress, BadMessage, CannotCarry, HookRefused, CannotTell}
    assert STATUS.keys() == kinds(leaves())


def test_every_fault_that_reaches_the_door_has_a_reply() -> None:
    """A fault without one would be 451 "on our side", and the client would try again for days."""
    assert FAULTS.keys() == kinds(leaves() - NOT_AT_THE_DOOR)


REPLIES = [
    (SpoolFull("no room"), "452 4.3.1 no room", "spool_full", 503),
    (SpoolUnavailable("cannot be written"), "451 4.3.0 cannot be written", "spool_error", 503),
    (BadMessage("too long"), "554 5.6.0 too long", "bad_message", 422),
    (BadAddress("malformed", "syntax"), "501 5.1.3 malformed", "bad_address", 422),
    (BadAddress("no domain", "domain"), "501 5.1.2 no domain", "bad_address", 422),
    (BadAddress("SMTPUTF8", "utf8"), "553 5.6.7 SMTPUTF8", "utf8_address", 422),
    (CannotCarry("too_big", "5.3.4", "big"), "552 5.3.4 big", "too_big", 422),
    (CannotCarry("no_route", "5.7.1", "none"), "550 5.7.1 none", "no_route", 422),
    (CannotCarry("not_configured", "4.3.5", "gone"), "451 4.3.5 gone", "no_route", 422),
    (CannotCarry("token", "5.7.1", "token"), "550 5.7.1 token", "cannot_carry", 422),
    (CannotCarry("null_sender", "5.7.1", "null"), "550 5.7.1 null", "cannot_carry", 422),
    (CannotCarry("utf8", "5.6.7", "utf8"), "553 5.6.7 utf8", "cannot_carry", 422),
    (CannotCarry("sender", "5.7.1", "sender"), "553 5.7.1 sender", "sender_denied", 422),
    (CannotCarry("feature", "5.6.3", "signed"), "554 5.6.3 signed", "cannot_carry", 422),
]


@pytest.mark.parametrize(("fault", "reply", "reason", "status"), REPLIES, ids=str)
def test_replies(fault: Fault, reply: str, reason: str, status: int) -> None:
    """In the fault's own words, counted under a reason that the metrics know."""
    refusal = refusal_of(fault)
    assert isinstance(refusal, Refusal)
    assert (str(refusal), refusal.text, refusal.reason) == (reply, fault.text, reason)
    assert reason in REASONS
    assert STATUS[type(fault), fault.kind] == status


def test_the_table_above_is_whole() -> None:
    assert {(type(fault), fault.kind) for fault, *_ in REPLIES} == set(FAULTS)


def test_ours_is_temporary_and_theirs_is_not() -> None:
    """Trouble of the spool, and of our settings, is tried again; the code and the enhanced code say the same."""
    for (fault, kind), (code, enhanced, _) in FAULTS.items():
        ours = issubclass(fault, SpoolTrouble) or kind == "not_configured"
        assert (code // 100, enhanced[0]) == ((4, "4") if ours else (5, "5")), (fault, kind)
    for (fault, kind), status in STATUS.items():
        ours = issubclass(fault, SpoolTrouble | CannotTell)
        assert status // 100 == (5 if ours else 4), (fault, kind)


def made() -> Iterator[tuple[str, str, str]]:
    """Of every place that makes a fault: where, its class, its kind ("?" where that is not written there)."""
    names = {fault.__name__ for fault in leaves()} | {"Fault", "SpoolTrouble"}
    for path in sorted(Path(gateway.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                place = 0 if node.func.id == "CannotCarry" else 1
                kind = node.args[place] if len(node.args) > place else ast.Constant("")
                given = kind.value if isinstance(kind, ast.Constant) else "?"
                yield f"{path.name}:{node.lineno}", node.func.id, str(given)


def test_faults_are_made_with_a_kind_that_there_is() -> None:
    """Else looking it up in a table would be a bug in the middle of an answer."""
    known = {(fault.__name__, kind) for fault, kind in kinds(leaves())}
    found = list(made())
    assert {name for _, name, _ in found} == {fault.__name__ for fault in leaves()}
    assert [one for one in found if one[2] != "?" and one[1:] not in known] == []
    written = {(name, kind) for _, name, kind in found}
    assert {(name, kind) for name, kind in known if name == "CannotCarry"} <= written, "a kind that nobody uses"
