# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a launch is stopped because too many of its machines do not become render nodes.

A broken image, a wrong setting or a full licence server fails on machine after machine. So the first machines of a
large launch have to register before the others are launched, and a launch of which more than a third fails is not
continued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# One in so many may fail: spot interruptions and single bad machines are no reason to stop.
TOLERATED = 3


@dataclass(frozen=True)
class Verdict:
    """How a launch went: ids of its instances by what became of them, and whether launching stops."""

    registered: list[str]
    failed: list[str]

    @property
    def stop(self) -> bool:
        return len(self.registered) < enough(len(self.registered) + len(self.failed))

    @property
    def text(self) -> str:
        """For the user, without the reasons."""
        number = len(self.registered) + len(self.failed)
        text = f"{len(self.failed)} of {number} launched nodes did not register"
        return text + (f", more than one in {TOLERATED}: launching stops" if self.stop else "")


def enough(launched: int) -> int:
    """The least number of ``launched`` nodes that must register, so that not more than a third has failed."""
    return launched - launched // TOLERATED


def judge(nodes: Sequence[Mapping[str, str]], servers: Iterable[Mapping[str, str]]) -> Verdict:
    """What became of launched ``nodes`` (as ec2_fleet returns them), by the manager's ``servers``.

    A node that the manager calls absent did not stay registered.
    """
    there = {server["mac"].lower() for server in servers if server["state"] != "absent"}
    registered = [node["instance_id"] for node in nodes if node["mac"].lower() in there]
    failed = [node["instance_id"] for node in nodes if node["mac"].lower() not in there]
    return Verdict(registered, failed)


def resting(nodes: Iterable[str], servers: Iterable[Mapping[str, str]]) -> list[str]:
    """The MAC addresses of ``nodes`` that render nothing now: those that the manager does not call busy."""
    busy = {server["mac"].lower() for server in servers if server["state"] == "busy"}
    return [mac for mac in nodes if mac.lower() not in busy]
