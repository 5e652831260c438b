# ruff: noqa: E501 - an error is one line
"""Loading: which file, which value wins, where it came from, and what stands in for what is not given."""

from __future__ import annotations

import platform
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, locate
from gateway.config.checks import reach
from gateway.config.loading import load
from gateway.config.locate import find_file
from gateway.config.models import Settings
from gateway.quota import Rate
from tests.config.kit import SECRET, TYPES, Files


def test_without_any_configuration_everything_has_a_value(files: Files) -> None:
    """One listener and one HTTP port on loopback, two clients, an own key, mail only captured, state in the home."""
    loaded = load(None, files.environ, TYPES)
    settings, state = loaded.settings, files.directory / "home/.local/state/gateway"
    assert loaded.path is None
    assert loaded.warnings == ()
    assert settings.state_dir == state
    assert {name: listener.bind for name, listener in settings.listeners.items()} == {"local": "127.0.0.1:8025"}
    assert {name: list(map(str, client.networks)) for name, client in settings.clients.items()} == {
        "localhost": ["127.0.0.0/8", "::1/128"],
        "tokens": [],
    }
    assert settings.clients["tokens"].token == "*"
    assert settings.auth.keys["own"].private_key_file == state / "token.key"
    assert {name: backend.type for name, backend in settings.backends.items()} == {"box": "capture"}
    assert [route.backend for route in settings.routes] == [("box",)]
    assert (settings.http.bind, settings.http.socket) == ("127.0.0.1:8026", state / "admin.sock")
    assert set(loaded.origins.values()) == {"default"}


def test_an_empty_file_is_the_default_with_a_warning(files: Files) -> None:
    """A file that is only comments means the defaults, but mail that goes nowhere, and what is empty, is said aloud."""
    loaded = files.load("# nothing yet\nlisteners:\nclients:\nbackends:\nauth:\n  keys:\nroutes:\nretry:\n")
    assert loaded.settings == load(None, files.environ, TYPES).settings
    assert loaded.warnings == (
        f"{files.directory}/config.yaml: no backends are given, so mail is only written to files and delivered to nobody",
        *(
            f"{files.directory}/config.yaml:{line}:1: {key}: is empty, so its default is in force; "
            "take the line out, or indent what belongs to it further right"
            for line, key in ((2, "listeners"), (3, "clients"), (4, "backends"), (7, "routes"), (8, "retry"))
        ),
    )


REACH = [
    ("", "nobody but this machine may send: it listens at 127.0.0.1:8025 only; for others write for example listeners: "),
    ("listeners: {a: {bind: '0.0.0.0:25'}}", ""),  # whoever has a token
    ("listeners: {a: {bind: '0.0.0.0:25'}}\nclients: {a: {networks: ['::1', 127.0.0.0/8]}}", "nobody but this machine may "
     "send: no client has a network of others; write for example clients: "),
    ("listeners: {a: {bind: '0.0.0.0:25'}}\nclients: {a: {networks: ['::1', 192.0.2.1]}}", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REACH)
def test_who_may_send(files: Files, text: str, said: str) -> None:
    """A note, for it may be meant so; what helps stands there to paste."""
    found = reach(files.load(text).settings)
    assert found.startswith(said) if said else found == ""


DOUBTS = [
    ("clients: {}", "clients: nobody may send, for no client is listed"),
    (
        "clients: {a: {networks: [192.0.2.1]}}",
        "clients.a.networks: nobody there gets here: every listener binds this machine only",
    ),
]


@pytest.mark.parametrize(("text", "said"), DOUBTS)
def test_clients_that_come_to_nothing(files: Files, text: str, said: str) -> None:
    assert said in [
        line.split(": ", 1)[1] for line in files.load(f"backends: {{box: {{type: capture}}}}\n{text}").warnings
    ]


def test_the_only_backend_gets_everything(files: Files) -> None:
    """Routes may be left out where there is nothing to choose."""
    loaded = files.load("backends: {out: {type: smtp, host: x}}")
    assert [(route.backend, route.recipients) for route in loaded.settings.routes] == [(("out",), ())]
    assert loaded.warnings == ()


def test_own_key_stays_beside_others_unless_defined(files: Files) -> None:
    """`token mint` works without asking, and another key file may be named."""
    files.write("mine.pem", "key")
    keys = files.load(
        "auth: {keys: {app: {algorithm: HS256, secret: 32-bytes-of-secret-or-some-more-}}}"
    ).settings.auth.keys
    assert list(keys) == ["app", "own"]
    text = "auth: {keys: {own: {algorithm: EdDSA, private_key_file: mine.pem}}}"
    assert files.load(text).settings.auth.keys["own"].private_key_file == files.directory / "mine.pem"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STATE_DIRECTORY": "/a:/b", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/a"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/gateway"),
        ({"HOME": "/h"}, "/h/.local/state/gateway"),
        ({"STATE_DIRECTORY": "", "XDG_STATE_HOME": "x", "HOME": ""}, "/var/lib/gateway"),
        ({}, "/var/lib/gateway"),
    ],
)
def test_state_directory(environ: dict[str, str], expected: str, files: Files) -> None:
    """systemd's directory, else the user's state directory, else the system's."""
    assert load(None, environ, TYPES).settings.state_dir == Path(expected)


@pytest.mark.parametrize(
    ("node", "expected"), [("mail", "mail"), ("a.b-c", "a.b-c"), ("", "localhost"), ("a_b", "localhost")]
)
def test_default_hostname(node: str, expected: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own name where it can stand in EHLO; the DNS is not asked."""
    monkeypatch.setattr(platform, "node", lambda: node)
    assert load(None, files.environ, TYPES).settings.hostname == expected


def test_which_file(files: Files) -> None:
    """--config, else $GATEWAY_CONFIG, else the system's file if it is there, else none."""
    assert find_file(None, {}) is None
    assert find_file(None, {"GATEWAY_CONFIG": ""}) is None
    system = files.write("etc/config.yaml", "hostname: system.example")
    assert find_file(None, {}) == system == locate.SYSTEM_FILE
    assert find_file(None, {"GATEWAY_CONFIG": "/e.yaml"}) == Path("/e.yaml")
    assert find_file(Path("c.yaml"), {"GATEWAY_CONFIG": "/e.yaml"}) == Path("c.yaml")
    assert load(None, files.environ, TYPES).settings.hostname == "system.example"


@pytest.mark.parametrize("environ", [{}, {"GATEWAY_CONFIG": "none.yaml"}])
def test_a_named_file_that_is_missing(environ: dict[str, str]) -> None:
    """Asked-for configuration is never replaced by the default in silence."""
    with pytest.raises(ConfigError, match=r"^none.yaml: cannot be read: No such file or directory$"):
        load(None if environ else Path("none.yaml"), environ, TYPES)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hostname: caf\xe9.example", "config.yaml:1:14: not UTF-8 text, save the file as UTF-8"),
        (b"log:\n  level: inf\xff", "config.yaml:2:13: not UTF-8 text, save the file as UTF-8"),
        (b"#" * 1_000_001, "config.yaml: larger than 1 MB, this cannot be a configuration"),
        (b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 10)) for n in b"bcdef"
        ), "config.yaml: more than 100000 values"),
    ],
    ids=["latin1", "latin1 in line 2", "too large", "aliases that multiply"],
)  # fmt: skip
def test_a_file_that_cannot_be_taken(files: Files, content: bytes, expected: str) -> None:
    """Size, encoding and multiplying aliases are limited before anything is built."""
    path = files.write("config.yaml", content)
    with pytest.raises(ConfigError) as caught:
        load(path, files.environ, TYPES)
    assert [line.replace(f"{files.directory}/", "") for line in caught.value.lines] == [expected]


def test_a_byte_order_mark_does_no_harm(files: Files) -> None:
    """Windows editors write one."""
    path = files.write("config.yaml", "\ufeffhostname: a.example\r\nlog: {level: error}\r\n")
    assert load(path, files.environ, TYPES).settings.hostname == "a.example"


@pytest.mark.parametrize(
    ("yaml", "key", "expected"),
    [
        ("backends: {b: {type: smtp, host: no}}", "host", "no"),
        ("backends: {b: {type: smtp, host: 1_0}}", "host", "1_0"),
        ("backends: {b: {type: smtp, host: x, port: 0025}}", "port", 25),
        ('backends: {b: {type: smtp, host: x, port: "25"}}', "port", 25),
        ("backends: {b: {type: smtp, host: x, timeout: 90s}}", "timeout", timedelta(seconds=90)),
        ("backends: {b: {type: smtp, host: x, rate: 100 / hour}}", "rate", Rate(100, timedelta(hours=1))),
        ("backends: {b: {type: smtp, host: x, max_size: 1MiB}}", "max_size", 1048576),
        ("backends: {b: {type: smtp, host: x, max_size: 5000}}", "max_size", 5000),
    ],
)
def test_the_type_decides_what_text_means(files: Files, yaml: str, key: str, expected: Any) -> None:
    """YAML 1.1 reads no as false, 1_0 as 10 and 0025 as 21; here every value is what was written."""
    assert getattr(files.load(yaml).settings.backends["b"], key) == expected


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [("auth: off", "off"), ('auth: "off"', "off"), ("min_tls: 1.0", "optional")],
)
def test_off_needs_no_quotes(files: Files, yaml: str, expected: str) -> None:
    """The word off is a value of its own, and 1.0 is no number."""
    loaded = files.load(f"listeners: {{a: {{bind: '127.0.0.1:25', {yaml}}}}}")
    assert loaded.settings.listeners["a"].auth == expected


def test_anchors_and_merge_keys(files: Files) -> None:
    """Written once, used twice; what stands beside << wins over what comes through it."""
    loaded = files.load(
        """\
        clients:
          a: &a {networks: [192.0.2.1], senders: ["*@example.com"], max_recipients: 5}
          b: {<<: *a, networks: [192.0.2.2], max_recipients: 6}
        """
    )
    a, b = loaded.settings.clients["a"], loaded.settings.clients["b"]
    assert (b.senders, b.max_recipients, str(b.networks[0])) == (a.senders, 6, "192.0.2.2/32")
    assert loaded.origins["clients.b.max_recipients"] == "config.yaml:3"
    assert loaded.origins["clients.b.senders"] == "config.yaml:2"


def test_precedence_and_origins(files: Files) -> None:
    """Command line over environment over file over default, and each value says which."""
    loaded = files.load(
        "limits:\n  connections: 1\n  idle: 1m\n  max_size: 1MB\nbounces: {from: a@example.com}\n",
        {"GATEWAY_LIMITS__IDLE": "2m", "GATEWAY_LIMITS__MAX_SIZE": "2MB", "GATEWAY_BACKENDS__BOX__TYPE": "capture"},
        {"limits.max_size": "3MB"},
    )
    limits = loaded.settings.limits
    assert (limits.connections, limits.idle, limits.max_size) == (1, timedelta(minutes=2), 3_000_000)
    wanted = (
        "limits.connections",
        "limits.idle",
        "limits.max_size",
        "limits.memory",
        "bounces.from",
        "backends.box.type",
    )
    assert [loaded.origins[key] for key in wanted] == [
        "config.yaml:2",
        "environment GATEWAY_LIMITS__IDLE",
        "command line",
        "default",
        "config.yaml:5",
        "environment GATEWAY_BACKENDS__BOX__TYPE",
    ]


@pytest.mark.parametrize(
    ("variable", "text", "key", "expected"),
    [
        ("GATEWAY_HOSTNAME", "env.example", "hostname", "env.example"),
        ("GATEWAY_CLIENTS__A__SENDERS", '["*@a.example", b@c.example]', "clients.a.senders", ("*@a.example", "b@c.example")),
        ("GATEWAY_CLIENTS__A__OPEN_RELAY", "true", "clients.a.open_relay", True),
        ("GATEWAY_CLIENTS__A__OPEN_RELAY", "on", "clients.a.open_relay", True),
        ("GATEWAY_CLIENTS__A__MAX_RECIPIENTS", "", "clients.a.max_recipients", None),
        ("GATEWAY_CLIENTS__A__MAX_RECIPIENTS", "null", "clients.a.max_recipients", None),
        ("GATEWAY_CLIENTS__A", "{networks: [192.0.2.9], max_recipients: 3}", "clients.a.max_recipients", 3),
        ("GATEWAY_ROUTES", "[{backend: box}, {backend: [box, box]}]", "routes.1.backend", ("box", "box")),
        ("GATEWAY_HTTP__BIND", '""', "http.bind", ""),
        ("GATEWAY_BACKENDS__BOX", "{type: smtp, host: '#1[x'}", "backends.box.host", "#1[x"),
        ("GATEWAY_BACKENDS__BOX__DIRECTORY", "[unclosed", "backends.box.directory", Path("[unclosed")),
        ("GATEWAY_BACKENDS__BOX__DIRECTORY", "a: b #c", "backends.box.directory", Path("a: b #c")),
    ],
)  # fmt: skip
def test_environment(files: Files, variable: str, text: str, key: str, expected: Any) -> None:
    """Any key can be reached; lists and mappings in YAML flow style, all else is the text itself."""
    value: Any = files.load(
        "clients: {a: {networks: [192.0.2.1], max_recipients: 7}}\nbackends: {box: {type: capture}}", {variable: text}
    ).settings
    for part in key.split("."):
        value = value[int(part)] if part.isdigit() else value[part] if isinstance(value, dict) else getattr(value, part)
    assert value == expected


def test_a_shorter_variable_does_not_undo_a_longer_one(files: Files) -> None:
    """GATEWAY_LOG sets the whole section, GATEWAY_LOG__LEVEL then one part of it, in whatever order they are seen."""
    given = {"GATEWAY_LOG__LEVEL": "error", "GATEWAY_LOG": "{level: debug, format: json}"}
    for environ in (given, dict(reversed(given.items()))):
        log = files.load("log: {format: console}", environ).settings.log
        assert (log.format, log.level) == ("json", "error")


def test_a_secret_from_the_environment_replaces_the_file_of_the_configuration(files: Files) -> None:
    """api_key given from outside beats api_key_file in the file, and the other way round."""
    files.write("key", "from a file")
    text = "backends: {b: {type: api, %s}}"
    backend = files.load(text % "api_key_file: gone", {"GATEWAY_BACKENDS__B__API_KEY": "x"}).settings.backends["b"]
    assert backend.api_key.get_secret_value() == "x"
    backend = files.load(text % "api_key: old", {}, {"backends.b.api_key_file": "key"}).settings.backends["b"]
    assert backend.api_key.get_secret_value() == "from a file"


NOT_OPEN = [
    "{networks: [130.1.0.0/16, 130.2.0.0/16, 10.0.0.0/8, 172.16.0.0/12, 'fc00::/7', 'fe80::/10']}",
    "{networks: [9.0.0.0/13, 10.0.0.0/8, '2a00::/28']}",
    "{networks: [0.0.0.0/0, '::/0'], open_relay: true}",
    "{networks: [0.0.0.0/0], token: x}",
    "{networks: ['::ffff:10.0.0.0/104', '2002:8201::/32']}",
]


@pytest.mark.parametrize("client", NOT_OPEN)
def test_no_open_relay(files: Files, client: str) -> None:
    """An organisation's own networks, however large; and what asks for a login, or is meant to be open."""
    assert files.load(f"clients: {{a: {client}, b: {{networks: [130.3.0.0/16]}}}}").settings.clients["a"]


ENVIRONMENT_ERRORS = [
    ("GATEWAY_LISTENER__A__BIND", "x:1", 'listener: unknown key, did you mean "listeners"?'),
    ("GATEWAY_LIMITS__IDEL", "1m", 'limits.idel: unknown key, did you mean "idle"?'),
    ("GATEWAY_LIMITS__IDLE", "soon", 'limits.idle: "soon" is not a duration, write for example 30s, 5m, 4h or 5d'),
    ("GATEWAY_LIMITS__IDLE__X", "1", "limits.idle.x: limits.idle has no named parts, set the whole of it"),
    ("GATEWAY_ROUTES__0__BACKEND", "b", "routes.0.backend: routes has no named parts, set the whole of it"),
    ("GATEWAY_BACKENDS__BUX__HOST", "b", "backends.bux.type: is missing; allowed: api, capture, smtp"),
    ("GATEWAY_BACKENDS__BOX__TYPE", "", "backends.box.type: is missing; allowed: api, capture, smtp"),
    ("GATEWAY_CLIENTS__A__SENDERS", "[x, x@y]", 'clients.a.senders.0: "x" is not an address pattern, did you mean "*@x"?'),
    ("GATEWAY_RETRY", "{jitter: 0.1, jitter: 0.2}", "retry.jitter: given twice"),
    ("GATEWAY_RETRY", "{jitter: [", 'retry: must hold indented "key: value" lines'),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "text", "expected"), ENVIRONMENT_ERRORS)
def test_environment_errors_name_the_variable(files: Files, variable: str, text: str, expected: str) -> None:
    """The line begins with the variable, because that is where to look."""
    base = "limits: {idle: 1m}\nroutes: [{backend: box}]\nclients: {a: {token: x, senders: ['*']}}\nbackends: {box: {type: capture}}"
    assert files.errors(base, {variable: text}) == [f"environment {variable}: {expected}"]


def test_overrides_errors_name_the_command_line(files: Files) -> None:
    """The same for what was typed."""
    assert files.errors("", {}, {"http.bnd": "x"}) == ['command line: http.bnd: unknown key, did you mean "bind"?']


def test_other_programs_variables_are_left_alone(files: Files) -> None:
    """Kubernetes sets GATEWAY_PORT for a service of that name; a slip in a name of ours is pointed out."""
    environ = {
        "GATEWAY_PORT": "tcp://10.0.0.1:80",
        "GATEWAY_CONFIG": "x",
        "GATEWAY_HTTP_PORT": "80",
        "GATEWAY_HOSTNAM": "a.example",
        "GATEWAY": "x",
        "GATEWAY_LOG_LEVEL": "debug",
        "GATEWAY_LOG_SERVICE_HOST": "10.0.0.1",
        "GATEWAY_HTTP_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    loaded = files.load("backends: {box: {type: capture}}", environ)
    assert loaded.warnings == (
        'environment GATEWAY_HOSTNAM: ignored, did you mean "GATEWAY_HOSTNAME"?',
        "environment GATEWAY_LOG_LEVEL: ignored, two _ stand between the parts of a key: GATEWAY_LOG__LEVEL",
    )


def test_all_errors_at_once_in_the_order_of_the_file(files: Files) -> None:
    """Syntax of values, unknown keys and settings that do not fit each other are told together, each once."""
    text = f"""\
        hostnme: x
        listeners:
          front: {{bind: "127.0.0.1:25", tls: implicit}}
          back: {{bind: "127.0.0.1"}}
        clients:
          a: {{networks: [10.0.0.0/99], backend: smort}}
          b: {{token: x, backend: smort}}
        backends:
          smart: {{type: smtp, hst: x, password: [{SECRET}]}}
          s2g: {{type: api, region: uk, api_key: {SECRET}}}
        routes:
          - {{backend: [smart, s3g]}}
          - {{clients: [c], backend: s2g}}
    """
    assert files.errors(text, {"GATEWAY_LOG__LEVEL": "loud"}) == [
        'config.yaml:1:1: hostnme: unknown key, did you mean "hostname"?',
        "config.yaml:3:33: listeners.front.tls: implicit needs certificate and private_key",
        'config.yaml:4:10: listeners.back.bind: "127.0.0.1" is not a place to listen at, did you mean "127.0.0.1:25"?',
        'config.yaml:6:18: clients.a.networks.0: "10.0.0.0/99" is not an IP address or network such as 192.0.2.0/24',
        'config.yaml:7:17: clients.b.backend: there is no backend "smort", did you mean "smart"?',
        'config.yaml:9:23: backends.smart.hst: unknown key, did you mean "host"?',
        "config.yaml:9:31: backends.smart.password: must be text",
        "config.yaml:10:20: backends.s2g.region: must be one of us, eu",
        'config.yaml:12:6: routes.0.backend: there is no backend "s3g", did you mean "s2g"?',
        'config.yaml:13:6: routes.1.clients: there is no client "c"; allowed: a, b',
        "environment GATEWAY_LOG__LEVEL: log.level: must be one of debug, info, warning, error",
    ]


def test_a_wrong_client_does_not_make_its_listener_wrong(files: Files) -> None:
    """What only follows from another error is not told."""
    text = "listeners: {a: {bind: 'x:25', auth: required}}\nclients: {c: {token: x, rate: 1}}\nroutes: [{clients: [c], backend: box}]"
    assert files.errors(text) == [
        'config.yaml:2:25: clients.c.rate: "1" is not a rate, write for example 60/minute or 1000/hour'
    ]


def test_warnings_for_what_is_hardly_meant(files: Files) -> None:
    """A backend nothing leads to, routes behind one that takes everything, clients behind their like, TLS that is off."""
    files.write("tls.crt", "x")
    loaded = files.load(
        """\
        listeners: {d: {bind: "127.0.0.1:25", certificate: tls.crt}, e: {bind: "[::]:25"}, f: {bind: "[::]:26"}, g: {bind: "0.0.0.0:26"}}
        clients:
          zed: {networks: [192.0.2.0/24, 10.0.0.0/8]}
          abe: {networks: [10.0.0.0/8]}
          new: {networks: [10.0.0.0/8, 10.0.0.0/16]}
          hash: {networks: [10.0.0.0/8], password_hash: "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$%s"}
          a: {token: x, backend: pinned}
          any: {token: "*"}
          own: {token: "*", key: own}
          two: {token: "*", networks: [192.0.2.9]}
        bounces: {backend: reports}
        backends: {used: {type: capture}, pinned: {type: capture}, reports: {type: capture}, idle: {type: capture}}
        routes: [{backend: used, senders: [""]}, {backend: used}, {backend: used}]
        """
        % ("A" * 43)
    )
    assert [line.replace(f"{files.directory}/", "") for line in loaded.warnings] == [
        "config.yaml:1:13: listeners.d: has a certificate, but tls: none",
        "config.yaml:1:66: listeners.e.bind: is IPv6 only; for IPv4 add a listener with bind: 0.0.0.0:25",
        "config.yaml:4:3: clients.abe: never used, clients.zed before it has the same networks",
        "config.yaml:10:3: clients.two: never used, clients.any before it has the same token",
        "config.yaml:12:86: backends.idle: no route and no client leads to it",
        "config.yaml:13:42: routes.1: takes everything, so the routes behind it are never used",
    ]


PROXIES = [
    ("127.0.0.1:25", "192.0.2.5", "", ["a.proxy_protocol_from: no load balancer there gets here: 127.0.0.1:25 is this"]),
    ("127.0.0.1:25", "127.0.0.1", "", []),
    ("0.0.0.0:25", "192.0.2.5", "c: {networks: [198.51.100.0/24]}", []),
    ("0.0.0.0:25", "192.0.2.5", "c: {networks: [192.0.2.5]}", ["c.networks: names a load balancer of listeners.a, whose"]),
    ("0.0.0.0:25", "192.0.2.0/29", "c: {networks: ['::ffff:192.0.2.5']}", ["c.networks: names a load balancer of"]),
    ("0.0.0.0:25", "192.0.2.5", "c: {networks: [192.0.2.0/24]}", ["c.networks: holds 192.0.2.5/32, a load balancer of"]),
    ("0.0.0.0:25", "192.0.2.5", "c: {networks: [192.0.2.0/24], token: '*'}", []),
]  # fmt: skip


@pytest.mark.parametrize(("bind", "proxies", "clients", "told"), PROXIES)
def test_load_balancers(files: Files, bind: str, proxies: str, clients: str, told: list[str]) -> None:
    """One that cannot get here, one whose own address is a client's; and b, which would take it for that client."""
    listeners = f'a: {{bind: "{bind}", proxy_protocol_from: ["{proxies}"]}}, b: {{bind: "192.0.2.1:26"}}'
    text = f"listeners: {{{listeners}}}\nclients: {{{clients}}}\nbackends: {{box: {{type: capture}}}}"
    found = [line for line in files.load(text).warnings if "load balancer" in line]
    assert [any(words in line for line in found) for words in told] == [True] * len(found)
    everywhere = text.replace('26"', f'26", proxy_protocol_from: ["{proxies}"]')
    assert not [line for line in files.load(everywhere).warnings if "does not list" in line]


def test_a_load_balancer_is_not_half_the_internet(files: Files) -> None:
    text = "listeners: {a: {bind: '0.0.0.0:25', proxy_protocol_from: [0.0.0.0/0]}}\nbackends: {box: {type: capture}}"
    (said,) = files.errors(text)
    assert "strangers could say they are anybody" in said


def test_two_slips_in_names_alike_are_both_told(files: Files) -> None:
    """A misspelt key excuses the one that was meant only if that is not given as well."""
    assert files.errors("", {"GATEWAY_LOG__LEVEL": "debgu", "GATEWAY_LGO__LEVEL": "1"}) == [
        'environment GATEWAY_LGO__LEVEL: lgo: unknown key, did you mean "log"?',
        'environment GATEWAY_LOG__LEVEL: log.level: must be one of debug, info, warning, error, did you mean "debug"?',
    ]


def test_settings_are_frozen(files: Files) -> None:
    """A reload replaces settings as a whole; nobody changes them."""
    settings: Settings = files.load("").settings
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings, "hostname", "x")  # noqa: B010 - mypy knows that it is frozen, too
