# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils import brake


def launch_verdict(nodes: Sequence[Mapping[str, str]], servers: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What became of launched nodes."""
    try:
        verdict = brake.judge(nodes, servers)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"launch_verdict: a node or server lacks {error}.") from error
    return {
        "registered": verdict.registered,
        "failed": verdict.failed,
        "stop": verdict.stop,
        "msg": verdict.text,
    }


def launch_wait(nodes: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What to wait for after a launch."""
    try:
        waited = [{"name": node["name"], "mac": node["mac"], "instance": node["instance_id"]} for node in nodes]
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"launch_wait: a node lacks {error}.") from error
    return {"nodes": waited, "wanted": brake.enough(len(waited))}


def resting_nodes(macs: Sequence[str], servers: Sequence[Mapping[str, str]]) -> list[str]:
    """The nodes that render nothing now."""
    try:
        return brake.resting(macs, servers)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"resting_nodes: a server lacks {error}.") from error


class FilterModule:
    """Filters about launching and ending nodes."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"launch_verdict": launch_verdict, "launch_wait": launch_wait, "resting_nodes": resting_nodes}
