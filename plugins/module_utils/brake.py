# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a launch is stopped because too many of its machines do not become render nodes.

A broken image, a wrong setting or a full licence server fails on machine after machine. So the first machines of a
large launch have to register before the others are launched, and a launch of which more than a third fails is not
continued.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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


def judge(nodes: Sequence[Mapping[str, str]], launched: Collection[str]) -> Verdict:
    """What became of the ``launched`` ones (ids) of the ``nodes`` that were waited for (as farm_wait returns them).

    One that still boots when the wait is over has failed, too.
    """
    new = [node for node in nodes if node["instance"] in launched]
    registered = [node["instance"] for node in new if node["state"] == "registered"]
    return Verdict(registered, [node["instance"] for node in new if node["instance"] not in registered])


def resting(nodes: Iterable[str], servers: Iterable[Mapping[str, str]]) -> list[str]:
    """The MAC addresses of ``nodes`` that render nothing now: those that the manager does not call busy."""
    busy = {server["mac"].lower() for server in servers if server["state"] == "busy"}
    return [mac for mac in nodes if mac.lower() not in busy]
