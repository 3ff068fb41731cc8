# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.machines import ENDED

#: What a node means by an event that says less than it should to somebody who looks at the farm.
_MEANING = {
    "deadline_near": "ends soon: farm_max_hours",
    "hung": "hung, Backburner restarted",
    "interrupted": "interrupted, EC2 takes it back",
    "quarantined": "quarantined, takes no work",
    "rebalance_advised": "EC2 advises to leave",
}

#: Roles whose machines the manager must list.
_RENDERING = ("render_node", "remote_node")


def farm_rows(
    hosts: Iterable[Mapping[str, Any]],
    servers: Iterable[Mapping[str, str]],
    instances: Iterable[Mapping[str, Any]] = (),
    jobs: Iterable[Mapping[str, str]] = (),
    *,
    answered: bool = True,
) -> list[dict[str, Any]]:
    """One row for each machine: what the inventory, the manager's list, EC2 and the machine itself say of it.

    When the manager has not ``answered``, nobody knows which nodes it lists.
    """
    states = {server["mac"]: server["state"] for server in servers}
    known = {instance["instance_id"]: instance for instance in instances}
    busy = [job["name"] for job in jobs if job["state"] == "busy"]
    try:
        return [_row(host, states, known.get(host["farm_instance_id"], {}), busy, answered) for host in hosts]
    except KeyError as error:
        raise AnsibleFilterError(
            f"farm_rows: a host has no variable {error}; is it from renderfarm.cloud.ec2_farm?"
        ) from error


def _row(
    host: Mapping[str, Any],
    states: Mapping[str, str],
    instance: Mapping[str, Any],
    busy: Sequence[str],
    answered: bool,
) -> dict[str, Any]:
    # A manager is listed when it renders as well.
    unlisted = ("not listed" if answered else "unknown") if host["farm_role"] in _RENDERING else ""
    listed = states.get(host["farm_mac"], unlisted)
    phase, since = _phase(listed, instance)
    return {
        # names that several machines share end with the instance, which has a column of its own
        "name": str(host["inventory_hostname"]).removesuffix(f"-{host['farm_instance_id']}"),
        "instance": host["farm_instance_id"],
        "role": host["farm_role"],
        "type": host["farm_type"],
        "lifecycle": host["farm_lifecycle"],
        "zone": host["farm_zone"],
        "state": host["farm_state"],
        "address": host["farm_private_ip"],
        "mac": host["farm_mac"],
        "phase": phase,
        "since": since,
        "backburner": listed,
        # The manager tells which jobs are rendered and which servers are busy, but not which of them renders which.
        "job": " or ".join(busy) if listed == "busy" else "",
        "cost": _usd(instance.get("cost_usd")),
    }


def _phase(listed: str, instance: Mapping[str, Any]) -> tuple[str, str]:
    """How far a machine is, in a word or two, and since when (UTC)."""
    words = instance.get("last_words") or {}
    since = str(words.get("time") or instance.get("launched") or "")[:19].replace("T", " ")
    event = str(words.get("event", ""))
    if event in ("failed", "waiting"):
        phase = f"{event} in {words.get('phase', 'unknown')}"
    else:
        phase = _MEANING.get(event, event.replace("_", " "))
    if listed not in ("", "not listed", "unknown", "absent") and event in ("", "waiting", "ready"):
        phase = "ready"
    return phase or ("booting" if instance else ""), since


def farm_nodes(hosts: Iterable[Mapping[str, Any]], launched: Iterable[Mapping[str, str]] = ()) -> list[dict[str, str]]:
    """What renderfarm.cloud.farm_wait needs to know of each node: its name, MAC address and instance.

    ``launched`` are instances as ec2_fleet returns them; those that are no hosts have ended since then.
    """
    nodes = [{"name": row["name"], "mac": row["mac"], "instance": row["instance"]} for row in farm_rows(hosts, [])]
    known = {node["instance"] for node in nodes}
    return nodes + [
        {"name": node["name"], "mac": node["mac"], "instance": node["instance_id"]}
        for node in launched
        if node["instance_id"] not in known
    ]


def farm_ended_rows(instances: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each machine that ended: when, why as EC2 says, what it said last, what it cost."""
    rows = []
    for instance in instances:
        if instance["state"] not in ENDED:
            continue
        words = instance["last_words"] or {}
        parts = [str(words[key]) for key in ("code", "reason") if words.get(key)]
        said = f"{words['event']}: {': '.join(parts)}" if parts else str(words.get("event", ""))
        rows.append(
            {
                "name": instance["name"],
                "instance": instance["instance_id"],
                "role": instance["role"],
                "ended": str(instance["ended"] or words.get("time") or "")[:19].replace("T", " ").rstrip("Z"),
                "reason": instance["reason"],
                "said": said,
                "cost": _usd(instance["cost_usd"]),
            }
        )
    return rows


def farm_silence_line(silence: Mapping[str, Any], state: str) -> str:
    """Why the manager does not answer and what to run next; ``state`` is what EC2 says of its machine.

    ``silence`` has ``reason``, and ``reached``: whether the machine itself answered.
    """
    reason = str(silence["reason"]).strip().rstrip(".")
    if state != "running":
        remedy = f"Its machine is {state}; ansible-playbook farm-up.yml brings it up."
    elif silence["reached"]:
        remedy = "ansible-playbook farm-up.yml starts it again; its log is backburner.log on that machine."
    else:
        remedy = "ansible-playbook playbooks/link-check.yml names what is broken on the way; farm-up.yml can mend it."
    return f"The manager does not answer: {reason}. {remedy}"


def farm_project_line(note: Mapping[str, Any] | None, folder: str) -> str:
    """How the last copy of the project's ``folder`` went, by the workstation's ``note`` of it, in one line."""
    if not note:
        return f"Project {folder}: no copy is known of (playbooks/farm-status.yml asks the workstation)."
    if note["outcome"] == "unknown":
        return f"Project {folder}: the workstation does not say how its last copy went: {note['reason'].rstrip('.')}."
    when = str(note["began"])[:16].replace("T", " ") + " UTC"
    if note["outcome"] == "running":
        return f"Project {folder}: being copied since {when}."
    counted = "nothing counted"
    if "copied" in note:
        counted = f"{note['copied']} files copied ({note['bytes'] / 1e6:.1f} MB), {note['not_copied']} failed"
    reason = f" {note['reason']}" if note["outcome"] == "failed" else ""
    return f"Project {folder}: {when}, {counted}.{reason}"


def _usd(amount: Any) -> str:
    return "" if amount is None else f"{float(amount):.2f}"


class FilterModule:
    """Filters for the report about the farm."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "farm_ended_rows": farm_ended_rows,
            "farm_nodes": farm_nodes,
            "farm_project_line": farm_project_line,
            "farm_rows": farm_rows,
            "farm_silence_line": farm_silence_line,
        }
