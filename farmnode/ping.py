r"""Echo requests through the system's own program: ``ping.exe`` of Windows, or iputils' ``ping`` on a Linux end.

``ping.exe`` with the documented switches ``-n`` count, ``-l`` size, ``-w`` milliseconds, ``-f`` (do not fragment),
``-i`` time to live (Microsoft Learn, "ping").  Its text is translated, and its exit code is 0 also when a router
answered "unreachable", so replies are told by ``TTL=``, which no translation changes, errors by the address that they
come from, and a packet that is too large by the letters ``DF``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from farmnode.errors import FarmNodeError
from farmnode.programs import Programs

_ADDRESS: Final = r"(\d{1,3}(?:\.\d{1,3}){3})"
_REPLY = re.compile(rf"{_ADDRESS}\D.*?(?:[=<]\s*(\d+)\s?ms)?\s*TTL\s?=\s?\d+", re.IGNORECASE)
_FASTER = re.compile(r"<\s*1\s?ms", re.IGNORECASE)
_TOO_LARGE = re.compile(r"\bDF\b")
_COMPLAINT = re.compile(rf"^\D*{_ADDRESS}\s?:\s*(\S.*)$")

_LINUX_REPLY = re.compile(rf"bytes from {_ADDRESS}: .*ttl=\d+ time=([\d.]+) ms")
_LINUX_COMPLAINT = re.compile(rf"^From {_ADDRESS}(?: icmp_seq=\d+| \(.*?\))* (\S.*)$")
_LINUX_MTU = re.compile(r"mtu ?= ?(\d+)")


@dataclass(frozen=True)
class Echo:
    """What came back: ``times`` in milliseconds, one for each reply; what routers said; whether DF stopped a packet."""

    sent: int
    times: tuple[float, ...] = ()
    complaints: tuple[tuple[str, str], ...] = ()
    too_large: bool = False
    mtu: int | None = None
    said: str = ""

    def as_json(self) -> dict[str, Any]:
        times = self.times
        return {
            "ok": self.sent == len(times),
            "sent": self.sent,
            "received": len(times),
            "ms": round(sum(times) / len(times), 2) if times else None,
            "complaints": [{"from": address, "text": text} for address, text in self.complaints],
            "too_large": self.too_large,
            "mtu": self.mtu,
            "said": self.said,
        }


def parse_windows(text: str, sent: int) -> Echo:
    """What ``ping.exe`` printed, in any language. A time of ``<1ms`` counts as half a millisecond."""
    times: list[float] = []
    complaints: list[tuple[str, str]] = []
    too_large = False
    said = ""
    # The first line names the target, the last block counts; between them is one line for each request.
    for line in _between(text):
        if reply := _REPLY.search(line):
            times.append(0.5 if _FASTER.search(line) else float(reply[2] or 0))
        elif _TOO_LARGE.search(line):
            too_large = True
        elif complaint := _COMPLAINT.match(line):
            complaints.append((complaint[1], complaint[2]))
        else:
            said = said or line
    return Echo(sent, tuple(times[:sent]), tuple(dict.fromkeys(complaints)), too_large, None, said[:200])


def _between(text: str) -> list[str]:
    """The lines of the replies: without heading and statistics, which are separated by blank lines."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            blocks[-1].append(line.strip())
        elif blocks[-1]:
            blocks.append([])
    first = blocks[0]
    # "Pinging 10.0.0.10 with 32 bytes of data:" ends with a colon in every language
    return first[1:] if first and first[0].endswith((":", "：")) else first  # noqa: RUF001 - Chinese and Japanese


def parse_linux(text: str, sent: int) -> Echo:
    """What iputils' ``ping`` printed in English."""
    times: list[float] = []
    complaints: list[tuple[str, str]] = []
    too_large = False
    mtu = None
    said = ""
    for line in (line.strip() for line in text.splitlines()):
        if reply := _LINUX_REPLY.search(line):
            times.append(float(reply[2]))
        elif "Frag needed" in line or "message too long" in line.lower():
            too_large = True
            found = _LINUX_MTU.search(line)
            mtu = int(found[1]) if found else mtu
        elif complaint := _LINUX_COMPLAINT.match(line):
            complaints.append((complaint[1], complaint[2]))
        elif line.startswith("ping:"):
            said = said or line
    return Echo(sent, tuple(times[:sent]), tuple(dict.fromkeys(complaints)), too_large, mtu, said[:200])


def windows(programs: Programs, address: str, *, count: int, size: int, df: bool, ttl: int | None, wait: float) -> Echo:
    """``ping.exe`` of the machine; ``wait`` is how many seconds a reply may take."""
    words = ["-4", "-n", str(count), "-l", str(size), "-w", str(round(wait * 1000))]
    words += ["-f"] if df else []
    words += ["-i", str(ttl)] if ttl is not None else []
    done = programs.run("ping.exe", [*words, address], timeout=count * (wait + 1.0) + 15.0)
    return parse_windows(done.stdout + done.stderr, count)


def linux(address: str, *, count: int, size: int, df: bool, ttl: int | None, wait: float) -> Echo:
    """``ping`` of the machine. FarmNodeError when it is not installed."""
    program = shutil.which("ping", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin:/usr/sbin:/sbin")
    if program is None:
        raise FarmNodeError("program", "ping is not installed here: sudo apt-get install iputils-ping")
    words = [program, "-4", "-n", "-c", str(count), "-s", str(size), "-W", str(max(1, round(wait))), "-i", "0.5"]
    words += ["-M", "do" if df else "dont"]
    words += ["-t", str(ttl)] if ttl is not None else []
    try:
        done = subprocess.run(
            [*words, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=count * (wait + 1.0) + 15.0,
            env={"LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FarmNodeError("program", f"ping {address} does not end") from None
    return parse_linux(done.stdout + done.stderr, count)
