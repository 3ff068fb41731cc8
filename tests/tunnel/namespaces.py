"""Network namespaces that have no name: the process that made them holds them by file descriptors.

So nothing is mounted or listed anywhere, two runs never collide, and when the process ends, by whatever cause, the
kernel takes namespaces, links and (see ``Namespace.start``) the programs inside away.
(Source: network_namespaces(7), setns(2), prctl(2) PR_SET_PDEATHSIG.)
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# IPv4 only, no filter by reverse path, and routers send no redirects (as VPC routers, and careful home routers, do).
_SYSCTLS = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # frames that a bridge passes are not the router's business
    "net/bridge/bridge-nf-call-iptables": "0",
}


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _own() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """One machine's network. ``with namespace:`` puts the calling thread into it; sockets made there stay there."""

    def __init__(self, name: str, *, forwarding: bool = False) -> None:
        self.name = name
        self._before = threading.local()
        home = _own()
        try:
            _check(_libc.unshare(_CLONE_NEWNET), f"make the network of {name}")
            try:
                self._descriptor = _own()
                self._write({**_SYSCTLS, "net/ipv4/ip_forward": "1" if forwarding else "0"})
            finally:
                _check(_libc.setns(home, _CLONE_NEWNET), "return from a network namespace")
        finally:
            os.close(home)
        self.ip("link set lo up")

    @property
    def path(self) -> str:
        """What ``ip link … netns PATH`` calls it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Namespace:
        self._before.descriptor = _own()
        _check(_libc.setns(self._descriptor, _CLONE_NEWNET), f"enter the network of {self.name}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _check(_libc.setns(self._before.descriptor, _CLONE_NEWNET), "return from a network namespace")
        os.close(self._before.descriptor)

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program to its end and return what it printed. AssertionError with its own words when it fails."""
        with self:
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{self.name}: {' '.join(argv)} failed: {done.stderr.strip()}\n{stdin}"
        return done.stdout

    def start(self, *argv: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program that the kernel kills when the thread that called this ends."""
        with self:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def ip(self, *lines: str) -> None:
        """Run lines of ``ip`` in order, up to the first that fails."""
        self.run("ip", "-batch", "-", stdin="".join(f"{line}\n" for line in lines))

    def nft(self, ruleset: str) -> None:
        self.run("nft", "-f", "-", stdin=ruleset)

    def packets(self, family: str, table: str) -> dict[str, int]:
        """The packets that the named counters of a table saw."""
        words = self.run("nft", "list", "counters", "table", family, table).split()
        names = [words[place + 1] for place, word in enumerate(words) if word == "counter"]
        counts = [int(words[place + 1]) for place, word in enumerate(words) if word == "packets"]
        return dict(zip(names, counts, strict=True))

    def sysctls(self, values: Mapping[str, str]) -> None:
        """Write kernel settings, for example ``net/ipv4/ip_forward`` -> ``1``."""
        with self:
            self._write(values)

    @staticmethod
    def _write(values: Mapping[str, str]) -> None:
        for key, value in values.items():
            setting = Path("/proc/sys") / key  # shows the namespace of the thread that opens it
            if setting.exists():
                setting.write_text(value)


def cable(one: Namespace, device: str, other: Namespace, far_device: str) -> None:
    """Join two namespaces by a pair of network cards, both up."""
    one.ip(f"link add {device} type veth peer name {far_device} netns {other.path}", f"link set {device} up")
    other.ip(f"link set {far_device} up")


def close_all(namespaces: Iterable[Namespace]) -> None:
    for namespace in namespaces:
        namespace.close()
