"""Postfix's main.cf, master.cf and tables become settings that do the same, and let no more through."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.migrate.kit import PASSWORD, migrate, put, run

MAIN = """
    # as Debian writes it
    compatibility_level = 3.6
    biff = no
    myhostname = relay.$mydomain
    mydomain = example.com
    myorigin = $mydomain
    relayhost = [smtp.example.net]:587
    smtp_sasl_auth_enable = yes
    smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd
    smtp_tls_security_level = encrypt
    mynetworks = 127.0.0.0/8 [::1]/128
        # a comment within
        192.0.2.0/24
    message_size_limit = 20480000
    inet_interfaces = all
    inet_protocols = ipv4
"""
MASTER = """
    smtp      inet  n       -       y       -       -       smtpd
    submission inet n       -       y       -       -       smtpd
      -o smtpd_tls_security_level=encrypt
      -o smtpd_sasl_auth_enable=yes
      -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
    pickup    unix  n       -       y       60      1       pickup
"""
SASL = f"[smtp.example.net]:587 relay@example.com:{PASSWORD}\n"
TLS = "    smtpd_tls_cert_file = /etc/ssl/relay.pem\n    smtpd_tls_key_file = /etc/ssl/relay.key\n"


def test_a_relay_with_a_login(tmp_path: Path) -> None:
    """Doors, clients, way out, login and limits, each line with its place; the password stays out."""
    found = migrate("postfix", put(tmp_path, main__cf=MAIN + TLS, master__cf=MASTER, sasl_passwd=SASL))
    settings = found.loaded(tmp_path).settings
    assert settings.hostname == "relay.example.com"
    assert {name: (one.bind, one.tls, one.auth) for name, one in settings.listeners.items()} == {
        "smtp": ("0.0.0.0:25", "none", "off"),
        "submission": ("0.0.0.0:587", "starttls", "required"),
    }
    assert list(map(str, settings.clients["network"].networks)) == ["192.0.2.0/24"]
    assert settings.default_domain == "example.com"
    smart = settings.backends["smart"]
    assert (smart.host, smart.port, smart.tls, smart.username) == (
        "smtp.example.net",
        587,
        "starttls",
        "relay@example.com",
    )
    assert settings.limits.max_size == 20_480_000
    assert "main.cf:7: relayhost" in found.text
    assert "password mint" in found.left


OPEN = ["0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1", "[::]/0", "8.0.0.0/5", "!10.1.0.0/16 0.0.0.0/0"]


@pytest.mark.parametrize("networks", OPEN)
def test_no_relay_becomes_open(tmp_path: Path, networks: str) -> None:
    """What is the Internet is left out, and said."""
    main = f"mynetworks = 127.0.0.0/8 192.0.2.0/24 {networks}\nrelayhost = [192.0.2.1]\n"
    found = migrate("postfix", put(tmp_path, main__cf=main, master__cf=MASTER))
    assert "not taken over" in found.text
    assert "is the Internet" in found.left
    assert list(map(str, found.loaded(tmp_path).settings.clients["network"].networks)) == ["192.0.2.0/24"]
    assert "open_relay" not in found.text


CLOSED = {
    "excluded before": ("mynetworks = !192.0.2.7 192.0.2.0/24", ["192.0.2.7"]),
    "a cidr table": (
        "mynetworks = 192.0.2.0/24\nsmtpd_client_restrictions = check_client_access cidr:x",
        ["192.0.2.9"],
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_who_was_shut_out_stays_out(tmp_path: Path, case: str) -> None:
    """!address, and networks that a table refuses."""
    lines, shut = CLOSED[case]
    put(tmp_path, main__cf=f"{lines}\nrelayhost = [192.0.2.1]\n", master__cf=MASTER, x="192.0.2.9 REJECT no\n")
    networks = migrate("postfix", tmp_path).loaded(tmp_path).settings.clients["network"].networks
    inside = [host for host in (*shut, "192.0.2.8") if any(ip_address(host) in one for one in networks)]
    assert inside == ["192.0.2.8"]


REFUSALS = {
    "recipients": "smtpd_recipient_restrictions = check_recipient_access hash:x",
    "senders that cannot be read": "smtpd_sender_restrictions = check_sender_access mysql:/etc/postfix/x.cf",
    "transport": "transport_maps = hash:y",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_without_an_equivalent_switch_clients_off(tmp_path: Path, case: str) -> None:
    """Until a person has decided, nothing is let through that was refused."""
    main = f"mynetworks = 192.0.2.0/24\nrelayhost = [192.0.2.1]\n{REFUSALS[case]}\n"
    put(tmp_path, main__cf=main, master__cf=MASTER, x="a@example.com REJECT\n", y="a.example error:gone\n")
    found = migrate("postfix", tmp_path)
    assert "network" not in found.loaded(tmp_path).settings.clients
    assert "switched off" in found.left
    assert "#network:" in found.text


def test_routes_by_recipient_and_sender(tmp_path: Path) -> None:
    """transport_maps before sender_dependent_relayhost_maps before relayhost, special before general."""
    main = """
        mynetworks = 192.0.2.0/24
        relayhost = [192.0.2.1] [192.0.2.2]:2525
        transport_maps = hash:transport
        sender_dependent_relayhost_maps = hash:by_sender
    """
    transport = ".example.org smtp:[10.0.0.1]\nexample.org\trelay:[10.0.0.2]:26\na@example.org smtp:[10.0.0.3]\n"
    put(tmp_path, main__cf=main, transport=transport, by_sender="@b.example [10.0.0.4]:587\nx@b.example [10.0.0.5]\n")
    routes = migrate("postfix", tmp_path).loaded(tmp_path).settings.routes
    assert [(one.recipients, one.senders, one.backend) for one in routes] == [
        (("a@example.org",), (), ("b_10_0_0_3",)),
        (("*@example.org",), (), ("b_10_0_0_2",)),
        (("*@*.example.org",), (), ("b_10_0_0_1",)),
        ((), ("x@b.example",), ("b_10_0_0_5",)),
        ((), ("*@b.example",), ("b_10_0_0_4",)),
        ((), (), ("smart", "b_192_0_2_2")),
    ]


def test_the_output_of_postconf(tmp_path: Path) -> None:
    """postconf -n | gateway migrate-from postfix -"""
    found = migrate("postfix", "-", stdin="relayhost = [192.0.2.1]:2525\nmynetworks = 127.0.0.0/8\n")
    assert found.loaded(tmp_path).settings.backends["smart"].port == 2525


def test_one_sender_for_all(tmp_path: Path) -> None:
    main = "mynetworks = 192.0.2.0/24\nrelayhost = [192.0.2.1]\nsender_canonical_maps = regexp:all\n"
    found = migrate("postfix", put(tmp_path, main__cf=main, all="/.+/ scan@example.com\n"))
    rewrite = found.loaded(tmp_path).settings.clients["network"].rewrite_sender
    assert rewrite
    assert (rewrite.to, rewrite.when) == ("scan@example.com", "always")


def test_aliases(tmp_path: Path) -> None:
    """/etc/aliases and virtual ones; a pipe, and what leads nowhere, is said."""
    main = "mynetworks = 192.0.2.0/24\nrelayhost = [192.0.2.1]\nmydestination = vm.example.com, localhost\n"
    main += "alias_maps = hash:aliases\nvirtual_alias_maps = hash:virtual\n"
    aliases = "postmaster: root\nroot: admin@example.com, night@example.com\nnews: |/bin/news\nlost: nobody\n"
    put(tmp_path, main__cf=main, aliases=aliases, virtual="old@example.com new@example.com\n")
    found = migrate("postfix", tmp_path)
    settings = found.loaded(tmp_path).settings
    assert settings.aliases == {
        "postmaster": ("root",),
        "root": ("admin@example.com", "night@example.com"),
        "old@example.com": ("new@example.com",),
    }
    assert settings.local_domains == ("vm.example.com",)
    assert "news" in found.left
    assert "lost" in found.left


WRONG = {
    "no equals sign": ("relayhost", "main.cf:1: not a setting"),
    "a port": ("a = b\nrelayhost = [a.example]:no", 'main.cf:2: "no" is no port'),
    "a network": ("mynetworks = 10.0.0.0.0/8", "main.cf:1: "),
    "itself": ("a = $b\nb = $a\nrelayhost = $a", "refers to itself"),
    "a file that is not there": ("mynetworks = /nowhere/networks", "may not be guessed"),
    "NUL": ("relayhost = \0", "not a text file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, case: str) -> None:
    text, said = WRONG[case]
    done = run("postfix", put(tmp_path, main__cf=text))
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
