# ruff: noqa: E501 - a row is a case, and an error is one line
"""Every bad configuration has its exact error: where it stands, in plain words, with what was probably meant."""

from __future__ import annotations

import os

import pytest

from gateway.config import ConfigError
from gateway.config.files import unusable_places
from gateway.config.objects import objects
from tests.config.kit import SECRET, Files

TOP = (
    "allowed: alerts, aliases, auth, backends, bounces, clients, default_domain, event_loop, hostname, http, limits, "
    "listeners, local_domains, log, pickup, recipient_delimiter, retention, retry, routes, spool"
)
FOLDERS = "run/{0} or {0}"  # where a relative file is looked for in these tests

STRANGERS = "would relay for strangers: {} need no login"
ALL = "3,702,258,688 public addresses of IPv4"
CLOSE = "; name your own networks such as 192.0.2.0/24, or set open_relay: true beside it if you mean it"

COPIED = ", copied from somewhere: type it anew (a secret that really holds one goes into a _file)"
RIGHT = ": begin this line, and those that belong to it, further right"
TILDE = ": ~ is not filled in, for the service is another user than you; write the whole path"
WINDOWS = " is a path of Windows; write one of this machine, such as /etc/gateway/smtp2go.key"

CARRIED = "carries a password, which gateway config show would print: put it into a file of its own, and name that as password_file"

TWO = (
    "clients: {a: {token: a}, z: {token: z}}\n"
    "backends: {b: {type: capture, directory: b}, s: {type: capture, directory: s}}\n"
)
OWN = 'backend "b" belongs to tenants.t, and '
TENANTS = [
    (
        f"{TWO}routes: [{{backend: s}}]\ntenants: {{t: {{clients: [ab]}}}}",
        'config.yaml:4:15: tenants.t.clients: there is no client "ab"; allowed: a, z',
    ),
    (
        f"{TWO}routes: [{{backend: s}}]\ntenants: {{t: {{backends: [x]}}}}",
        'config.yaml:4:15: tenants.t.backends: there is no backend "x"; allowed: b, s',
    ),
    (
        f"{TWO}routes: [{{backend: s}}]\ntenants: {{t: {{clients: [a]}}, u: {{clients: [a], users: [anna]}}}}",
        'config.yaml:4:34: tenants.u.clients: "a" belongs to tenants.t already, and can have one tenant only',
    ),
    (
        f"{TWO}routes: [{{clients: [a], backend: b}}, {{backend: [s, b]}}]\ntenants: {{t: {{clients: [a], backends: [b]}}}}",
        f'config.yaml:3:39: routes.1.backend: {OWN}client "z" does not; write clients: [a] into this line',
    ),
    (
        f"{TWO.replace('token: z', 'token: z, backend: b')}routes: [{{backend: s}}]\ntenants: {{t: {{clients: [a], backends: [b]}}}}",
        f"config.yaml:1:40: clients.z.backend: {OWN}this client does not; add it there (clients), or take another backend",
    ),
    (
        f"{TWO}routes: [{{backend: s}}]\nbounces: {{backend: b}}\ntenants: {{t: {{clients: [a], backends: [b]}}}}",
        f"config.yaml:4:11: bounces.backend: {OWN}bounces are about mail of everybody; take one that belongs to no tenant",
    ),
]

SYNTAX = [
    ("routes: [", "config.yaml:1:10: a comma or a closing bracket is missing"),
    ("limits:\n\tidle: 5m", "config.yaml:2:1: indent with spaces, not with tabs"),
    (
        "hostname: a.example: b",
        'config.yaml:1:20: a ":" too many: quote a value that holds ": ", and look at the line above',
    ),
    ("hostname: @x", "config.yaml:1:11: a value that begins with this character must be quoted"),
    (f"hostname: *{SECRET}", "config.yaml:1:11: a value that begins with * must be quoted"),
    (f"hostname: !{SECRET} x", "config.yaml:1:11: hostname: a value that begins with ! must be quoted"),
    ("hostname: >x", "config.yaml:1:12: a value that begins with | or > must be quoted"),
    ('hostname: "open', "config.yaml:1:16: a quote is not closed"),
    ("http:\n  bind: ''\n log: x", "config.yaml:3:2: the indentation does not fit the lines above"),
    ("hostname\nlog:\n", 'config.yaml:2:4: a ":" too many: quote a value that holds ": ", and look at the line above'),
    ("log: {}\nhostname\n", 'config.yaml:3:1: write "key: value", with a space behind the colon'),
    ("log: {}\n---\nlog: {}", 'config.yaml:2:1: there may be only one document, without a second "---"'),
    ("- hostname: x", 'config.yaml: must hold "key: value" lines, such as "hostname: relay.example.com"'),
    ("just text", 'config.yaml: must hold "key: value" lines, such as "hostname: relay.example.com"'),
    ("log: {}\nhostname: \x07", "config.yaml:2: holds a control character"),
    ("[" * 500, "config.yaml: nested too deeply"),
    ("log: &x [*x]", "config.yaml: nested too deeply"),
    ("? [a, b]\n: c", "config.yaml:1:3: ?: a key must be plain text"),
    # a line that is indented too far, or not far enough
    (
        "limits:\n  idle: 5m\n   memory: 1GB",
        "config.yaml:3:10: indented too far: this line must begin below the line above it, in column 3",
    ),
    (
        f"limits:\n  idle: {SECRET}\n\n  # why\n    memory: 1GB",
        "config.yaml:5:5: indented too far: this line must begin below the line above it, in column 3",
    ),
    (
        " hostname: a.example\nlog: {}",
        "config.yaml:2:1: line 1 is indented too far: all keys of the first level begin in one column",
    ),
    # other files
    (
        "hostname: a.example\nhttp:{bind: x}",
        'config.yaml:2:1: http:{bind: unknown key; write "key: value", with a space behind the colon',
    ),
    (f"hostname:{SECRET}", 'config.yaml:1:1: write "key: value", with a space behind the colon'),
    ("hostname = x", 'config.yaml:1:1: write "key: value", not "key = value"'),
    ("log: {}\nhostname=x", 'config.yaml:2:11: write "key: value", not "key = value", in line 2'),
    ("; old\nhostname: x", "config.yaml:2:9: line 1 is no setting; a comment begins with #"),
    ("hostname: x\n// old\nlog: {}", "config.yaml:3:1: line 2 is no setting; a comment begins with #"),
    (
        "[log]\nlevel = 'info'",
        'config.yaml:2:1: this is an INI or TOML file: write "section:", and below it indented "key: value" lines',
    ),
    # signs
    ("hostname:\tx", "config.yaml:1:10: write a space behind the colon, not a tab"),
    (
        f"backends: {{b: {{type: api, api_key: ab #{SECRET}}}}}\n",
        'config.yaml:2:1: in line 1 a # behind a blank begins a comment: quote a value that holds " #"',
    ),
    (
        'state_dir: "C:\\gateway"',
        """config.yaml:1:16: within "..." a \\ begins an escape: write it within '...', or a / instead""",
    ),
    ("hostname:\u00a0x", f"config.yaml:1:1: holds a space that is none (no-break space){COPIED}"),
]

VALUES = [
    # unknown and doubled keys
    (
        "limits.max_size: 1MB",
        'config.yaml:1:1: limits.max_size: unknown key; no dot leads into a section: write "max_size", indented, below '
        '"limits:"',
    ),
    ("limit: {}", 'config.yaml:1:1: limit: unknown key, did you mean "limits"?'),
    ("zzzz: 1", f"config.yaml:1:1: zzzz: unknown key; {TOP}, state_dir, tenants"),
    ("limits:\n  idel: 5m", 'config.yaml:2:3: limits.idel: unknown key, did you mean "idle"?'),
    ("limits: {idle: 5m, idle: 6m}", "config.yaml:1:20: limits.idle: given twice, first in line 1"),
    ("log:\n  level: info\n\nlog: {}", "config.yaml:4:1: log: given twice, first in line 1"),
    # the database of the spool
    ("spool: {url: mysql://db/gateway}", 'config.yaml:1:9: spool.url: "mysql:" is not PostgreSQL, which is all that is spoken; write for example postgresql://gateway@db.example.org/gateway'),
    ("spool: {url: 'postgresql:db'}", "config.yaml:1:9: spool.url: needs two slashes behind postgresql:, write for example postgresql://gateway@db.example.org/gateway"),
    ("spool: {url: db.example.org}", "config.yaml:1:9: spool.url: is neither a URL nor words of libpq, write for example postgresql://gateway@db.example.org/gateway"),
    ("spool: {url: ' '}", "config.yaml:1:9: spool.url: is empty, write for example postgresql://gateway@db.example.org/gateway"),
    ("spool: {url: ['postgresql://db']}", "config.yaml:1:9: spool.url: must be text"),
    (f"spool: {{url: 'postgresql://gateway:{SECRET}@db/gateway'}}", f"config.yaml:1:9: spool.url: {CARRIED}"),
    (f"spool: {{url: 'postgres://db/gateway?password={SECRET}'}}", f"config.yaml:1:9: spool.url: {CARRIED}"),
    (f"spool: {{url: 'host=db password={SECRET}'}}", f"config.yaml:1:9: spool.url: {CARRIED}"),
    (f"spool: {{url: \"host=db password = '{SECRET} x'\"}}", f"config.yaml:1:9: spool.url: {CARRIED}"),
    (f"spool: {{url: 'postgresql://db/gateway?sslpassword={SECRET}'}}", "config.yaml:1:9: spool.url: carries a passphrase, which gateway config show would print: use a key without one, which only the service may read"),
    (f"spool: {{url: 'postgresql://db/gateway?scram_client_key={SECRET}'}}", "config.yaml:1:9: spool.url: carries a secret (scram_client_key), which gateway config show would print: use password_file"),
    ("spool: {url: 'postgresql://db:99999/gateway'}", 'config.yaml:1:9: spool.url: "db:99999" is not a host, or a host and a port, write for example postgresql://gateway@db.example.org/gateway'),
    ("spool: {url: 'postgresql://db/gateway?sslmode='}", 'config.yaml:1:9: spool.url: has nothing behind "sslmode": write for example postgresql://gateway@db.example.org/gateway?sslmode=verify-full'),
    ("spool: {url: 'postgresql://db/gateway#1'}", "config.yaml:1:9: spool.url: holds a #: write %23 for one that is meant"),
    ("spool: {password: x}", "config.yaml:1:9: spool.password: is only for a database of PostgreSQL: give its url, too"),
    ("spool: {url: 'postgresql://db', password_file: none.pw}", f"config.yaml:1:33: spool.password_file: no such file: {FOLDERS.format('none.pw')}"),
    ("spool: {url: 'postgresql://db', instance: a.b}", 'config.yaml:1:33: spool.instance: "a.b" must be 1 to 63 letters, digits, - or _, such as gateway-a'),
    ("spool: {instance: ''}", 'config.yaml:1:9: spool.instance: "" must be 1 to 63 letters, digits, - or _, such as gateway-a'),
    ("spool: {failover: 1s}", 'config.yaml:1:9: spool.failover: "1s" must be from 2s to 5m'),
    ("spool: {failover: 6m}", 'config.yaml:1:9: spool.failover: "6m" must be from 2s to 5m'),
    ("spool: {failover: soon}", 'config.yaml:1:9: spool.failover: "soon" is not a duration, write for example 30s, 5m, 4h or 5d'),
    ("spool: {uri: x}", 'config.yaml:1:9: spool.uri: unknown key, did you mean "url"?'),
    ("spool: postgresql://db", 'config.yaml:1:1: spool: must hold indented "key: value" lines'),
    # wrong types
    ("limits: [a]", 'config.yaml:1:1: limits: must hold indented "key: value" lines'),
    ("listeners: [a]", 'config.yaml:1:1: listeners: must hold indented "key: value" lines'),
    ("listeners: {a: b}", 'config.yaml:1:13: listeners.a: must hold indented "key: value" lines'),
    ("limits: {connections: many}", "config.yaml:1:10: limits.connections: must be a whole number"),
    ("limits: {connections: 1.5}", "config.yaml:1:10: limits.connections: must be a whole number"),
    ("limits: {connections: 0}", "config.yaml:1:10: limits.connections: must be 1 or more"),
    ("limits: {connections: [1]}", "config.yaml:1:10: limits.connections: must be a whole number"),
    ("limits: {max_size: 10}", "config.yaml:1:10: limits.max_size: must be 1000 or more"),
    ("limits: {max_size: 9 MBit}", 'config.yaml:1:10: limits.max_size: "9 MBit" is not a size, write for example 25MB or 512KB'),
    ("clients: {a: {max_size: 0}}", "config.yaml:1:15: clients.a.max_size: must be 1 or more"),
    ("backends: {box: {type: smtp, host: x, max_size: 0}}", "config.yaml:1:39: backends.box.max_size: must be 1 or more"),
    ("limits: {memory: 1MB}", "config.yaml:1:10: limits.memory: must be at least limits.max_size (35MB)"),
    ("limits: {spool_free: 110%}", 'config.yaml:1:10: limits.spool_free: "110%" is neither a share of the disk (a whole percentage from 0% to 99%) nor a size, write for example 10% or 5GB'),
    ("limits: {spool_free: '99.9%'}", 'config.yaml:1:10: limits.spool_free: "99.9%" is neither a share of the disk (a whole percentage from 0% to 99%) nor a size, write for example 10% or 5GB'),
    ("limits: {spool_free: a lot}", 'config.yaml:1:10: limits.spool_free: "a lot" is neither a share of the disk (a whole percentage from 0% to 99%) nor a size, write for example 10% or 5GB'),
    ("limits: {idle: 5 minutes}", 'config.yaml:1:10: limits.idle: "5 minutes" is not a duration, write for example 30s, 5m, 4h or 5d'),
    ("limits: {idle: 12:30}", 'config.yaml:1:10: limits.idle: "12:30" is not a duration, write for example 30s, 5m, 4h or 5d'),
    ("limits: {idle: 0}", "config.yaml:1:10: limits.idle: must be longer than 0"),
    ("retry: {lifetime: 9999999w}", 'config.yaml:1:9: retry.lifetime: "9999999w" is more than ten years'),
    ("retry: {delays: 5m}", "config.yaml:1:9: retry.delays: must be a list, such as [one, two]"),
    ("retry: {delays: []}", "config.yaml:1:9: retry.delays: needs at least 1 entry"),
    ("retry: {delays: [1m, 0s]}", "config.yaml:1:22: retry.delays.1: must be longer than 0"),
    ("retry: {jitter: 0.7}", "config.yaml:1:9: retry.jitter: must be 0.5 or less"),
    ("retry: {jitter: some}", "config.yaml:1:9: retry.jitter: must be a number"),
    ("retry: {jitter: nan}", "config.yaml:1:9: retry.jitter: must be 0.5 or less"),
    ("log: {level: warn}", 'config.yaml:1:7: log.level: must be one of debug, info, warning, error, did you mean "warning"?'),
    ("log: {level: 7}", "config.yaml:1:7: log.level: must be one of debug, info, warning, error"),
    ("hostname: [a]", "config.yaml:1:1: hostname: must be text"),
    ("hostname: my host", 'config.yaml:1:1: hostname: "my host" is not a host name such as relay.example.com'),
    ("state_dir: spool", 'config.yaml:1:1: state_dir: "spool" must be an absolute path such as /var/lib/gateway'),
    ("state_dir: [/x]", "config.yaml:1:1: state_dir: must be text"),
    ('state_dir: "/a\\0b"', "config.yaml:1:12: state_dir: holds a NUL character"),
    (r'hostname: "a\ud800b"', "config.yaml:1:11: hostname: holds half a surrogate pair, or bytes that are not UTF-8"),
    (r'clients: {c: {senders: ["\ud83d"]}}', "config.yaml:1:25: clients.c.senders.0: holds half a surrogate pair, or bytes that are not UTF-8"),
    (r'hostname: "a\0b"', "config.yaml:1:11: hostname: holds a NUL character"),
    ('http: {socket: "a\\0b"}', "config.yaml:1:16: http.socket: holds a NUL character"),
    ('backends: {b: {type: capture, directory: "a\\0b"}}', "config.yaml:1:42: backends.b.directory: holds a NUL character"),
    ('backends: {b: {type: smtp, host: h, ca_file: "a\\0b"}}', "config.yaml:1:46: backends.b.ca_file: holds a NUL character"),
    ("http: {socket: [/x]}", "config.yaml:1:8: http.socket: must be text"),
    # listeners
    ("listeners: {Local: {bind: '[::1]:25'}}", "config.yaml:1:13: listeners.Local: a name begins with a small letter and holds only small letters, digits and _, at most 40"),
    ("listeners: {a: }", "config.yaml:1:13: listeners.a.bind: is missing"),
    ("listeners: {a: {bind: 25}}", 'config.yaml:1:17: listeners.a.bind: "25" is not a place to listen at, did you mean "0.0.0.0:25" (every address), or "127.0.0.1:25" (this machine only)?'),
    ("listeners: {a: {bind: '::1:25'}}", 'config.yaml:1:17: listeners.a.bind: "::1:25" is not a place to listen at, did you mean "[::1]:25"?'),
    ("listeners: {a: {bind: '1.2.3:25'}}", 'config.yaml:1:17: listeners.a.bind: "1.2.3:25" is not a place to listen at, write for example 127.0.0.1:25 or [::1]:25'),
    ("listeners: {a: {bind: 'x:70000'}}", 'config.yaml:1:17: listeners.a.bind: "x:70000" is not a place to listen at, write for example 127.0.0.1:25 or [::1]:25'),
    ("listeners: {a: {bind: 'x:25'}, b: {bind: 'x:25'}}", 'config.yaml:1:36: listeners.b.bind: "x:25" is taken by listeners.a'),
    ("listeners: {a: {bind: '127.0.0.1:8026'}}", 'config.yaml:1:17: listeners.a.bind: "127.0.0.1:8026" is taken by http'),
    ("listeners: {a: {bind: 'x:25', tls: starttlss}}", 'config.yaml:1:31: listeners.a.tls: must be one of none, starttls, implicit, did you mean "starttls"?'),
    ("listeners: {a: {bind: 'x:25', auth: false}}", "config.yaml:1:31: listeners.a.auth: must be one of off, optional, required, did you mean \"off\"?"),
    ("listeners: {a: {bind: 'x:25', certificate: no.crt}}", f"config.yaml:1:31: listeners.a.certificate: no such file: {FOLDERS.format('no.crt')}"),
    ("listeners: {a: {bind: 'x:25', certificate: [a]}}", "config.yaml:1:31: listeners.a.certificate: must be text"),
    ("clients: {a: {password_hash_file: [a]}}", "config.yaml:1:15: clients.a.password_hash_file: must be text"),
    ("clients: {}\nlisteners: {a: {bind: 'x:25', auth: required}}", "config.yaml:2:31: listeners.a.auth: no client has a token, password_hash or login, so nobody could log in"),
    ("listeners: {a: {bind: 'x:25', tls: starttls}}", "config.yaml:1:31: listeners.a.tls: starttls needs certificate and private_key"),
    ("listeners: {a: {bind: 'x:25', min_tls: 1.4}}", "config.yaml:1:31: listeners.a.min_tls: must be one of 1.0, 1.1, 1.2, 1.3, did you mean \"1.3\"?"),
    # pickup
    ("pickup: {a: {}}", "config.yaml:1:10: pickup.a.directory: is missing"),
    ("pickup: {a: {directory: out}}", 'config.yaml:1:14: pickup.a.directory: "out" must be an absolute path such as /var/lib/gateway'),
    ("pickup: {maildrop: {directory: /srv}}", "config.yaml:1:10: pickup.maildrop: is the name of gateway-sendmail's own folder, give it another"),
    ("pickup: {local: {directory: /srv}}", "config.yaml:1:10: pickup.local: is the name of a listener as well, and the log has to tell them apart"),
    ("state_dir: /a/b\npickup: {x: {directory: /a}}", "config.yaml:2:14: pickup.x.directory: /a and state_dir /a/b must not be within each other"),
    ("pickup: {x: {directory: /s}, y: {directory: /s/y}}", "config.yaml:1:34: pickup.y.directory: /s/y and pickup.x /s must not be within each other"),
    # clients
    ("clients: {a: }", "config.yaml:1:11: clients.a: say how this client is known: networks, token, password_hash or login"),
    ("clients: {a: {login: box}}", 'config.yaml:1:15: clients.a.login: backend "box" cannot tell whose a token is; a temp_mail backend with token: client can'),
    ("clients: {a: {login: bix}}", 'config.yaml:1:15: clients.a.login: there is no backend "bix", did you mean "box"?'),
    ("backends: {b: {type: smpt}}\nclients: {a: {login: b}}", 'config.yaml:1:16: backends.b.type: there is no backend type "smpt", did you mean "smtp"?'),
    ("clients: {a: {token: x, login: box}}", "config.yaml:1:25: clients.a.login: give token or login, not both"),
    ("clients: {a: {token: x, password_hash: $scrypt$x}}", "config.yaml:1:25: clients.a.password_hash: give token or password_hash, not both"),
    ("clients: {a: {token: x, user: b}}", "config.yaml:1:25: clients.a.user: only a client with a password has a user name"),
    ("clients: {a: {password_hash: hunter2}}", 'config.yaml:1:15: clients.a.password_hash: is not a whole $scrypt$ hash, make one with "gateway password mint"'),
    ("clients: {a: {networks: [192.0.2.1/24]}}", 'config.yaml:1:26: clients.a.networks.0: "192.0.2.1/24" has bits set behind the prefix, did you mean "192.0.2.0/24"?'),
    ("clients: {a: {networks: [here]}}", 'config.yaml:1:26: clients.a.networks.0: "here" is not an IP address or network such as 192.0.2.0/24'),
    ("clients: {a: {networks: 192.0.2.1}}", "config.yaml:1:15: clients.a.networks: must be a list, such as [one, two]"),
    ("clients: {a: {networks: [0.0.0.0/0]}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format(ALL)}{CLOSE}"),
    ("clients: {a: {networks: ['::/1', '8000::/1']}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format(ALL + ' and as many of IPv6 as a /4 has')}{CLOSE}"),
    ("clients: {a: {networks: ['::ffff:0:0/96']}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format(ALL)}{CLOSE}"),
    ("clients: {a: {networks: ['2000::/3']}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format(ALL + ' and as many of IPv6 as a /4 has')}{CLOSE}"),
    ("clients: {a: {networks: ['64:ff9b::/96']}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format(ALL)}{CLOSE}"),
    ("clients: {a: {networks: ['2400::/12']}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format('as many of IPv6 as a /12 has')}{CLOSE}"),
    ("clients: {a: {networks: [0.0.0.0/2, 64.0.0.0/2, 128.0.0.0/2]}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format('3,165,585,408 public addresses of IPv4')}{CLOSE}"),
    ("clients: {a: {networks: [0.0.0.0/1], open_relay: false}, b: {networks: [128.0.0.0/1]}}", f"config.yaml:1:15: clients.a.networks: {STRANGERS.format(ALL)}, together with clients.b{CLOSE}"),
    ("clients: {a: {networks: [52.0.0.0/13]}, b: {networks: [10.0.0.0/8]}, c: {networks: [54.0.0.0/13, 9.9.9.9]}}", f"config.yaml:1:74: clients.c.networks: {STRANGERS.format('1,048,577 public addresses of IPv4')}, together with clients.a{CLOSE}"),
    ("clients: {a: {token: x, senders: [example.com]}}", 'config.yaml:1:35: clients.a.senders.0: "example.com" is not an address pattern, did you mean "*@example.com"?'),
    ("clients: {a: {token: x, senders: ['a*@b']}}", 'config.yaml:1:35: clients.a.senders.0: "a*@b": a * stands for the whole local part, the whole domain, or what precedes .domain'),
    ("clients: {a: {token: x, senders: ['a b@c.example']}}", 'config.yaml:1:35: clients.a.senders.0: "a b@c.example": The address is malformed'),
    ("clients: {a: {networks: ['::1'], senders: ['{email}']}}", "config.yaml:1:34: clients.a.senders: {sub} and {email} stand for claims, which only a client with a token has"),
    ("clients: {a: {networks: ['::1'], rewrite_sender: {to: me}}}", 'config.yaml:1:51: clients.a.rewrite_sender.to: "me": The address needs a domain, write user@example.com'),
    ("clients: {a: {networks: ['::1'], rate: 5/week}}", 'config.yaml:1:34: clients.a.rate: "5/week" is not a rate, write for example 60/minute or 1000/hour'),
    ("clients: {a: {networks: ['::1'], quota: {}}}", "config.yaml:1:34: clients.a.quota: says no number: write for example messages: [60/minute, 500/day]"),
    ("clients: {a: {networks: ['::1'], quota: {messages: 5/week}}}", 'config.yaml:1:42: clients.a.quota.messages.0: "5/week" is not a rate, write for example 60/minute or 1000/hour'),
    ("clients: {a: {networks: ['::1'], quota: {messages: [60/hour, 50/day]}}}", "config.yaml:1:42: clients.a.quota.messages: 50/day is less than 60/hour, which could never be reached"),
    ("clients: {a: {networks: ['::1'], quota: {messages: [1500/day, 60/hour]}}}", "config.yaml:1:42: clients.a.quota.messages: 1500/day could never be reached with 60/hour"),
    ("clients: {a: {networks: ['::1'], quota: {recipients: [6/hour, 50/hour]}}}", "config.yaml:1:42: clients.a.quota.recipients: 6/hour and 50/hour are for the same time, leave one of them out"),
    ("clients: {a: {networks: ['::1'], quota: {messages: 9/hour, recipients: 5/hour}}}", "config.yaml:1:60: clients.a.quota.recipients: 5/hour is fewer than messages 9/hour, and every message has a recipient"),
    ("clients: {a: {networks: ['::1'], quota: {messages: 9/hour, per: login}}}", "config.yaml:1:60: clients.a.quota.per: nobody logs in as this client, write per: address"),
    ("clients: {a: {networks: ['::1'], quota: {messages: 9/hour, over: drop}}}", "config.yaml:1:60: clients.a.quota.over: must be one of hold, defer, refuse"),
    ("clients: {a: {networks: ['::1'], connections: 0}}", "config.yaml:1:34: clients.a.connections: must be 1 or more"),
    ("clients: {a: {networks: ['::1'], connections: 2000}}", "config.yaml:1:34: clients.a.connections: is more than limits.connections (1000), which holds for all together"),
    ("clients: {a: {networks: ['::1'], recipients: ['!*@b.example']}}", """config.yaml:1:34: clients.a.recipients: says only who is blocked, and nobody else is allowed either: put "*" before !*@b.example"""),
    ("clients: {a: {networks: ['::1'], recipients: ['*', '!*']}}", 'config.yaml:1:52: clients.a.recipients.1: "!*" blocks everybody, write [] for that'),
    ("clients: {a: {networks: ['::1'], recipients: ['*', '!b.example']}}", 'config.yaml:1:52: clients.a.recipients.1: "b.example" is not an address pattern, did you mean "*@b.example"?'),
    ("clients: {a: {token: x, senders: ['*', '!{email}']}}", 'config.yaml:1:40: clients.a.senders.1: "!{email}": what is blocked is an address or pattern, no claim of a token'),
    ("clients: {a: {networks: ['::1'], key: own}}", "config.yaml:1:34: clients.a.key: only a client with a token has a key"),
    ("clients: {a: {token: x, key: won}}", 'config.yaml:1:25: clients.a.key: there is no key "won", did you mean "own"?'),
    ("clients: {a: {token: x, backend: bax}}", 'config.yaml:1:25: clients.a.backend: there is no backend "bax", did you mean "box"?'),
    ("clients: {a: {token: x, open_relay: maybe}}", "config.yaml:1:25: clients.a.open_relay: must be true or false"),
    ("clients: {a: {password_hash_file: none}}", f"config.yaml:1:15: clients.a.password_hash_file: no such file: {FOLDERS.format('none')}"),
    # keys
    ("auth: {keys: {k: {algorithm: HS256}}}", "config.yaml:1:15: auth.keys.k: needs exactly one of secret, public_key_file, private_key_file, jwks_url"),
    ("auth: {keys: {k: {algorithm: HS265, secret: x}}}", "config.yaml:1:19: auth.keys.k.algorithm: must be one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, did you mean \"HS256\"?"),
    ("auth: {keys: {k: {algorithm: RS256, secret: x}}}", "config.yaml:1:37: auth.keys.k.secret: does not fit algorithm RS256, which needs a key file or jwks_url"),
    ("auth: {keys: {k: {algorithm: HS256, jwks_url: 'https://x.example/'}}}", "config.yaml:1:37: auth.keys.k.jwks_url: does not fit algorithm HS256, which needs a secret"),
    ("auth: {keys: {k: {algorithm: RS256, jwks_url: 'http://x.example/'}}}", "config.yaml:1:37: auth.keys.k.jwks_url: http://x.example is not encrypted: use https (plain http only to this machine)"),
    ("auth: {keys: {k: {algorithm: RS256, jwks_url: 'file:///etc/passwd'}}}", "config.yaml:1:37: auth.keys.k.jwks_url: file:// is not a URL such as https://api.example.com"),
    ("auth: {keys: {k: {algorithm: RS256, jwks_url: login.x}}}", "config.yaml:1:37: auth.keys.k.jwks_url: is not a URL such as https://api.example.com"),
    (f"auth: {{keys: {{k: {{algorithm: RS256, jwks_url: 'https://u:{SECRET}@x.example/'}}}}}}", "config.yaml:1:37: auth.keys.k.jwks_url: the URL of x.example carries a user name or password"),
    ("auth: {keys: {k: {algorithm: EdDSA, private_key_file: k.pem}}}", f"config.yaml:1:37: auth.keys.k.private_key_file: no such file: {FOLDERS.format('k.pem')}"),
    ("auth: {keys: {k: {algorithm: HS256, secret: 32-bytes-of-secret-or-some-more-, secret_file: y}}}", "config.yaml:1:79: auth.keys.k.secret_file: give secret or secret_file, not both"),
    ("auth: {keys: {k: {algorithm: HS384, secret: 32-bytes-of-secret-or-some-more-}}}", "config.yaml:1:37: auth.keys.k.secret: HS384 needs at least 48 bytes, this has 32"),
    ("auth: {keys: {k: {algorithm: HS256, secret: ''}}}", "config.yaml:1:37: auth.keys.k.secret: HS256 needs at least 32 bytes, this has 0"),
    ("auth: {keys: {k: {algorithm: HS256, public_key_file: config.yaml}}}", "config.yaml:1:37: auth.keys.k.public_key_file: does not fit algorithm HS256, which needs a secret"),
    ("auth: {keys: {k: {algorithm: RS256, public_key_file: config.yaml, jwks_url: 'https://x.example/'}}}", "config.yaml:1:15: auth.keys.k: needs exactly one of secret, public_key_file, private_key_file, jwks_url"),
    # backends and routes
    ("backends: {b: {host: x}}", "config.yaml:1:12: backends.b.type: is missing; allowed: api, capture, smtp"),
    ("backends: {b: {type: smpt}}", 'config.yaml:1:16: backends.b.type: there is no backend type "smpt", did you mean "smtp"?'),
    ("backends: {b: {type: graph}}", 'config.yaml:1:16: backends.b.type: there is no backend type "graph"; allowed: api, capture, smtp'),
    ("backends: {b: {type: [smtp]}}", "config.yaml:1:16: backends.b.type: there is no backend type \"['smtp']\", did you mean \"smtp\"?"),
    ("backends: {b: text}", "config.yaml:1:12: backends.b.type: is missing; allowed: api, capture, smtp"),
    ("backends: [b]", 'config.yaml:1:1: backends: must hold indented "key: value" lines'),
    ("backends: {b: {type: smtp}}", "config.yaml:1:12: backends.b.host: is missing"),
    ("backends: {b: {type: api, api_kee: x}}", 'config.yaml:1:27: backends.b.api_kee: unknown key, did you mean "api_key"?'),
    ("backends: {b: {type: api}}", "config.yaml:1:12: backends.b.api_key: is missing, give it or api_key_file"),
    ("backends: {b: {type: api, api_key_file: k}}", f"config.yaml:1:27: backends.b.api_key_file: no such file: {FOLDERS.format('k')}"),
    ("backends: {b: {type: smtp, host: 'a/b'}}", r"config.yaml:1:28: backends.b.host: does not have the right form (^[^\s/]{1,60}$)"),
    ("backends: {b: {type: smtp, host: x, port: 0}}", "config.yaml:1:37: backends.b.port: must be greater than 0"),
    ("backends: {b: {type: api, api_key: x, concurrency: 5000}}", "config.yaml:1:39: backends.b.concurrency: must be 1000 or less"),
    ("backends: {My-Box: {type: capture}}", "config.yaml:1:12: backends.My-Box: a name begins with a small letter and holds only small letters, digits and _, at most 40"),
    ("backends: {a: {type: capture}, b: {type: capture}}", "config.yaml: routes: needed to choose between 2 backends, write for example routes: [{backend: a}]"),
    ("routes: [{backend: bix}]", 'config.yaml:1:11: routes.0.backend: there is no backend "bix", did you mean "box"?'),
    ("routes: [{backend: [box, cox]}]", 'config.yaml:1:11: routes.0.backend: there is no backend "cox", did you mean "box"?'),
    ("routes: [{backend: []}]", "config.yaml:1:11: routes.0.backend: needs at least 1 entry"),
    ("routes: [{backend: box, clients: [token]}]", 'config.yaml:1:25: routes.0.clients: there is no client "token", did you mean "tokens"?'),
    ("routes: [{recipients: ['*']}]", "config.yaml:1:10: routes.0.backend: is missing"),
    ("routes: {backend: box}", "config.yaml:1:1: routes: must be a list, such as [one, two]"),
    ("routes: [box]", 'config.yaml:1:10: routes.0: must hold indented "key: value" lines'),
    ("routes: [{backend: box, senders: ['{email}']}]", "config.yaml:1:10: routes.0: {sub} and {email} stand for claims, which are known to clients only"),
    # other words for what is meant
    ("log: {level: INFO}", 'config.yaml:1:7: log.level: must be one of debug, info, warning, error, did you mean "info"?'),
    ("listeners: {a: {bind: 'x:25', tls: SSL}}", 'config.yaml:1:31: listeners.a.tls: must be one of none, starttls, implicit, did you mean "implicit"?'),
    ("listeners: {a: {bind: '*:25'}}", 'config.yaml:1:17: listeners.a.bind: "*:25" is not a place to listen at, did you mean "0.0.0.0:25" (every address), or "127.0.0.1:25" (this machine only)?'),
    ("listeners: {a: {bind: '::'}}", 'config.yaml:1:17: listeners.a.bind: "::" is not a place to listen at, did you mean "[::]:25"?'),
    ("backends: {b: {type: Smarthost}}", 'config.yaml:1:16: backends.b.type: there is no backend type "Smarthost", did you mean "smtp"?'),
    ("limits: {idle: 300}", 'config.yaml:1:10: limits.idle: "300" has no unit, write for example 300s for seconds or 300m for minutes'),
    ("clients: {a: {token: x, senders: ['@example.com']}}", 'config.yaml:1:35: clients.a.senders.0: "@example.com" is not an address pattern, did you mean "*@example.com"?'),
    # what stands in the wrong column
    ("backends:\noffice:\n  type: capture", f'config.yaml:2:1: office: is not indented below "backends"{RIGHT}'),
    ("limits:\nidel: 5m", f'config.yaml:2:1: idel: is not indented below "limits"{RIGHT}'),
    ("backends:\n  office:\n  type: api\n  api_key: x", f'config.yaml:3:3: backends.type: is not indented below "office"{RIGHT}'),
    ("clients:\n  a:\n  networks: ['::1']\n  b:\n    networks: ['::2']", f'config.yaml:3:3: clients.networks: is not indented below "a"{RIGHT}'),
    ("auth:\n  keys:\n    k:\n    algorithm: EdDSA", f'config.yaml:4:5: auth.keys.algorithm: is not indented below "k"{RIGHT}'),
    ("type: smtp", 'config.yaml:1:1: type: unknown key here; it belongs, indented, below "backends:"'),
    ("max_recipients: 7", 'config.yaml:1:1: max_recipients: unknown key here; it belongs, indented, below "limits:"'),
    # paths and signs that look right
    ("state_dir: ~/gateway", f'config.yaml:1:1: state_dir: "~/gateway"{TILDE}'),
    ("backends: {b: {type: api, api_key_file: ~/k}}", f'config.yaml:1:27: backends.b.api_key_file: "~/k"{TILDE}'),
    ("listeners: {a: {bind: 'x:25', certificate: ~root/a.crt}}", f'config.yaml:1:31: listeners.a.certificate: "~root/a.crt"{TILDE}'),
    ("backends: {b: {type: capture, directory: 'C:\\mail'}}", f'config.yaml:1:31: backends.b.directory: "C:\\mail"{WINDOWS}'),
    ("pickup: {p: {directory: '\\\\server\\share'}}", f'config.yaml:1:14: pickup.p.directory: "\\\\server\\share"{WINDOWS}'),
    ("http: {socket: $HOME/x}", 'config.yaml:1:8: http.socket: "$HOME/x": variables are not filled in; write the whole path'),
    (f"backends: {{b: {{type: api, api_key_file: {SECRET}-1}}}}", "config.yaml:1:27: backends.b.api_key_file: names no file; it looks like the secret itself: write it into a file, or as api_key"),
    ("hostname: \u201crelay.example.com\u201d", """config.yaml:1:11: hostname: has typographic quotes around it: write " or '"""),
    ("limits:\n\u00a0 idle: 5m", f"config.yaml:2:1: \u00a0 idle: holds a space that is none (no-break space){COPIED}"),
    ("hostname: relay\u200b.example.com", f"config.yaml:1:11: hostname: holds an invisible character (zero width space){COPIED}"),
    # bounces, http
    ("bounces: {from: postmaster}", 'config.yaml:1:11: bounces.from: "postmaster": The address needs a domain, write user@example.com'),
    ("bounces: {sender: a@b.example}", "config.yaml:1:11: bounces.sender: unknown key; allowed: backend, copy_to, digest_every, from, later, mode"),
    *TENANTS,
    ("bounces: {backend: bax}", 'config.yaml:1:11: bounces.backend: there is no backend "bax", did you mean "box"?'),
    ("http: {bind: localhost}", 'config.yaml:1:8: http.bind: "localhost" is not a place to listen at, write for example 127.0.0.1:25 or [::1]:25'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SYNTAX, ids=[text[:30] for text, _ in SYNTAX])
def test_a_file_that_is_no_yaml(files: Files, text: str, expected: str) -> None:
    """Syntax errors have a position and say what to do, and never repeat a value."""
    errors = files.errors(text)
    assert errors == [expected]
    assert SECRET not in str(errors)


HASH = "$scrypt$ln=14,r=8,p=1$c2l4dGVlbiBieXRlcyBvaw$" + "A" * 43
WHOLE = 'is not a whole $scrypt$ hash, make one with "gateway password mint"'
WEAK = "is a $scrypt$ hash that is too weak, or needs more than 128 MiB"
HASHES = [
    ("password", WHOLE), ("$2b$12$abcdefghijklmnopqrstuv", WHOLE), ("$scrypt$ln=14", WHOLE), (HASH + "AA", WHOLE),
    ("$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$", WHOLE), (HASH.replace("ln=14", "ln=x"), WHOLE), (HASH[:-3], WEAK),
    (HASH.replace("ln=14", "ln=9"), WEAK), (HASH.replace("ln=14", "ln=18"), WEAK), (HASH.replace("r=8", "r=0"), WEAK),
    (HASH.replace("ln=14,r=8", "ln=17,r=9"), WEAK), (HASH.replace("p=1", "p=0"), WEAK), (HASH.replace("p=1", "p=17"), WEAK),
    (HASH.replace("ln=14", "ln=99"), WEAK), (HASH.replace("c2l4dGVlbiBieXRlcyBvaw", "c2FsdA"), WEAK),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), HASHES, ids=range(len(HASHES)))
@pytest.mark.parametrize("key", ["password_hash", "password_hash_file"])
def test_a_wrong_hash(files: Files, key: str, text: str, expected: str) -> None:
    """Cut off, weak or too costly: said where it was given, and never repeated."""
    files.write("copier.hash", text)
    given = "copier.hash" if key == "password_hash_file" else f'"{text}"'
    errors = files.errors(f"clients: {{copier: {{{key}: {given}}}}}")
    assert errors == [f"config.yaml:1:20: clients.copier.password_hash: {expected}"]


def folder_errors(files: Files, text: str) -> list[str]:
    """The lines, each with the place of its setting."""
    loaded = files.load(text)
    return [line.replace(f"{files.directory}", "DIR") for line in loaded.lines(unusable_places(loaded.settings))]


def test_folders_that_serve_could_not_use(files: Files) -> None:
    """A state_dir that is a file or below one, a folder of the socket that is not there; a new state_dir is fine."""
    here, file = files.directory, files.write("file", "")
    why = f"is not a directory, or user id {os.geteuid()} may not write to it"
    assert folder_errors(files, f"state_dir: {here}/new/state") == []
    assert folder_errors(files, f"state_dir: {here}\nhttp: {{socket: {here}/admin.sock}}") == []
    assert folder_errors(files, f"state_dir: {file}") == [f"DIR/config.yaml:1:1: state_dir: DIR/file {why}"]
    assert folder_errors(files, f"state_dir: {file}/below\nhttp: {{socket: {here}/none/admin.sock}}") == [
        f"DIR/config.yaml:1:1: state_dir: DIR/file {why}",
        f"DIR/config.yaml:2:8: http.socket: DIR/none {why}",
    ]
    assert folder_errors(files, f"state_dir: {here}\nhttp: {{socket: file}}") == [
        "DIR/config.yaml:2:8: http.socket: DIR/file is there and is no socket"
    ]
    assert folder_errors(files, f"state_dir: {here}\nhttp: {{socket: ''}}") == [
        "DIR/config.yaml:2:8: http.socket: DIR is there and is no socket"
    ]
    long = "s" * 107
    assert folder_errors(files, f"state_dir: {here}\nhttp: {{socket: {long}}}") == [
        f"DIR/config.yaml:2:8: http.socket: DIR/{long} is longer than the 107 bytes of a socket's path"
    ]
    (found,) = unusable_places(files.load(f"state_dir: {here}/state\npickup: {{a: {{directory: {file}}}}}").settings)
    assert (found.keys, found.text, found.fatal) == (("pickup", "a", "directory"), f"{file} {why}", False)
    assert folder_errors(files, "state_dir: /proc/self") == [f"DIR/config.yaml:1:1: state_dir: /proc/self {why}"]


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[text[:50] for text, _ in VALUES])
def test_a_wrong_setting(files: Files, text: str, expected: str) -> None:
    """One mistake gives one line, with file, line, column, dotted key and plain words."""
    assert files.errors(text) == [expected]


def test_errors_as_objects(files: Files) -> None:
    """Nothing of a line is lost in its parts, and most say what to do apart from what is wrong."""
    fixes = 0
    rows = VALUES[::4]
    for text, expected in rows:
        with pytest.raises(ConfigError) as caught:
            files.load(text)
        (found,) = objects(caught.value.lines)
        found = {key: str(value).replace(f"{files.directory}/", "") for key, value in found.items()}
        place = f"{found['file']}:{found['line']}:{found['column']}" if found["line"] != "0" else found["file"]
        whole = expected.partition(": ")[2] if found["key"] else expected
        assert place == expected.partition(": ")[0], text
        assert found["text"] in whole
        assert found["fix"] in whole
        fixes += bool(found["fix"])
    assert fixes > len(rows) * 0.6


def test_two_clients_with_one_user_name(files: Files) -> None:
    """Compared without case, and a client's own name is its user name where none is given."""
    both = f'a: {{user: B, password_hash: "{HASH}"}}, b: {{password_hash: "{HASH}"}}'
    errors = files.errors(f"clients: {{{both}}}")
    assert errors == ['config.yaml:1:132: clients.b.user: clients.a has the user name "b" already']
