"""The brake: when launching stops, and who can go without a loss."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.renderfarm.cloud.plugins.filter import fleet as filters
from ansible_collections.renderfarm.cloud.plugins.module_utils import brake


def nodes(number: int) -> list[dict[str, str]]:
    return [{"instance_id": f"i-{n}", "mac": f"0A:00:00:00:00:{n:02x}"} for n in range(number)]


def servers(number: int, state: str = "idle") -> list[dict[str, str]]:
    return [{"mac": f"0a:00:00:00:00:{n:02x}", "state": state} for n in range(number)]


@pytest.mark.parametrize(
    ("launched", "enough"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (6, 4), (20, 14), (1000, 667)]
)
def test_how_many_are_enough(launched, enough):
    assert brake.enough(launched) == enough


@pytest.mark.parametrize(("launched", "registered", "stop"), [(20, 20, False), (20, 14, False), (20, 13, True)])
def test_more_than_a_third_stops_it(launched, registered, stop):
    verdict = brake.judge(nodes(launched), servers(registered))
    assert verdict.stop is stop
    assert len(verdict.registered) == registered and len(verdict.failed) == launched - registered
    assert f"{launched - registered} of {launched}" in verdict.text and ("stops" in verdict.text) is stop


def test_a_server_that_was_lost_again_has_failed():
    assert brake.judge(nodes(1), servers(1, "absent")).failed == ["i-0"]


def test_nothing_launched_stops_nothing():
    assert not brake.judge([], servers(3)).stop


def test_who_rests():
    macs = ["0A:00:00:00:00:00", "0a:00:00:00:00:01", "0a:00:00:00:00:02"]
    found = [*servers(1, "busy"), {"mac": "0a:00:00:00:00:01", "state": "error"}]
    assert brake.resting(macs, found) == macs[1:]


def test_filters_name_what_is_missing():
    assert filters.launch_verdict(nodes(3), servers(1))["stop"] is True
    assert filters.resting_nodes(["a"], []) == ["a"]
    with pytest.raises(AnsibleFilterError, match="mac"):
        filters.launch_verdict([{"instance_id": "i-1"}], [])
    with pytest.raises(AnsibleFilterError, match="mac"):
        filters.resting_nodes(["a"], [{"state": "busy"}])


def test_what_is_waited_for():
    launched = [{**node, "name": "n"} for node in nodes(4)]
    wait = filters.launch_wait(launched)
    assert wait["wanted"] == 3 and wait["nodes"][0] == {"name": "n", "mac": "0A:00:00:00:00:00", "instance": "i-0"}
    with pytest.raises(AnsibleFilterError, match="name"):
        filters.launch_wait(nodes(1))
