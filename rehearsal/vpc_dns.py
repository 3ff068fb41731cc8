"""The resolver of a VPC: names of instances, as EC2 gives them.

Source: Amazon VPC User Guide, "DNS attributes for your VPC": the resolver answers at 169.254.169.253; a public name is
the private address for who asks from inside the VPC, and the public one for everybody else.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Final

from rehearsal.interfaces import InstanceView

ADDRESS: Final = IPv4Address("169.254.169.253")
PORT: Final = 53
SETTINGS: Final = f"nameserver {ADDRESS}\n"
"""What resolv.conf(5) says on a machine that asks here."""

_HEAD = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_A, _IN = 1, 1
_REPLY, _NO_SUCH_NAME = 0x8180, 3  # an answer to a recursive query; RFC 1035, section 4.1.1
_TTL = 60

Lookup = Callable[[str], IPv4Address | None]


def public_name(address: IPv4Address, region: str) -> str:
    """The public name of an instance with that public address."""
    domain = "compute-1" if region == "us-east-1" else f"{region}.compute"
    return f"ec2-{str(address).replace('.', '-')}.{domain}.amazonaws.com"


def private_name(address: IPv4Address, region: str) -> str:
    """The private name of an instance (EC2 User Guide, "EC2 instance hostnames": IP name)."""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{str(address).replace('.', '-')}.{domain}"


def resolve(name: str, instances: Iterable[InstanceView], vpc_id: str) -> IPv4Address | None:
    """The address of ``name`` for who asks from the VPC ``vpc_id``; None when nobody has that name."""
    wanted = name.lower().rstrip(".")
    for instance in instances:
        interface, inside = instance.interface, instance.interface.vpc_id == vpc_id
        if instance.state == "terminated":
            continue
        if inside and wanted == private_name(interface.private_address, instance.region):
            return interface.private_address
        if interface.public_address and wanted == public_name(interface.public_address, instance.region):
            return interface.private_address if inside else interface.public_address
    return None


def answer(query: bytes, lookup: Lookup) -> bytes | None:
    """The reply to one query (RFC 1035), with IPv4 addresses only; None to what is no query with one question."""
    if len(query) < _HEAD.size:
        return None
    number, flags, questions, *_ = _HEAD.unpack_from(query)
    end = query.find(b"\0", _HEAD.size) + 1
    if flags & 0x8000 or questions != 1 or not end or len(query) < end + _QUESTION.size:
        return None
    question = query[_HEAD.size : end + _QUESTION.size]
    address = lookup(_text(question))
    known = address is not None and _QUESTION.unpack_from(query, end) == (_A, _IN)
    head = _HEAD.pack(number, _REPLY | (0 if address else _NO_SUCH_NAME), 1, int(known), 0, 0)
    # the name of the answer is a pointer to the one of the question, which begins at byte 12
    record = struct.pack("!HHHIH4s", 0xC00C, _A, _IN, _TTL, 4, address.packed) if address and known else b""
    return head + question + record


def _text(question: bytes) -> str:
    labels, rest = [], question
    while rest and rest[0]:
        labels.append(rest[1 : 1 + rest[0]].decode("ascii", "replace"))
        rest = rest[1 + rest[0] :]
    return ".".join(labels)


class Resolver(asyncio.DatagramProtocol):
    """Answers on a socket that is bound already."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = answer(data, self._lookup)
        if reply is not None:
            self._transport.sendto(reply, addr)
