"""A name server in this process, over UDP and TCP. Strict: it answers only questions as a resolver may ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Zone = Mapping[str, Sequence[str]]  # "name" -> "KIND value", as in a zone file


class NameServer(asyncio.DatagramProtocol):
    """Names it does not know do not exist. Those that begin with "silent" get no answer, with "broken" SERVFAIL."""

    def __init__(self, zone: Zone) -> None:
        self.zone = {name.lower(): list(rows) for name, rows in zone.items()}
        self.asked: list[tuple[str, str, str]] = []
        self.faults: list[str] = []
        self.port = 0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self.answer(data, "udp")
        if answer is None:
            return
        wire = answer.to_wire(max_size=65535)
        if len(wire) > 512:  # RFC 1035, 4.2.1: as though no larger one could be sent, whatever EDNS says
            short = dns.message.make_response(dns.message.from_wire(data))
            short.flags |= dns.flags.TC
            wire = short.to_wire()
        self._transport.sendto(wire, addr)

    async def by_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            answer = self.answer(await reader.readexactly(length), "tcp")
            if answer is not None:
                wire = answer.to_wire(max_size=65535)
                writer.write(len(wire).to_bytes(2, "big") + wire)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    def answer(self, data: bytes, way: str) -> dns.message.Message | None:
        query = dns.message.from_wire(data)
        if len(query.question) != 1 or not query.flags & dns.flags.RD or query.question[0].rdclass != dns.rdataclass.IN:
            self.faults.append(query.to_text())
        [question] = query.question
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, way))
        if name.startswith("silent"):
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name.startswith("broken"):
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        self._fill(response, name, kind)
        return response

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(8):
            rows = self.zone.get(name)
            if rows is None:
                below = any(one.endswith(f".{name}") for one in self.zone)  # RFC 8020: an empty name exists
                response.set_rcode(dns.rcode.NOERROR if below else dns.rcode.NXDOMAIN)
                return
            found = [row.partition(" ")[2] for row in rows if row.split()[0] == kind]
            alias = [row.split()[1] for row in rows if row.startswith("CNAME ")]
            if found:
                response.answer.append(dns.rrset.from_text_list(f"{name}.", 300, "IN", kind, found))
            if found or not alias:
                return
            response.answer.append(dns.rrset.from_text(f"{name}.", 300, "IN", "CNAME", alias[0]))
            name = alias[0].rstrip(".").lower()


@asynccontextmanager
async def name_server(zone: Zone) -> AsyncIterator[NameServer]:
    server, loop = NameServer({"com": ["NS a.gtld-servers.net."], **zone}), asyncio.get_running_loop()
    by_tcp = await asyncio.start_server(server.by_tcp, "127.0.0.1", 0)
    server.port = by_tcp.sockets[0].getsockname()[1]
    by_udp, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", server.port))
    try:
        yield server
    finally:
        by_udp.close()
        by_tcp.close()
    assert server.faults == []
