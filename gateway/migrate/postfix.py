"""Postfix: main.cf with master.cf beside it and the tables they name, or the output of postconf -n."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.migrate import postfix_doors, postfix_out
from gateway.migrate.found import Found, Where, first_of
from gateway.migrate.postfix_files import Parameters, Service, main_cf, master_cf, tables
from gateway.migrate.shapes import put_aliases
from gateway.migrate.sources import Source, read_source

# Read elsewhere, or without a meaning for who only passes mail on.
_SILENT = re.compile(
    r"(smtpd?_(tls|sasl|use_tls|enforce_tls|relay_restrictions|recipient_restrictions).*|.*_directory|mail_(owner|name)"
    r"|setgid_group|compatibility_level|biff|.*_path|smtpd_banner|readme.*|html.*|manpage.*|sample.*|debug.*"
    r"|my(hostname|domain|origin|networks|networks_style|destination)|inet_.*|relayhost|append_dot_mydomain"
    r"|message_size_limit|mailbox_size_limit|recipient_delimiter|meta_directory|shlib_directory|unknown_local.*"
    r"|smtp_helo_name|smtp_fallback_relay|maximal_queue_lifetime|smtpd_recipient_limit|smtpd_timeout"
    r"|smtpd_client_(message_rate|connection_count)_limit|anvil_rate_time_unit|sender_dependent_relayhost_maps"
    r"|transport_maps|(local_|virtual_)?alias_(maps|database)|(sender_|recipient_)?canonical_maps|smtp_generic_maps"
    r"|smtpd_(client|helo|sender|data|end_of_data)_restrictions|default_transport|relay_transport|relay_domains)"
)
_ADVICE = {
    "header_checks": (
        "it changed or refused mail by its header",
        "gateway changes no header; do it before or behind it",
    ),
    "body_checks": ("it refused mail by its text", "gateway does not look into mail; do it behind it"),
    "smtpd_milters": ("it handed mail to filters (DKIM, virus check)", "the provider signs; scan before or behind"),
    "non_smtpd_milters": ("it handed local mail to filters", "the provider signs; scan before or behind"),
    "content_filter": ("it sent mail through a filter first", "let the filter stand before gateway, as its client"),
    "masquerade_domains": ("it cut host names off addresses", "rewrite_sender of a client; docs/devices.md"),
    "always_bcc": ("it copied all mail", "a rule at the provider (journal)"),
    "sender_bcc_maps": ("it copied mail by sender", "a rule at the provider"),
    "recipient_bcc_maps": ("it copied mail by recipient", "a rule at the provider"),
    "smtpd_sender_login_maps": ("it said who may send as whom", "senders of each client"),
    "virtual_mailbox_domains": ("it kept mailboxes", "gateway has none: the provider has them"),
    "mailbox_transport": ("it kept mailboxes", "gateway has none: the provider has them"),
    "mailbox_command": ("it ran a program for each local mail", "gateway has no mailboxes"),
    "bounce_template_file": ("it had its own text for bounces", "bounces: in the settings"),
    "delay_warning_time": ("it told senders of delays", "retry.delay_notice, 4h by default"),
}


def read_postfix(source: Source, *, ipv6: bool = True) -> Found:
    """Raises BadSource."""
    found = Found("Postfix")
    parameters = main_cf(source)
    parameters.given.setdefault("myhostname", ("", Where(source.name)))
    master = None if source.folder is None else source.beside("master.cf")
    services = master_cf(master) if master else []
    if not services:
        services = [Service("smtp", {}, Where(source.name, 0, "port 25 (no master.cf)"))]
    _general(found, parameters)
    postfix_doors.doors(found, parameters, services, source, ipv6=ipv6)
    postfix_out.ways_out(found, parameters, source)
    _rewriting(found, parameters, source)
    _advice(found, parameters, source)
    return found


def postfix_source(path: Path) -> Source:
    """A folder such as /etc/postfix, or one file. Raises BadSource."""
    return read_source(path / "main.cf" if path.is_dir() else path)


def _general(found: Found, parameters: Parameters) -> None:
    if parameters.text("myhostname"):
        found.put("hostname", parameters.text("myhostname"), parameters.where("myhostname"))
    _number(found, parameters, "message_size_limit", "limits.max_size", "10240000", 256_000_000)
    for name, key in (
        ("smtpd_recipient_limit", "limits.max_recipients"),
        ("smtpd_client_connection_count_limit", "limits.connections_per_ip"),
    ):
        if parameters.has(name):
            _number(found, parameters, name, key, "0", 10**6)
    lifetime = parameters.text("maximal_queue_lifetime")
    if re.fullmatch("[1-9][0-9]{0,6}[smhdw]", lifetime):
        found.put("retry.lifetime", lifetime, parameters.where("maximal_queue_lifetime"))


def _number(found: Found, parameters: Parameters, name: str, key: str, default: str, most: int) -> None:
    text, where = parameters.text(name, default), parameters.where(name)
    if not re.fullmatch("[0-9]{1,15}", text):
        raise where.bad(f"{name}: not a number")
    if int(text) > most:
        found.note(key.partition(".")[0], where, f"{name} was {text}", f"{most} is the most that is sensible here")
    if int(text):
        found.put(key, min(int(text), most), where)


def _rewriting(found: Found, parameters: Parameters, source: Source) -> None:
    """Domains for names without one, and tables that change addresses."""
    origin, where = parameters.text("myorigin", "$myhostname"), parameters.where("myorigin")
    if origin.startswith("/"):
        file = source.beside(origin)
        origin = first_of(file.text.split()) if file else ""
    if origin:
        found.put("default_domain", origin, where, "completes names such as root")
    for name in ("sender_canonical_maps", "canonical_maps", "smtp_generic_maps"):
        for one in tables(parameters, name, source):
            _senders(found, parameters.where(name), one.rows, one.patterns)
    for name in ("alias_maps", "virtual_alias_maps"):
        for one in tables(parameters, name, source):
            if one.rows is None or one.patterns:
                what, instead = f"{one.spec} sent mail for some names elsewhere", "aliases: write them yourself"
                found.note("aliases", parameters.where(name), what, instead)
                found.todo(
                    f"{parameters.where(name).whole}: {one.spec} cannot be read here; write its aliases yourself"
                )
            put_aliases(found, one.rows or ())
    if any(keys[0] == "aliases" for keys in found.entries):
        names = parameters.list("mydestination", "$myhostname localhost.$mydomain localhost")
        local = tuple(
            one for one in dict.fromkeys(names) if "." in one.strip(".") and ":" not in one and "/" not in one
        )
        if local:
            found.put("local_domains", local, parameters.where("mydestination"))
        if delimiter := parameters.text("recipient_delimiter"):
            found.put("recipient_delimiter", delimiter, parameters.where("recipient_delimiter"))


def _senders(found: Found, where: Where, rows: list[tuple[str, str, Where]] | None, patterns: bool) -> None:
    everything = {"*", "/.*/", "/.+/", "/^.*$/", "/^.+$/", "/./"}
    for key, value, place in rows or ():
        if "@" in value and "$" not in value and (key in everything or (key.startswith("@") and len(rows or ()) == 1)):
            for client in found.names("clients"):
                rewrite = {"to": value, "when": "always"}
                found.put(f"clients.{client}.rewrite_sender", rewrite, place, "every sender becomes this")
            return
    shown = "; ".join(f"{key} -> {value}" for key, value, _ in (rows or ())[:20])
    what = f"it rewrote addresses ({shown or 'a table that cannot be read here'})"
    found.note("clients", where, what, "rewrite_sender of a client puts one address in the place of all others")
    found.todo(f"{where.whole}: rewritten addresses are not taken over; see clients, rewrite_sender")


def _advice(found: Found, parameters: Parameters, source: Source) -> None:
    if parameters.list("relay_domains"):
        what = "it took mail for these domains from anybody"
        found.note("clients", parameters.where("relay_domains"), what, "gateway takes mail from its clients only")
    for name, (_, where) in parameters.given.items():
        if name in _ADVICE and parameters.text(name):
            found.note("", where, *_ADVICE[name])
        elif not _SILENT.fullmatch(name):
            found.unread.append(name)
