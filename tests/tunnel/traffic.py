"""Traffic between namespaces, from Python: echo requests, a probe that sees outages, and checked transfers."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import select
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from tests.tunnel.namespaces import Namespace

_ECHO_REPLY, _UNREACHABLE, _ECHO, _TIME_EXCEEDED = 0, 3, 8, 11
_FRAGMENTATION_NEEDED = 4
# ip(7); Python has no names for them
_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_DONT_FRAGMENT, _MAY_FRAGMENT = 2, 0
_identifiers = itertools.cycle(range(1, 0xFFFF))
_BLOCK = 1 << 20
#: Seconds that a busy machine may add to the best figure of any drill (docs/vpn.md, "Measured").
TOLERANCE = 1.5


@dataclass(frozen=True)
class Answer:
    """What came back for an echo request. ``mtu`` is told with ``too big``; ``seconds`` with ``reply``."""

    kind: Literal["reply", "too big", "unreachable", "silence"]
    mtu: int = 0
    seconds: float = 0.0


SILENCE = Answer("silence")


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _echo(identifier: int, sequence: int, size: int) -> bytes:
    payload = b"\xa5" * (size + size % 2)
    head = struct.pack("!BBHHH", _ECHO, 0, 0, identifier, sequence)
    return (struct.pack("!BBHHH", _ECHO, 0, _checksum(head + payload), identifier, sequence) + payload)[: size + 8]


def _icmp(source: Namespace, *, dont_fragment: bool = False) -> socket.socket:
    with source:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DONT_FRAGMENT if dont_fragment else _MAY_FRAGMENT)
    raw.setblocking(False)
    return raw


def _understood(packet: bytes, identifier: int) -> tuple[Answer, int] | None:
    """The answer and its sequence number when an ICMP packet concerns our echo requests."""
    message = packet[(packet[0] & 15) * 4 :]
    kind, code, _, one, two = struct.unpack("!BBHHH", message[:8])
    if kind == _ECHO_REPLY and one == identifier:
        return Answer("reply"), two
    if kind == _UNREACHABLE:
        inner = message[8:]
        request = inner[(inner[0] & 15) * 4 :]
        their, sequence = struct.unpack("!HH", request[4:8])
        if request[0] == _ECHO and their == identifier:
            return (Answer("too big", two) if code == _FRAGMENTATION_NEEDED else Answer("unreachable")), sequence
    return None


def ping(
    source: Namespace, address: str, *, size: int = 56, dont_fragment: bool = False, timeout: float = 1.0
) -> Answer:
    """Send one echo request with ``size`` bytes of payload (the IP packet has 28 more) and wait for what comes back."""
    identifier = next(_identifiers)
    with _icmp(source, dont_fragment=dont_fragment) as raw:
        begin = time.monotonic()
        try:
            raw.sendto(_echo(identifier, 1, size), (address, 0))
        except OSError as error:
            return _refused(raw, address, error)
        while (left := begin + timeout - time.monotonic()) > 0:
            if select.select([raw], [], [], left)[0]:
                found = _understood(raw.recv(1 << 16), identifier)
                if found is not None:
                    return replace(found[0], seconds=time.monotonic() - begin)
    return SILENCE


def hop(source: Namespace, address: str, number: int, *, timeout: float = 1.0) -> str:
    """Address of the router that is ``number`` hops away on the way to ``address``; empty when it says nothing."""
    with _icmp(source) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, number)
        raw.sendto(_echo(next(_identifiers), 1, 56), (address, 0))
        limit = time.monotonic() + timeout
        while (left := limit - time.monotonic()) > 0:
            if select.select([raw], [], [], left)[0]:
                packet = raw.recv(1 << 16)
                if packet[(packet[0] & 15) * 4] == _TIME_EXCEEDED:
                    return socket.inet_ntoa(packet[12:16])
    return ""


def _refused(raw: socket.socket, address: str, error: OSError) -> Answer:
    """What the machine's own kernel says without sending anything."""
    if error.errno == errno.EMSGSIZE:
        raw.connect((address, 0))
        return Answer("too big", raw.getsockopt(socket.IPPROTO_IP, _IP_MTU))
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Answer("unreachable")
    raise error


def reaches(source: Namespace, address: str, *, tries: int = 3) -> bool:
    """Whether one of ``tries`` echo requests is answered by the far end."""
    return any(ping(source, address, timeout=0.5).kind == "reply" for _ in range(tries))


def knock(source: Namespace, address: str, port: int) -> None:
    """Try a TCP connection, for the packets it sends; whether it succeeds does not matter."""
    with source:
        connection = socket.socket()
    with connection, contextlib.suppress(OSError):
        connection.settimeout(0.3)
        connection.connect((address, port))


def udp_answer(source: Namespace, service: Namespace, address: str, *, bound_to: str = "", timeout: float = 1.0) -> str:
    """Where the answer of a UDP service comes from that ``source`` asks at ``address``; empty when none comes.

    ``bound_to``: the address that the service listens at; by default at all, as most do. Its answer has then the source
    address of the way back, whatever address it was asked at.
    """
    with service:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with source:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listener, client:
        listener.bind((bound_to, 0))
        listener.settimeout(timeout)
        client.settimeout(timeout)
        client.sendto(b"question", (address, listener.getsockname()[1]))
        try:
            listener.sendto(b"answer", listener.recvfrom(64)[1])
            answerer: str = client.recvfrom(64)[1][0]
        except TimeoutError:
            return ""
        return answerer


@dataclass(frozen=True)
class Transfer:
    """How a stream arrived."""

    size: int
    identical: bool
    seconds: float

    @property
    def megabits(self) -> float:
        """Mbit per second, counted at the receiver."""
        return self.size * 8 / self.seconds / 1e6


def transfer(
    source: Namespace, sink: Namespace, address: str, size: int, *, hashed: bool = True, patience: float = 10.0
) -> Transfer:
    """Send ``size`` random bytes over one TCP connection (CUBIC, as Windows) and compare SHA-256 at both ends.

    TimeoutError when nothing moves for ``patience`` seconds.
    """
    with sink:
        listener = socket.create_server(("0.0.0.0", 0))
    with source:
        sender = socket.socket()
    with listener, sender, ThreadPoolExecutor(1) as pool:
        for end in (listener, sender):
            end.settimeout(patience)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        receiving = pool.submit(_receive, listener, hashed, patience)
        sender.connect((address, listener.getsockname()[1]))
        digest = hashlib.sha256()
        block = memoryview(os.urandom(_BLOCK))
        left = size
        while left > 0:
            part = block[:left]
            sender.sendall(part)
            if hashed:
                digest.update(part)
            left -= len(part)
        sender.shutdown(socket.SHUT_WR)
        arrived, theirs, seconds = receiving.result()
    return Transfer(arrived, arrived == size and (not hashed or theirs == digest.digest()), seconds)


def _receive(listener: socket.socket, hashed: bool, patience: float) -> tuple[int, bytes, float]:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(patience)
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        digest = hashlib.sha256()
        begin, arrived = time.monotonic(), 0
        while count := connection.recv_into(buffer):
            arrived += count
            if hashed:
                digest.update(view[:count])
        return arrived, digest.digest(), time.monotonic() - begin


class Probe:
    """A packet every 50 ms to another machine, in a thread, until ``stop``; times are in monotonic seconds.

    Echo requests, so both sides send; or, with a ``sink``, UDP in one direction only, noticed where it arrives.
    """

    INTERVAL = 0.05

    def __init__(self, source: Namespace, address: str, sink: Namespace | None = None) -> None:
        self.arrivals: list[float] = []
        self._ended = threading.Event()
        if sink is None:
            self._identifier = next(_identifiers)
            self._sender = self._receiver = _icmp(source)
            self._target = (address, 0)
        else:
            self._identifier = 0
            with sink:
                self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._receiver.bind(("0.0.0.0", 0))
            with source:
                self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._target = (address, self._receiver.getsockname()[1])
        self.begin = self.end = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for sequence in itertools.count():
            if self._ended.is_set():
                return
            packet = _echo(self._identifier, sequence & 0xFFFF, 56) if self._identifier else b"one way"
            with contextlib.suppress(OSError):  # no route, no link: that is an outage, too
                self._sender.sendto(packet, self._target)
            due = time.monotonic() + self.INTERVAL
            while (left := due - time.monotonic()) > 0:
                if select.select([self._receiver], [], [], left)[0] and self._counts(self._receiver.recv(2048)):
                    self.arrivals.append(time.monotonic())

    def _counts(self, packet: bytes) -> bool:
        if not self._identifier:
            return True
        found = _understood(packet, self._identifier)
        return found is not None and found[0].kind == "reply"

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.end = time.monotonic()
        self._sender.close()
        self._receiver.close()

    def back(self, moment: float, *, within: float) -> float:
        """Wait for the first arrival after ``moment``; seconds from there, infinite when none comes."""
        while time.monotonic() < moment + within:
            found = next((arrival for arrival in self.arrivals if arrival > moment), None)
            if found is not None:
                return found - moment
            time.sleep(self.INTERVAL)
        return float("inf")

    def outage(self) -> float:
        """The longest time without an arrival, in seconds; to be asked after the ``with`` block."""
        times = [self.begin, *self.arrivals, self.end]
        return max(later - earlier for earlier, later in itertools.pairwise(times))
