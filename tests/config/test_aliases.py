"""Aliases: followed to the end when settings are read; what has no end is an error that says how to give it one."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.aliases import Aliases, Given, faults, split
from tests.config.kit import Files

GIVEN = {
    "root": ("admin", "bob"),
    "admin": ("Ann@Example.com", "ann@example.com"),
    "Fax": ("fax@gw.example",),
    "sales@example.com": ("sales@example.com", "log@example.net"),
    "info@example.com": ("root",),
    "news": ("news+list@example.net",),
}
NAMES = Given(GIVEN, "relay.example.com", "example.org", ("*.lan", "old.example"), "+-")
ANN_BOB = ("Ann@Example.com", "bob@example.org")


@pytest.mark.parametrize(
    ("address", "bare", "becomes"),
    [
        ("root@localhost", False, ANN_BOB),
        ("ROOT@Relay.Example.COM", False, ANN_BOB),
        ("root@web7.lan", False, ANN_BOB),
        ("root@a.b.lan", False, ANN_BOB),
        ("root@old.example", False, ANN_BOB),
        ("root@lan", False, ()),
        ("root@example.org", True, ANN_BOB),
        ("root@example.org", False, ()),  # a real mailbox there is nobody's alias
        ("fax@localhost", False, ("fax@gw.example",)),
        ("SALES@example.com", False, ("sales@example.com", "log@example.net")),
        ("info@example.com", False, ANN_BOB),
        ("bob@localhost", False, ()),
        ("root+cron@localhost", False, ("Ann+cron@Example.com", "bob+cron@example.org")),
        ("root-x+y@localhost", False, ("Ann-x+y@Example.com", "bob-x+y@example.org")),
        ("sales+1@example.com", False, ("sales+1@example.com", "log+1@example.net")),
        ("news+a@localhost", False, ("news+list+a@example.net",)),
        ("+root@localhost", False, ()),
        ('"root"@localhost', False, ANN_BOB),
        ("", False, ()),
    ],
)
def test_whom_an_address_stands_for(address: str, bare: bool, becomes: tuple[str, ...]) -> None:
    """A name is anybody's without a domain or with one of this machine; a whole address is only itself."""
    assert Aliases.of(NAMES).becomes(address, bare=bare) == becomes


def test_any_other_local_name() -> None:
    """ "*" takes who has no line of his own, and only those that are local."""
    aliases = Aliases.of(Given({"*": ("all@example.com",), "bob": ("bob@example.com",)}, "relay.lan"))
    assert aliases.becomes("cron@localhost") == ("all@example.com",)
    assert aliases.becomes("bob@relay.lan") == ("bob@example.com",)
    assert aliases.becomes("cron@example.com") == ()
    assert (aliases.knows("x"), Aliases.of(NAMES).knows("x"), Aliases.of(NAMES).knows("root+x")) == (True, False, True)


@pytest.mark.parametrize(
    ("local", "parts"),
    [
        ("a+b", ("a", "+b")), ("a-b+c", ("a", "-b+c")), ("+a", ("+a", "")), ("Postmaster+x", ("Postmaster", "+x")),
        ("postmaster", ("postmaster", "")), ("MAILER-DAEMON", ("MAILER-DAEMON", "")),
    ],
)  # fmt: skip
def test_delimiters(local: str, parts: tuple[str, str]) -> None:
    """As split_addr(3) of Postfix: names in which a hyphen is just a letter stay whole."""
    assert split(local, "+-") == parts


@pytest.mark.parametrize(
    ("given", "default", "found"),
    [
        ({"a": ("b",), "b": ("a",)}, "", {"a": "goes round in a circle (a -> b -> a)", "b": "goes round in a circle"}),
        ({"a": ("a@localhost", "x@y.z")}, "", {"a": "goes round in a circle (a -> a)"}),
        ({"a": ("a",)}, "example.com", {"a": "goes round in a circle"}),
        ({"a": ("bob",)}, "", {"a": '"bob" has no domain; write bob@example.com, or set default_domain'}),
        ({"a": ("bob",)}, "example.com", {}),
        ({"A": ("x@y.z",), "a": ("x@y.z",)}, "", {"a": "is the same name as A"}),
        ({"a@b.c": ("d@e.f",), "d@e.f": ("a@b.c",)}, "", {"a@b.c": "goes round", "d@e.f": "goes round"}),
        ({"a@b.c": ("a@B.C",)}, "", {}),
        ({"*": ("root",), "root": ("x@y.z",)}, "", {}),
        ({"*": ("root",)}, "", {"*": "goes round in a circle (* -> *)"}),
    ],
)
def test_what_has_no_end(given: dict[str, tuple[str, ...]], default: str, found: dict[str, str]) -> None:
    """Each is named with the way it goes."""
    said = dict(faults(Given(given, "relay.lan", default)))
    assert said.keys() == found.keys()
    assert all(said[key].startswith(words) for key, words in found.items()), said


def test_a_long_chain_is_no_loop() -> None:
    """But one that nobody can follow is an error, and no crash."""
    chain = {f"n{n}": (f"n{n + 1}",) for n in range(40)} | {"n40": ("x@y.z",)}
    assert Aliases.of(Given(chain, "relay.lan")).becomes("n0@localhost") == ("x@y.z",)
    long = {f"n{n}": (f"n{n + 1}",) for n in range(200)} | {"n200": ("x@y.z",)}
    assert "leads through more than 50 other names" in dict(faults(Given(long, "relay.lan")))["n0"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('aliases: {root: "|/bin/cat"}', "handed to no command, file or list"),
        ('aliases: {root: ":include:/etc/list"}', "handed to no command, file or list"),
        ('aliases: {root: "*"}', "write whose mailbox"),
        ('aliases: {"*@x.org": a@x.org}', '"*" alone stands for any other local name'),
        ('aliases: {"ro ot": a@x.org}', "write a name such as root, or an address"),
        ("aliases: {root: é@x.org}", "write one in ASCII"),
        ("aliases: {root: []}", "needs at least 1 entry"),
        ("aliases: {root: bob}", "has no domain; write bob@example.com"),
        ("aliases: root@x.org", 'must hold indented "key: value" lines'),
        ("local_domains: [a b]", "is not a host name"),
        ("recipient_delimiter: ab", "does not have the right form"),
        ("clients: {c: {networks: [127.0.0.1], redirect_to: x@y.org, copy_to: z@y.org}}", "nobody gets a copy"),
        ("clients: {c: {networks: [127.0.0.1], copy_to: [é@y.org]}}", "write one in ASCII"),
    ],
)
def test_errors(files: Files, text: str, expected: str) -> None:
    """One line for each, with the place and what to write instead."""
    (line,) = files.errors(text)
    assert expected in line
    assert line.startswith("config.yaml:1:")


def test_spellings(files: Files) -> None:
    """One address, several with commas as in /etc/aliases, or a list; domains in A-labels."""
    text = 'aliases: {a: x@y.org, b: "x@y.org, z", c: [x@bücher.example]}\ndefault_domain: example.com'
    settings = files.load(text).settings
    targets: dict[str, Any] = {"a": ("x@y.org",), "b": ("x@y.org", "z"), "c": ("x@xn--bcher-kva.example",)}
    assert settings.aliases == targets
    assert files.load("routes: [{backend: box, copy_to: a@b.org}]").settings.routes[0].copy_to == ("a@b.org",)


def test_warnings(files: Files) -> None:
    loaded = files.load('recipient_delimiter: "+"\nlocal_domains: [lan]')
    assert [line for line in loaded.warnings if "has no meaning without aliases" in line]
