"""Where Postfix sent mail: relayhost, tables by sender and recipient, their logins and TLS."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.migrate.found import Found, Route, Where, words
from gateway.migrate.postfix_files import Parameters, tables
from gateway.migrate.shapes import domain_pattern, port_of, put_smarthost
from gateway.migrate.sources import Source

_HOP = re.compile(r"(?P<mx>(?!\[)[^\[\]:\s]+|\[(?P<host>[^\]\s]+)\])(:(?P<port>[A-Za-z0-9-]+))?")
_SMTP = ("smtp", "relay", "smtps", "submission", "submissions")
_TLS = {"none": "none", "may": "starttls", "encrypt": "starttls", "verify": "starttls", "secure": "starttls"}


@dataclass(slots=True)
class _Out:
    found: Found
    parameters: Parameters
    logins: list[tuple[str, str, Where]] | None

    def backend(self, text: str, where: Where, *, wrapped: bool = False) -> str:
        """Of [host]:port. Raises BadSource."""
        if not (hop := _HOP.fullmatch(text)):
            raise where.bad("not a host, [host] or [host]:port")
        port = port_of(hop["port"] or ("465" if wrapped else "25"), where)
        if hop["host"] is None:
            what = f"Postfix asked the DNS which machines take mail for {hop['mx']} (no brackets); gateway does not"
            self.found.note("backends", where, what, f"host: one of those that dig mx {hop['mx']} shows")
            self.found.todo(f"{where.whole}: if {hop['mx']} is no machine, write the machine's name as host")
        return put_smarthost(
            self.found, (hop["host"] or hop["mx"]).removeprefix("IPv6:"), port, where, tls=self._tls(where, wrapped),
            login=self._login(text, hop["host"] or hop["mx"], where), ca=self._ca(),
        )  # fmt: skip

    def _ca(self) -> tuple[str, Where] | None:
        text = self.parameters.text("smtp_tls_CAfile")
        return (text, self.parameters.where("smtp_tls_CAfile")) if text.startswith("/") else None

    def _tls(self, where: Where, wrapped: bool) -> str:
        if wrapped or self.parameters.yes("smtp_tls_wrappermode"):
            return "implicit"
        level = self.parameters.text("smtp_tls_security_level")
        if not level:
            enforced, used = (self.parameters.yes(f"smtp_{one}_tls") for one in ("enforce", "use"))
            level = "verify" if enforced else "may" if used else "none"
        place = self.parameters.where("smtp_tls_security_level")
        if level == "may":
            what = "Postfix went without TLS where the server has none"
            self.found.note("backends", place, what, "tls: none for a server without STARTTLS and without a login")
            self.found.todo("gateway backend check NAME says whether the server has STARTTLS; if not, set its tls")
        elif level in ("encrypt", "dane", "dane-only", "fingerprint"):
            what = f"with {level} Postfix did not ask whether the certificate is of that name"
            self.found.note("backends", place, what, "gateway asks: ca_file and server_name, if it is not")
        return _TLS.get(level, "starttls")

    def _login(self, hop: str, host: str, where: Where, sender: str = "") -> tuple[str, str | None, Where] | None:
        if not self.parameters.yes("smtp_sasl_auth_enable"):
            return None
        if self.logins is None:
            user = self.parameters.where("smtp_sasl_password_maps")
            self.found.todo(f"{user.whole}: the table cannot be read; write username at the backends yourself")
            return ("CHANGE-ME", None, user)
        for wanted in (sender, hop, host, f"[{host}]", "*"):
            for key, value, place in self.logins:
                if wanted and key.lower() == wanted.lower():
                    name, _, password = value.partition(":")
                    return (name, password, Where(place.file, place.line, key if key != "*" else ""))
        return None


def ways_out(found: Found, parameters: Parameters, source: Source) -> None:
    """Backends and routes."""
    read = list(tables(parameters, "smtp_sasl_password_maps", source))
    rows = [row for one in read for row in one.rows or ()]
    out = _Out(found, parameters, rows if rows or not read else None)
    where = parameters.where("relayhost")
    main = tuple(out.backend(one, where) for one in parameters.list("relayhost"))
    main += tuple(out.backend(one, parameters.where("smtp_fallback_relay"))
                  for one in parameters.list("smtp_fallback_relay") if main)  # fmt: skip
    by_recipient = _by_recipient(out, source)
    by_sender = _by_sender(out, source)
    found.routes += [*by_recipient, *by_sender]
    if main:
        found.routes.append(Route(tuple(dict.fromkeys(main)), where=where))
    else:
        what = "Postfix delivered to the whole Internet by itself (no relayhost)"
        found.note("routes", where, what, "gateway hands mail to a provider: docs/backends.md")
    helo = parameters.text("smtp_helo_name")
    for name in found.names("backends") if helo else ():
        found.put(f"backends.{name}.local_hostname", helo, parameters.where("smtp_helo_name"))
    for name in ("smtp_tls_policy_maps", "sender_dependent_default_transport_maps"):
        if parameters.text(name):
            what = "it chose TLS or a transport for some destinations apart"
            found.note("backends", parameters.where(name), what, "tls, ca_file of a backend; senders of a route")
            found.todo(f"{parameters.where(name).whole}: not taken over; see tls of backends, and routes")


def _by_sender(out: _Out, source: Source) -> list[Route]:
    routes = []
    for one in tables(out.parameters, "sender_dependent_relayhost_maps", source):
        if one.rows is None or one.patterns:
            out.found.todo(f"sender_dependent_relayhost_maps: {one.spec} is not taken over; write routes yourself")
        for key, value, where in one.rows if one.rows and not one.patterns else ():
            if value and value.upper() != "DUNNO":
                name = out.backend(value, where)
                routes.append(Route((name,), senders=(domain_pattern(key),), where=where))
    return sorted(routes, key=lambda route: route.senders[0].startswith("*"))


def _by_recipient(out: _Out, source: Source) -> list[Route]:
    """The most special first, as Postfix looks: address, domain, .domain, *."""
    routes = []
    for one in tables(out.parameters, "transport_maps", source):
        if one.rows is None or one.patterns:
            out.found.todo(f"transport_maps: {one.spec} is not taken over; write routes yourself")
            continue
        for key, value, where in one.rows:
            kind, _, hop = value.partition(":")
            if kind in ("error", "discard", "retry"):
                continue  # the clients are switched off for it
            if kind not in _SMTP or not hop:
                what = f"mail to {key} went another way ({' '.join(words(value))})"
                out.found.note("routes", where, what, "gateway hands it to the backend of the last route")
                continue
            name = out.backend(hop, where, wrapped=kind in ("smtps", "submissions"))
            routes.append(Route((name,), recipients=(domain_pattern(key),), where=where))
    return sorted(routes, key=lambda route: _rank(route.recipients[0]))


def _rank(pattern: str) -> tuple[int, int]:
    kind = 3 if pattern == "*" else 2 if pattern.startswith("*@*.") else 1 if pattern.startswith("*") else 0
    return kind, -len(pattern)
