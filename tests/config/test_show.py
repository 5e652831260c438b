"""Settings seen from outside: shown with origins, described as JSON schema, compared at a reload."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config.durations import format_duration, parse_duration
from gateway.config.loading import load
from gateway.config.show import diff, restart_keys, schema, show
from gateway.config.values import format_rate, format_size, parse_rate, parse_size
from tests.config.kit import TYPES, Files

FULL = """\
hostname: relay.example.com
listeners:
  local: {bind: "127.0.0.1:8025", auth: off}
clients:
  printers: {networks: [192.0.2.0/24], rate: 60/minute, max_size: 20MB, rewrite_sender: {to: a@example.com}}
backends:
  smart: {type: smtp, host: smtp.example.net, timeout: 90s}
routes:
  - {clients: [printers], senders: [""], backend: smart}
bounces: {from: postmaster@example.com}
limits: {spool_free: 500MB}
"""


def test_show_has_every_value_with_its_origin(files: Files) -> None:
    """Values in the notation of the file, comments say where from."""
    lines = show(files.load(FULL, {"GATEWAY_LOG__LEVEL": "debug"}, {"limits.idle": "7m"})).splitlines()
    assert lines[0] == f"# {files.directory}/config.yaml"
    expected = [
        'hostname: "relay.example.com"  # config.yaml:1',
        '    auth: "off"  # config.yaml:3',
        '    min_tls: "1.2"  # default',
        '    rate: "60/minute"  # config.yaml:5',
        '    max_size: "20MB"  # config.yaml:5',
        '      to: "a@example.com"  # config.yaml:5',
        '    timeout: "90s"  # config.yaml:7',
        '    backend: ["smart"]  # config.yaml:9',
        'from: "postmaster@example.com"  # config.yaml:10',
        '  spool_free: "500MB"  # config.yaml:11',
        '  idle: "7m"  # command line',
        '  level: "debug"  # environment GATEWAY_LOG__LEVEL',
    ]
    assert [line for line in expected if line not in lines and f"  {line}" not in lines] == []


@pytest.mark.parametrize("text", ["", FULL], ids=["default", "full"])
def test_what_is_shown_can_be_loaded(files: Files, text: str) -> None:
    """What show prints means the same settings."""
    loaded = files.load(text)
    again = files.write("shown.yaml", show(loaded))
    assert load(again, files.environ, TYPES).settings == loaded.settings


@pytest.mark.parametrize("text", ["0", "45s", "90s", "5m", "36h", "5d"])
def test_durations_are_shown_as_written(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


def test_durations_add_up() -> None:
    assert parse_duration("1h30m") == parse_duration("90M")


@pytest.mark.parametrize("text", ["0", "999", "1KB", "25MB", "2GB"])
def test_sizes_are_shown_as_written(text: str) -> None:
    assert format_size(parse_size(text)) == text


@pytest.mark.parametrize("text", ["1/second", "60/minute", "5/hour", "1000/day"])
def test_rates_are_shown_as_written(text: str) -> None:
    assert format_rate(parse_rate(text)) == text


def test_diff_names_keys_and_restart_keys_picks_from_them(files: Files) -> None:
    """Changed, added and removed keys, by name only."""
    old = files.load(FULL).settings
    new = files.load(
        FULL.replace("8025", "9025").replace("auth: off", "auth: optional") + "http: {bind: '127.0.0.1:9026'}\n"
        "retry: {jitter: 0.1}\n",
        {"GATEWAY_CLIENTS__APP__TOKEN": "app", "GATEWAY_BACKENDS__SMART__HOST": "other.example.net"},
    ).settings
    changed = diff(old, new)
    keys = ("listeners.local.bind", "listeners.local.auth", "backends.smart.host", "http.bind", "retry.jitter")
    assert changed == dict.fromkeys(keys, "changed") | {"clients.app": "added"}
    assert restart_keys(changed) == []
    assert restart_keys(diff(old, files.load(f"state_dir: /x\n{FULL}").settings)) == ["state_dir"]
    assert restart_keys(diff(old, files.load(f"event_loop: uvloop\n{FULL}").settings)) == ["event_loop"]
    assert diff(old, old) == {}
    assert diff(new, old)["clients.app"] == "removed"


def test_diff_names_whole_things_once(files: Files) -> None:
    """A renamed client is one gone and one new, not all its settings."""
    old = files.load(FULL).settings
    new = files.load(
        FULL.replace("printers", "printrs").replace("  smart:", "  b: {type: capture}\n  smart:")
        + "auth: {keys: {app: {algorithm: EdDSA, private_key_file: config.yaml}}}\n",
        {"GATEWAY_LISTENERS__NEW__BIND": "127.0.0.1:25"},
    ).settings
    changed = diff(old, new)
    assert changed == {
        "listeners.new": "added",
        "auth.keys.app": "added",
        "clients.printers": "removed",
        "clients.printrs": "added",
        "backends.b": "added",
        "routes.0.clients": "changed",
    }


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """A small judge for the parts of JSON schema that are used here; there is no jsonschema among our packages."""
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root)
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}
    wanted = schema.get("type", [])
    names = [wanted] if isinstance(wanted, str) else wanted
    if names and not any(value is None if name == "null" else isinstance(value, kinds[name]) for name in names):
        return False
    if isinstance(value, dict):
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        other = next(iter(patterns.values()), schema.get("additionalProperties", True))
        if any(key not in value for key in schema.get("required", ())):
            return False
        for key, part in value.items():
            inner = known.get(key, other)
            if inner is False or (isinstance(inner, dict) and not accepts(inner, part, root)):
                return False
    if isinstance(value, list) and not all(accepts(schema.get("items", {}), item, root) for item in value):
        return False
    return (
        all(accepts(part, value, root) for part in schema.get("allOf", ()))
        and ("anyOf" not in schema or any(accepts(part, value, root) for part in schema["anyOf"]))
        and ("oneOf" not in schema or sum(accepts(part, value, root) for part in schema["oneOf"]) == 1)
        and ("not" not in schema or not accepts(schema["not"], value, root))
        and ("const" not in schema or value == schema["const"])
        and ("enum" not in schema or value in schema["enum"])
    )


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (FULL.replace("auth: off", 'auth: "off"'), True),
        ("{}", True),
        ("backends: {b: {type: api, api_key: x}}", True),
        ("backends: {b: {type: api, api_key_file: x}}", True),
        ("backends: {b: {type: api}}", False),
        ("backends: {b: {type: api, api_key: x, api_key_file: x}}", False),
        ("backends: {b: {type: smtp, host: x, api_key: x}}", False),
        ("backends: {b: {host: x}}", False),
        ("backends: {b: {type: graph}}", False),
        ("auth: {keys: {k: {algorithm: HS256, secret_file: x}}}", True),
        ("auth: {keys: {k: {algorithm: HS256, secret_file: x, secret: x}}}", False),
        ("routes: [{backend: a}, {backend: [a, b]}]", True),
        ("routes: [{backend: {a: b}}]", False),
        ("limits: {idle: 0, max_size: 35MB}", True),
        ("limits: {idel: 5m}", False),
        ("log: {level: loud}", False),
        ("bounces: {from: a@example.com}", True),
        ("bounces: {sender: a@example.com}", False),
    ],
)
def test_schema(text: str, good: bool) -> None:
    """An editor accepts what loading accepts, and underlines what it refuses."""
    whole = schema(TYPES)
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert accepts(whole, yaml.safe_load(text), whole) is good
