"""The resolver of a VPC."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from rehearsal import vpc_dns
from tests.unit.rehearsal.views import VPC, instance, interface

PUBLIC = IPv4Address("198.18.20.5")
MANAGER = instance(1, interface=replace(interface(1), public_address=PUBLIC))
NAME = "ec2-198-18-20-5.eu-central-1.compute.amazonaws.com"
OWN_NAME = "ip-10-0-0-11.eu-central-1.compute.internal"


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    ("name", "vpc", "expected"),
    [
        (NAME, VPC, "10.0.0.11"),
        (NAME.upper() + ".", VPC, "10.0.0.11"),
        (NAME, "vpc-other", "198.18.20.5"),
        (OWN_NAME, VPC, "10.0.0.11"),
        (OWN_NAME, "vpc-other", None),
        ("ec2-198-18-20-6.eu-central-1.compute.amazonaws.com", VPC, None),
        ("studio.example.net", VPC, None),
    ],
)
def test_who_asks_from_inside_gets_the_private_address(name: str, vpc: str, expected: str | None) -> None:
    assert vpc_dns.resolve(name, [instance(2), MANAGER], vpc) == (expected and IPv4Address(expected))


def test_a_terminated_instance_has_no_name() -> None:
    assert vpc_dns.resolve(NAME, [replace(MANAGER, state="terminated")], VPC) is None


def test_names_in_us_east_1_differ() -> None:
    assert vpc_dns.public_name(PUBLIC, "us-east-1") == "ec2-198-18-20-5.compute-1.amazonaws.com"
    assert vpc_dns.private_name(IPv4Address("10.0.0.1"), "us-east-1") == "ip-10-0-0-1.ec2.internal"


def test_reply_as_the_protocol_has_it() -> None:
    def lookup(name: str) -> IPv4Address | None:
        return PUBLIC if name == NAME else None

    found = vpc_dns.answer(query(NAME), lookup)
    assert found is not None and struct.unpack_from("!6H", found) == (7, 0x8180, 1, 1, 0, 0)
    assert found[12:].startswith(query(NAME)[12:]) and socket.inet_ntoa(found[-4:]) == str(PUBLIC)
    no_ipv6 = vpc_dns.answer(query(NAME, kind=28), lookup)  # the name is there, only not this kind of address
    assert no_ipv6 is not None and struct.unpack_from("!6H", no_ipv6) == (7, 0x8180, 1, 0, 0, 0)
    unknown = vpc_dns.answer(query("nobody"), lookup)
    assert unknown is not None and struct.unpack_from("!6H", unknown) == (7, 0x8183, 1, 0, 0, 0)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 11, query(NAME)[:20], query(NAME)[:-1], b"\0\1\x81\x80" + query("x")[4:]]
)
def test_what_is_no_query_is_not_answered(data: bytes) -> None:
    assert vpc_dns.answer(data, lambda name: PUBLIC) is None
