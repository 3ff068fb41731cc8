# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils import brake


def launch_verdict(nodes: Sequence[Mapping[str, str]], launched: Sequence[str]) -> dict[str, Any]:
    """What became of launched nodes."""
    try:
        verdict = brake.judge(nodes, set(launched))
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"launch_verdict: a node lacks {error}.") from error
    return {
        "registered": verdict.registered,
        "failed": verdict.failed,
        "stop": verdict.stop,
        "msg": verdict.text,
    }


def launch_enough(nodes: Sequence[Mapping[str, str]], launched: Sequence[str]) -> int:
    """How many nodes must register, so that a launch is not stopped."""
    try:
        return brake.enough(sum(node["instance"] in launched for node in nodes))
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"launch_enough: a node lacks {error}.") from error


def resting_nodes(macs: Sequence[str], servers: Sequence[Mapping[str, str]]) -> list[str]:
    """The nodes that render nothing now."""
    try:
        return brake.resting(macs, servers)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"resting_nodes: a server lacks {error}.") from error


class FilterModule:
    """Filters about launching and ending nodes."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "launch_enough": launch_enough,
            "launch_verdict": launch_verdict,
            "resting_nodes": resting_nodes,
        }
