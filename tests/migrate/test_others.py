"""Exim, SMTP2Graph, Email OAuth 2.0 Proxy and IIS: what their settings say becomes settings of ours."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from gateway.auth.passwords import hash_password
from tests.migrate.kit import PASSWORD, migrate, put, run

DEBIAN = """
    dc_eximconfig_configtype='smarthost'
    dc_other_hostnames='vm.example.com'
    dc_local_interfaces='127.0.0.1 ; ::1 ; 192.0.2.1.587'
    dc_readhost=''
    dc_relay_nets='192.0.2.0/24;2001:db8::/64'
    dc_smarthost='smtp.example.net::587;[192.0.2.9]::26'
"""


def test_exim_of_debian(tmp_path: Path) -> None:
    """Two smarthosts are tried in their order; in passwd.client :: is a colon and ^^ a ^."""
    secret = PASSWORD.replace(":", "::").replace("^", "^^")
    put(
        tmp_path,
        **{
            "exim4---u": DEBIAN,
            "exim4---passwd__client": f"*.example.net:relay:{secret}",
            "mailname": "example.com",
            "aliases": "root: admin@example.com\n",
        },
    )
    done = run("exim", tmp_path / "exim4" / "u", "--write", str(tmp_path / "gw.yaml"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "smart.pw").read_text() == f"{PASSWORD}\n"
    settings = migrate("exim", tmp_path / "exim4" / "u").loaded(tmp_path).settings
    assert [one.bind for one in settings.listeners.values()] == ["127.0.0.1:25", "[::1]:25", "192.0.2.1:587"]
    assert list(map(str, settings.clients["network"].networks)) == ["192.0.2.0/24", "2001:db8::/64"]
    assert settings.default_domain == "example.com"
    assert settings.aliases == {"root": ("admin@example.com",)}
    assert settings.routes[-1].backend == ("smart", "b_192_0_2_9")
    assert settings.backends["smart"].username == "relay"


def test_exim_of_ones_own(tmp_path: Path) -> None:
    conf = """
        SMART = smtp.example.net
        hostlist relay_from_hosts = <; 127.0.0.1 ; ::1 ; 192.0.2.0/24
        qualify_domain = example.com
        daemon_smtp_ports = 25 : 465
        tls_on_connect_ports = 465
        tls_certificate = /etc/exim/cert.pem
        message_size_limit = 20M
        begin acl
        check_rcpt:
          accept hosts = +relay_from_hosts
          deny senders = *@evil.example
        begin routers
        smart:
          driver = manualroute
          domains = ! +local_domains
          transport = out
          route_list = * SMART \\
             byname
        begin transports
        out:
          driver = smtp
          port = 587
        begin authenticators
        plain:
          driver = plaintext
          client_send = ^relay^pw
    """
    settings = migrate("exim", put(tmp_path, e=conf) / "e").loaded(tmp_path).settings
    assert {(one.bind, one.tls) for one in settings.listeners.values()} == {
        ("0.0.0.0:25", "starttls"), ("0.0.0.0:465", "implicit")}  # fmt: skip
    smart = settings.backends["smart"]
    assert (smart.host, smart.port, smart.username) == ("smtp.example.net", 587, "relay")
    refusing = conf.replace("accept hosts", "deny senders = *@x.example\n          accept hosts")
    assert not migrate("exim", put(tmp_path, e=refusing) / "e").loaded(tmp_path).settings.clients


GRAPH = f"""
    mode: full
    send:
      appReg:
        tenant: contoso
        id: 01234567-89ab-cdef-0123-456789abcdef
        secret: {PASSWORD}
      forceMailbox: relay@example.com
    receive:
      port: 2525
      ipWhitelist: [127.0.0.1, 192.0.2.0/24]
      allowedFrom: [noreply@example.com]
      maxSize: 25m
      users:
        - {{username: Copier, password: "P@ssword!"}}
    httpProxy: {{host: proxy, port: 3128}}
"""


def test_smtp2graph(tmp_path: Path) -> None:
    """Its users keep their passwords, as hashes."""
    target = tmp_path / "gw" / "config.yaml"
    target.parent.mkdir()
    done = run("smtp2graph", put(tmp_path, c=GRAPH) / "c", "--write", str(target))
    assert done.exit_code == 0
    assert PASSWORD not in done.output + target.read_text()
    assert (target.parent / "graph.secret").read_text() == f"{PASSWORD}\n"
    settings = migrate("smtp2graph", tmp_path / "c").loaded(tmp_path).settings
    office = settings.backends["office"]
    assert (office.tenant, office.mailbox) == ("contoso.onmicrosoft.com", "relay@example.com")
    assert set(office.senders) == {"relay@example.com", "noreply@example.com"}
    assert settings.clients["network"].senders == ("noreply@example.com",) == settings.clients["copier"].senders
    assert (settings.clients["copier"].user, len(settings.clients["copier"].networks)) == ("Copier", 2)
    made = (target.parent / "copier.hash").read_text().strip()
    salt = b64decode(made.split("$")[3] + "==")
    assert hash_password("P@ssword!", salt) == made
    assert {file.stat().st_mode & 0o777 for file in target.parent.iterdir()} == {0o600}


PROXY = f"""
    [SMTP-1587]
    server_address = smtp-mail.outlook.com
    server_port = 587
    local_address = 127.0.0.1
    [IMAP-1993]
    server_address = outlook.office365.com
    server_port = 993
    [noreply@example.com]
    token_url = https://login.microsoftonline.com/0a1b2c3d-89ab-cdef-0123-456789abcdef/oauth2/v2.0/token
    oauth2_scope = https://outlook.office365.com/.default
    oauth2_flow = client_credentials
    client_id = 01234567-89ab-cdef-0123-456789abcdef
    client_secret = {PASSWORD}
    [me@example.org]
    token_url = https://oauth2.googleapis.com/token
    client_id = x
    client_secret = y
"""


def test_email_oauth2_proxy(tmp_path: Path) -> None:
    """Each account sends as itself and by its own way out only."""
    found = migrate("email-oauth2-proxy", put(tmp_path, c=PROXY) / "c")
    settings = found.loaded(tmp_path).settings
    assert {(one.type, one.preset) for one in settings.backends.values()} == {("smtp", "office365"), ("smtp", "gmail")}
    assert "SendAsApp" not in found.left
    assert [(one.user, one.senders, one.backend) for one in settings.clients.values()] == [
        ("noreply@example.com", ("noreply@example.com",), "noreply_example_com"),
        ("me@example.org", ("me@example.org",), "me_example_org"),
    ]
    assert [one.auth for one in settings.listeners.values()] == ["required"]
    assert "IMAP" in found.text


METABASE = """
    <?xml version ="1.0"?>
    <configuration xmlns="urn:microsoft-catalog:XML_Metabase_V64_0">
    <IIsSmtpService Location ="/LM/SmtpSvc" MaxMessageSize="2097152"></IIsSmtpService>
    <IIsSmtpServer Location ="/LM/SmtpSvc/1"
      RelayIpList="{list}"
      RouteAction="268"
      RouteUserName="relay"
      RoutePassword="49634462"
      ServerBindings=":25:"
      SmartHost="smtp.example.net"
    ></IIsSmtpServer>
    </configuration>
"""
# As the dialog writes it for 127.0.0.1 alone (salt, win_smtp_server.set_relay_ip_list).
ONE = (24, 32, 60, 68), (1, 0, 0, 0, 76, 0, 0, 0, *[0] * 8, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0,
       0, 0, 0, 0, 76, 0, 0, 128, *[0] * 16, 255, 255, 255, 255, 127, 0, 0, 1)  # fmt: skip
RELAY = [*(byte for offset in ONE[0] for byte in (offset, 0, 0, 128)), *ONE[1]]


def test_iis(tmp_path: Path) -> None:
    """The metabase; the encrypted password is asked for."""
    found = migrate("iis", put(tmp_path, m=METABASE.replace("{list}", bytes(RELAY).hex())) / "m")
    settings = found.loaded(tmp_path).settings
    assert list(map(str, settings.clients["localhost"].networks)) == ["127.0.0.1/32"]
    smart = settings.backends["smart"]
    assert (smart.host, smart.port, smart.tls, smart.username) == ("smtp.example.net", 25, "starttls", "relay")
    assert settings.limits.max_size == 2_097_152
    assert "49634462" not in found.text + found.left


def listed(octets: list[int], at: int = 1000) -> str:
    """As PowerShell prints it, on a new line behind so many."""
    first, rest = (", ".join(map(str, part)) for part in (octets[:at], octets[at:]))
    return f"RelayIpList : {{{first}" + (f",\n      {rest}" if rest else "") + "}\n"


GRANTS = "IPGrant : 192.0.2.0, 255.255.255.0\nIPGrant : 10.0.0.1, 255.255.255.255\n"
LISTED = {
    "ipgrant": (GRANTS, ["10.0.0.1/32", "192.0.2.0/24"]),
    "wrapped": (listed(RELAY, 40), ["127.0.0.1/32"]),
    "masks that nobody documents": (listed([*RELAY[:76], 255, 255, 0, 0, 10, 1, 0, 0]), []),
    "all but these": ("RelayIpList : {}\n", []),
}


@pytest.mark.parametrize("case", LISTED)
def test_what_powershell_prints(tmp_path: Path, case: str) -> None:
    """A list that cannot be read with certainty lets nobody in."""
    lines, networks = LISTED[case]
    found = migrate("iis", "-", stdin=f"SmartHost : smtp.example.net\n{lines}")
    clients = found.loaded(tmp_path).settings.clients
    assert [str(network) for one in clients.values() for network in one.networks] == networks
    assert bool(networks) or "Access, Relay" in found.left


WRONG = {
    "exim": ("dc_eximconfig_configtype='smarthost'\nfoo bar\n", ":2: "),
    "smtp2graph": ("send: {appReg: {tenant: [x]}}\n", ":1: must be text"),
    "email-oauth2-proxy": ("[a@b]\nx\n", ":2: not an INI file"),
    "iis": ("<a>\n<b></a>", ":2: not XML"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, kind: str) -> None:
    text, said = WRONG[kind]
    done = run(kind, put(tmp_path, c=text) / "c")
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr


def test_entities_are_refused() -> None:
    """A file of a few lines must not become gigabytes."""
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n<x>&b;</x>'
    assert "DOCTYPE" in run("iis", "-", stdin=bomb).stderr
