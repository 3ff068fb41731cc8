"""The rows of the farm's table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.renderfarm.cloud.plugins.filter.report import (
    farm_nodes,
    farm_project_line,
    farm_rows,
    farm_silence_line,
)


def host(name: str, role: str, mac: str) -> dict[str, Any]:
    return {
        "inventory_hostname": name,
        "farm_instance_id": f"i-{name}",
        "farm_role": role,
        "farm_type": "c7i.4xlarge",
        "farm_lifecycle": "spot",
        "farm_zone": "eu-central-1a",
        "farm_state": "running",
        "farm_private_ip": "10.0.0.21",
        "farm_mac": mac,
        "something": "else",
    }


def test_a_node_has_the_state_in_which_the_manager_lists_its_mac() -> None:
    servers = [{"mac": "02:00:00:00:00:01", "state": "idle", "name": "x", "handle": "0200000000010000"}]
    hosts = [host("one", "render_node", "02:00:00:00:00:01"), host("two", "render_node", "02:00:00:00:00:02")]
    assert [row["backburner"] for row in farm_rows(hosts, servers)] == ["idle", "not listed"]


def test_what_a_silent_manager_lists_is_not_known() -> None:
    hosts = [host("one", "render_node", "02:00:00:00:00:01"), host("manager", "manager", "02:00:00:00:00:03")]
    assert [row["backburner"] for row in farm_rows(hosts, [], answered=False)] == ["unknown", ""]
    waits = {"instance_id": "i-one", "last_words": {"event": "waiting", "phase": "manager"}}
    (row,) = farm_rows(hosts[:1], [], [{"launched": "", "cost_usd": None} | waits], answered=False)
    assert row["phase"] == "waiting in manager"


@pytest.mark.parametrize(
    ("reached", "state", "remedy"),
    [
        (True, "running", "ansible-playbook farm-up.yml starts it again"),
        (False, "running", "ansible-playbook playbooks/link-check.yml names what is broken"),
        (False, "stopped", "Its machine is stopped; ansible-playbook farm-up.yml brings it up."),
    ],
)
def test_a_silent_manager_is_a_line_with_reason_and_remedy(reached: bool, state: str, remedy: str) -> None:
    line = farm_silence_line({"reason": "no route to host.", "reached": reached}, state)
    assert line.startswith(f"The manager does not answer: no route to host. {remedy}")


def test_a_name_does_not_repeat_the_instance() -> None:
    node = host("node", "render_node", "02:00:00:00:00:01") | {"inventory_hostname": "studio-render-node-i-node"}
    assert farm_rows([node], [])[0]["name"] == "studio-render-node"


def test_a_manager_is_not_asked_for() -> None:
    assert farm_rows([host("manager", "manager", "02:00:00:00:00:03")], [])[0]["backburner"] == ""


def test_a_manager_that_renders_shows_it():
    server = {"mac": "02:00:00:00:00:03", "state": "busy", "name": "x", "handle": "0200000000030000"}
    assert farm_rows([host("manager", "manager", server["mac"])], [server])[0]["backburner"] == "busy"


def test_a_host_of_another_inventory_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="farm_instance_id"):
        farm_rows([{"inventory_hostname": "pc"}], [])


def test_what_is_waited_for_is_named_as_in_the_report():
    node = host("studio-render-node-i-0123", "render_node", "02:00:00:00:00:01")
    row = farm_rows([node], [])[0]
    known = {key: row[key] for key in ("name", "mac", "instance")}
    assert farm_nodes([node]) == [known]
    ended = {"instance_id": "i-gone", "name": "gone", "mac": "0a:00:00:00:00:99", "state": "running"}
    assert farm_nodes([node], [{**ended, "instance_id": row["instance"]}, ended]) == [
        known,
        {"instance": "i-gone", "name": "gone", "mac": "0a:00:00:00:00:99"},
    ]


def instance(event: str, **more: str) -> dict[str, Any]:
    words = {"event": event, "time": "2026-10-14T09:10:02.118Z", **more}
    return {"instance_id": "i-one", "launched": "2026-10-14T09:00:00Z", "cost_usd": 0.5, "last_words": words}


@pytest.mark.parametrize(
    ("event", "phase"),
    [
        ("quarantined", "quarantined, takes no work"),
        ("interrupted", "interrupted, EC2 takes it back"),
        ("idle", "idle"),
        ("hung", "hung, Backburner restarted"),
        ("deadline", "deadline"),
        ("deadline_near", "ends soon: farm_max_hours"),
        ("rebalance", "rebalance"),
        ("rebalance_advised", "EC2 advises to leave"),
        ("manager_gone", "manager gone"),
    ],
)
@pytest.mark.parametrize("states", [[], ["absent"], ["busy"]])
def test_the_phase_is_what_the_watch_said_last(event: str, phase: str, states: list[str]) -> None:
    node = host("one", "render_node", "02:00:00:00:00:01")
    servers = [{"mac": node["farm_mac"], "state": state, "name": "x", "handle": "0200000000010000"} for state in states]
    [row] = farm_rows([node], servers, [instance(event)])
    assert (row["phase"], row["since"]) == (phase, "2026-10-14 09:10:02")


def test_the_phase_of_a_boot_that_waits_or_failed_says_where() -> None:
    node = host("one", "render_node", "02:00:00:00:00:01")
    rows = [farm_rows([node], [], [instance(event, phase="drives")])[0] for event in ("waiting", "failed")]
    assert [row["phase"] for row in rows] == ["waiting in drives", "failed in drives"]


BEGAN = "2026-10-14T09:10:02.118Z"
COUNTS = {"copied": 4, "not_copied": 1, "bytes": 412_000_000}


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (None, "no copy is known of (playbooks/farm-status.yml asks the workstation)."),
        ({"outcome": "running", "began": BEGAN}, "being copied since 2026-10-14 09:10 UTC."),
        ({"outcome": "done", "began": BEGAN, **COUNTS}, "2026-10-14 09:10 UTC, 4 files copied (412.0 MB), 1 failed."),
        (
            {"outcome": "failed", "began": BEGAN, "reason": "10.0.0.10 does not answer."},
            "2026-10-14 09:10 UTC, nothing counted. 10.0.0.10 does not answer.",
        ),
    ],
)
def test_the_project_in_one_line(note: dict[str, Any] | None, said: str) -> None:
    assert farm_project_line(note, r"C:\Projects") == rf"Project C:\Projects: {said}"
