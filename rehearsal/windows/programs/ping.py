"""ping.exe: real ICMP echo requests from the machine's network (reference: Microsoft, ping; layout as it prints).

Modelled: ``ping [-4] [-n count] [-l size] [-f] [-i TTL] [-w milliseconds] ADDRESS``.  A raw socket of the machine's
namespace sends them, so routes, path MTU, firewalls and whatever else is on the way are those of the rehearsal's
network.  The exit code is 0 when anything answered, also a router that says "unreachable": so does Windows.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import struct
import time
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address

from rehearsal.interfaces import Outcome
from rehearsal.network import netns
from rehearsal.windows.programs.base import Invocation, console, refuse

_ECHO_REPLY, _UNREACHABLE, _ECHO, _TIME_EXCEEDED = 0, 3, 8, 11
_FRAGMENTATION_NEEDED = 4
_TEXTS = {
    (_UNREACHABLE, 0): "Destination net unreachable.",
    (_UNREACHABLE, 1): "Destination host unreachable.",
    (_UNREACHABLE, 2): "Destination protocol unreachable.",
    (_UNREACHABLE, 3): "Destination port unreachable.",
    (_UNREACHABLE, 9): "Destination net unreachable.",
    (_UNREACHABLE, 10): "Destination host unreachable.",
    (_UNREACHABLE, 13): "Destination net unreachable.",
    (_TIME_EXCEEDED, 0): "TTL expired in transit.",
}
_IP_MTU_DISCOVER, _PMTUDISC_DONT, _PMTUDISC_DO = 10, 0, 2  # linux/in.h
_INTERVAL = 1.0  # seconds from one request to the next
_TOO_LARGE = "Packet needs to be fragmented but DF set."
_FAILED = "PING: transmit failed. General failure. "


@dataclass
class _Options:
    target: str = ""
    count: int = 4
    size: int = 32
    df: bool = False
    ttl: int = 128
    wait: float = 4.0  # seconds


@dataclass
class _Run:
    lines: list[str] = field(default_factory=list)
    received: int = 0
    times: list[int] = field(default_factory=list)


async def main(invocation: Invocation) -> Outcome:
    """See the text of this module."""
    try:
        options = _parse(invocation.arguments)
    except _Refused as refused:
        return refuse(invocation, str(refused))
    except _Bad as bad:
        return console(f"{bad}\n", 1)
    try:
        address = str(IPv4Address(options.target))
    except AddressValueError:
        return refuse(invocation, "only IPv4 addresses are modelled as targets")
    run = _Run()
    with _wire(invocation.host.platform.namespace, options) as wire:
        identifier = secrets.randbelow(0x10000)
        for sequence in range(1, options.count + 1):
            began = time.monotonic()
            await _one(wire, address, identifier, sequence, options, run)
            if sequence < options.count:
                await asyncio.sleep(max(0.0, _INTERVAL - (time.monotonic() - began)))
    return console(_page(address, options, run), 0 if run.received else 1)


def _wire(namespace: str, options: _Options) -> socket.socket:
    """A raw socket in the machine's network (icmp(7), ip(7))."""
    with netns.entered(namespace):
        wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    wire.setblocking(False)
    wire.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, options.ttl)
    wire.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO if options.df else _PMTUDISC_DONT)
    return wire


class _Refused(Exception):
    """Not modelled."""


class _Bad(Exception):
    """Windows itself refuses it, with this text."""


def _parse(words: list[str]) -> _Options:
    options = _Options()
    # option -> attribute, least, most (reference: Microsoft, ping; the ranges are those of its messages)
    numbers = {
        "n": ("count", 1, 4294967295),
        "l": ("size", 0, 65500),
        "i": ("ttl", 1, 255),
        "w": ("wait", 0, 4294967295),
    }
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith(("-", "/")):
            if options.target:
                raise _Bad(f"Bad parameter {word}.")
            options.target = word
            continue
        name = word[1:].lower()
        if name == "4":
            continue
        if name == "f":
            options.df = True
        elif name in numbers:
            attribute, least, most = numbers[name]
            if not rest:
                raise _Bad(f"Value must be supplied for option {word}.")
            text = rest.pop(0)
            if not text.isdigit() or not least <= int(text) <= most:
                raise _Bad(f"Bad value for option {word}, valid range is from {least} to {most}.")
            setattr(options, attribute, int(text) / 1000 if name == "w" else int(text))
        else:
            raise _Refused("only -4, -n, -l, -f, -i and -w are modelled")
    if not options.target:
        raise _Bad("IP address must be specified.")
    return options


async def _one(wire: socket.socket, address: str, identifier: int, sequence: int, options: _Options, run: _Run) -> None:
    """Send one request and write the line of what became of it."""
    _drain(wire)
    sent = time.perf_counter()
    try:
        wire.sendto(_request(identifier, sequence, options.size), (address, 0))
    except OSError as error:
        run.lines.append(_TOO_LARGE if error.errno == errno.EMSGSIZE else _FAILED)
        return
    try:
        async with asyncio.timeout(options.wait):
            line = await _answer(wire, identifier, sequence, options, run, sent)
    except TimeoutError:
        line = "Request timed out."
    run.lines.append(line)


async def _answer(
    wire: socket.socket, identifier: int, sequence: int, options: _Options, run: _Run, sent: float
) -> str:
    loop = asyncio.get_running_loop()
    while True:
        packet = await loop.sock_recv(wire, 0x10000)
        milliseconds = (time.perf_counter() - sent) * 1000
        header = (packet[0] & 15) * 4
        source = str(IPv4Address(packet[12:16]))
        kind, code = packet[header], packet[header + 1]
        body = packet[header:]
        if kind == _ECHO_REPLY and struct.unpack("!HH", body[4:8]) == (identifier, sequence):
            run.received += 1
            run.times.append(int(milliseconds))
            shown = f"time={int(milliseconds)}ms" if milliseconds >= 1 else "time<1ms"
            return f"Reply from {source}: bytes={options.size} {shown} TTL={packet[8]}"
        if kind in (_UNREACHABLE, _TIME_EXCEEDED) and len(body) >= 8 + 28:
            quoted = body[8:]
            inner = quoted[(quoted[0] & 15) * 4 :]
            if inner[0] != _ECHO or struct.unpack("!HH", inner[4:8]) != (identifier, sequence):
                continue
            if (kind, code) == (_UNREACHABLE, _FRAGMENTATION_NEEDED):
                return _TOO_LARGE
            run.received += 1  # Windows counts it: an answer came
            return f"Reply from {source}: {_TEXTS.get((kind, code), 'Destination net unreachable.')}"


def _drain(wire: socket.socket) -> None:
    """Forget answers to earlier requests, which came too late."""
    try:
        while wire.recv(0x10000):
            pass
    except BlockingIOError:
        return


def _request(identifier: int, sequence: int, size: int) -> bytes:
    data = bytes(0x61 + index % 23 for index in range(size))  # abcdefghijklmnopqrstuvw, as Windows sends
    checksum = _checksum(struct.pack("!BBHHH", _ECHO, 0, 0, identifier, sequence) + data)
    return struct.pack("!BBHHH", _ECHO, 0, checksum, identifier, sequence) + data


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = int(sum(struct.unpack(f"!{len(padded) // 2}H", padded)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _page(address: str, options: _Options, run: _Run) -> str:
    lost = options.count - run.received
    lines = ["", f"Pinging {address} with {options.size} bytes of data:", *run.lines, ""]
    lines += [
        f"Ping statistics for {address}:",
        f"    Packets: Sent = {options.count}, Received = {run.received}, Lost = {lost} "
        f"({lost * 100 // options.count}% loss),",
    ]
    if run.times:
        average = sum(run.times) // len(run.times)
        lines += [
            "Approximate round trip times in milli-seconds:",
            f"    Minimum = {min(run.times)}ms, Maximum = {max(run.times)}ms, Average = {average}ms",
        ]
    return "\n".join([*lines, ""])
