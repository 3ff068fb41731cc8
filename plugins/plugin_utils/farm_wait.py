# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the nodes of a farm come up, judged from three sources: the manager's list, EC2's states, the nodes' last words.

Everything here is pure; `renderfarm.cloud.farm_wait` asks and shows.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from . import farmnode

#: Columns of the lines with the names of missing nodes.
_WIDTH = 100

#: What differs between nodes with the same trouble: their own name, MAC address and handle, and how long it took.
_OWN = re.compile(r"ip-[0-9-]+|[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}|[0-9A-F]{12}0000|\d+(?:\.\d+)? s(?:econds)?\b")


#: What is said of a node whose last words nobody asked for.
_UNREAD = "its console was not read"


class Stand(StrEnum):
    """How far a node is."""

    REGISTERED = "registered"
    BOOTING = "booting"
    FAILED = "failed"


@dataclass(frozen=True)
class Node:
    """A node that shall register."""

    name: str
    mac: str
    instance: str

    def __str__(self) -> str:
        return f"{self.name} {self.instance}"


@dataclass(frozen=True)
class Status:
    """How a node stands; ``short`` is the reason in a few words, ``reason`` all that is known."""

    node: Node
    stand: Stand
    short: str = ""
    reason: str = ""


def nodes(given: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The nodes of the module's option. ValueError names what is wrong with one."""
    made = [Node(str(each["name"]), farmnode.normal_mac(str(each["mac"])), str(each["instance"])) for each in given]
    for mac in {node.mac for node in made}:
        same = [str(node) for node in made if node.mac == mac]
        if len(same) > 1:
            raise ValueError(f"{', '.join(same)} have the same MAC address {mac}: for Backburner they are one server")
    return made


def judge(
    wanted: Sequence[Node],
    servers: Sequence[Mapping[str, Any]],
    states: Mapping[str, tuple[str, str]],
    events: Mapping[str, Mapping[str, Any]],
    read: Collection[str],
) -> list[Status]:
    """How each node stands.

    ``states`` is what EC2 says of an instance: state and reason.  ``events`` are last words.  What they lack is not
    known.  ``read`` are the instances whose consoles were read: only of these is it known that they say nothing.
    """
    there = set(farmnode.registered(servers))
    return [
        _judge(node, node.mac in there, states.get(node.instance), events.get(node.instance), node.instance in read)
        for node in wanted
    ]


def _judge(
    node: Node, registered: bool, state: tuple[str, str] | None, event: Mapping[str, Any] | None, read: bool
) -> Status:
    if registered:
        return Status(node, Stand.REGISTERED)
    if state is not None and state[0] not in ("pending", "running") and not _tells_why(event):
        reason = f"the instance is {state[0]}: {state[1] or 'EC2 gives no reason'}"
        return Status(node, Stand.FAILED, state[0], reason if read else f"{reason.rstrip('.')}; {_UNREAD}")
    if event is None:
        return Status(node, Stand.BOOTING, "", "says nothing yet" if read else _UNREAD)
    said, reason = str(event["event"]), str(event.get("reason", ""))
    if said == "failed":
        code, phase = str(event.get("code", said)), str(event.get("phase", "unknown"))
        return Status(node, Stand.FAILED, code.replace("_", " "), f"{code} in phase {phase}: {reason}")
    if said == "waiting":
        short = f"waits in phase {event.get('phase', 'unknown')}"
        return Status(node, Stand.BOOTING, short, f"{short}: {reason}")
    if state is not None and state[0] not in ("pending", "running"):
        return Status(node, Stand.FAILED, said.replace("_", " "), f"{said}: {reason}")
    return Status(node, Stand.BOOTING, said, f"says {said}, but the manager does not list it")


def _tells_why(event: Mapping[str, Any] | None) -> bool:
    """Whether last words say why their machine ended."""
    return event is not None and event["event"] not in ("ready", "waiting")


def possible(statuses: Sequence[Status], wanted: int) -> bool:
    """Whether ``wanted`` nodes can still become registered."""
    return sum(status.stand is not Stand.FAILED for status in statuses) >= wanted


def booting(statuses: Sequence[Status]) -> bool:
    """Whether some nodes are neither registered nor have failed."""
    return any(status.stand is Stand.BOOTING for status in statuses)


def line(statuses: Sequence[Status]) -> str:
    """The live line: ``47/50 registered, 2 booting, 1 failed: manager unreachable``."""
    count = {stand: [status for status in statuses if status.stand is stand] for stand in Stand}
    parts = [f"{len(count[Stand.REGISTERED])}/{len(statuses)} registered"]
    for stand in (Stand.BOOTING, Stand.FAILED):
        if count[stand]:
            reasons = _counted([status.short for status in count[stand] if status.short])
            parts.append(f"{len(count[stand])} {stand}" + (f": {reasons}" if reasons else ""))
    return ", ".join(parts)


def _counted(reasons: Sequence[str]) -> str:
    """Each reason once, the most frequent first, with its number where it is not the only one."""
    kinds = sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason))
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{reasons.count(kind)} {kind}" for kind in kinds)


def complaint(statuses: Sequence[Status], wanted: int, why: str) -> str:
    """The error: each missing node by its name, those with the same reason together."""
    missing = [status for status in statuses if status.stand is not Stand.REGISTERED]
    ready = len(statuses) - len(missing)
    groups: dict[tuple[Stand, str], list[Status]] = {}
    for status in missing:
        groups.setdefault((status.stand, _alike(status)), []).append(status)
    lines = [f"{ready} of {len(statuses)} nodes are registered, {wanted} are wanted; {why}."]
    for (stand, _), same in sorted(groups.items(), key=lambda item: (item[0][0] is Stand.BOOTING, -len(item[1]))):
        lines.append(f"- {len(same)} {stand}: {same[0].reason.rstrip('.')}.")
        lines += _wrapped([str(status.node) for status in same])
    return "\n".join(lines)


def _wrapped(names: Sequence[str]) -> list[str]:
    """``names`` with commas in indented lines, no name in two of them."""
    whole = [name.replace(" ", "\N{NO-BREAK SPACE}") for name in names]  # textwrap breaks at blanks of ASCII only
    lines = textwrap.wrap(
        ", ".join(whole),
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _alike(status: Status) -> str:
    """The reason without what differs from node to node."""
    return _OWN.sub("…", status.reason)


def worth_asking(statuses: Sequence[Status], states: Mapping[str, tuple[str, str]]) -> list[str]:
    """Whose consoles to read, the first ones first: those that ended before those that still boot."""
    missing = [status.node.instance for status in statuses if status.stand is not Stand.REGISTERED]
    missing.sort(key=lambda instance: states.get(instance, ("pending", ""))[0] in ("pending", "running"))
    return missing
