"""Settings that must not differ between instances: which count, which do not, and who differs."""

from __future__ import annotations

import json

import pytest

from gateway.config.alike import differences, digests
from tests.config.kit import SECRET, Files

KEY = bytes(32)
BASE = f"""
hostname: a.example.com
clients:
  app: {{networks: [192.0.2.0/24], rate: 10/minute}}
backends:
  main: {{type: smtp, host: mx.example.com, password: {SECRET}}}
  api: {{type: api, api_key: {SECRET}}}
routes:
  - {{backend: main, senders: ["*@a.example.com"]}}
  - {{backend: api}}
retry: {{lifetime: 3d}}
"""
# What is changed in the file, and which parts differ then.
CHANGES = [
    ("a.example.com\nclients", "b.example.com\nclients", []),
    ("retry:", "log: {level: debug}\nlimits: {connections: 9}\nhttp: {bind: '127.0.0.1:9'}\nretry:", []),
    ("host: mx", "ca_file: authorities.pem, host: mx", []),
    ("host: mx.example.com", "port: 25, host: mx.example.com", []),
    ("retry: {lifetime: 3d}", "retry: {lifetime: 72h, jitter: 0.2}", []),
    ("host: mx.example.com", "host: mx2.example.com", ["backends.main"]),
    (f"password: {SECRET}", "password: another", ["backends.main"]),
    (f"password: {SECRET}", "max_size: 1MB", ["backends.main"]),
    (f"api_key: {SECRET}", f"api_key: {SECRET}, region: eu", ["backends.api"]),
    (f"api_key: {SECRET}", f"api_key: {SECRET}, rate: 1/second", ["backends.api"]),
    ("192.0.2.0/24", "192.0.2.0/25", ["clients"]),
    ('a.example.com"]', 'b.example.com"]', ["routes"]),
    ("lifetime: 3d", "lifetime: 4d", ["retry"]),
    ("retry:", "bounces: {mode: 'off'}\nretry:", ["bounces"]),
    ("retry:", "retention: {sent_body: 1d}\nretry:", ["retention"]),
    ("retry:", "auth: {keys: {app: {algorithm: HS256, secret: 0123456789abcdef0123456789abcdef}}}\nretry:", ["auth"]),
]


@pytest.mark.parametrize(("old", "new", "parts"), CHANGES)
def test_what_differs(files: Files, old: str, new: str, parts: list[str]) -> None:
    """What is of a machine does not count, nor what is written down though it is so by default."""
    assert old in BASE
    files.write("authorities.pem", "")
    rows = {
        name: digests(files.load(text).settings, KEY) for name, text in (("a", BASE), ("b", BASE.replace(old, new)))
    }
    assert [one.part for one in differences(rows)] == parts


def test_a_secret_counts_wherever_it_was_read_from(files: Files) -> None:
    files.write("password", SECRET)
    inside, beside = BASE, BASE.replace(f"password: {SECRET}", "password_file: password")
    assert digests(files.load(inside).settings, KEY) == digests(files.load(beside).settings, KEY)


def test_nobody_without_the_key_can_tell(files: Files) -> None:
    """No part is the same under another key, so that nothing can be tried out by what lies in the database."""
    loaded = files.load(BASE).settings
    one, other = (json.loads(digests(loaded, key)) for key in (KEY, b"x" * 32))
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())
    assert SECRET not in digests(loaded, KEY)


def test_who_differs() -> None:
    """The most that are alike first; who lacks a backend differs in it, and who has told nothing yet in nothing."""
    rows = {
        "c": '{"routes":"1","backends.x":"1"}',
        "a": '{"routes":"1","backends.x":"1"}',
        "b": '{"routes":"2"}',
        "new": "",
        "odd": "[1]",
    }
    assert [str(one) for one in differences(rows)] == ["backends.x: a, c / b", "routes: a, c / b"]
    assert differences({"a": rows["a"], "new": ""}) == differences({}) == []
