"""The brake: when launching stops, and who can go without a loss."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.renderfarm.cloud.plugins.filter import fleet as filters
from ansible_collections.renderfarm.cloud.plugins.module_utils import brake


def waited(number: int, registered: int, other: str = "failed") -> list[dict[str, str]]:
    return [{"instance": f"i-{n}", "state": "registered" if n < registered else other} for n in range(number)]


def ids(number: int) -> list[str]:
    return [f"i-{n}" for n in range(number)]


def servers(number: int, state: str = "idle") -> list[dict[str, str]]:
    return [{"mac": f"0a:00:00:00:00:{n:02x}", "state": state} for n in range(number)]


@pytest.mark.parametrize(
    ("launched", "enough"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (6, 4), (20, 14), (1000, 667)]
)
def test_how_many_are_enough(launched, enough):
    assert brake.enough(launched) == enough


@pytest.mark.parametrize(("launched", "registered", "stop"), [(20, 20, False), (20, 14, False), (20, 13, True)])
def test_more_than_a_third_stops_it(launched, registered, stop):
    verdict = brake.judge(waited(launched, registered), ids(launched))
    assert verdict.stop is stop
    assert len(verdict.registered) == registered and len(verdict.failed) == launched - registered
    assert f"{launched - registered} of {launched}" in verdict.text and ("stops" in verdict.text) is stop


def test_one_that_still_boots_has_failed():
    assert brake.judge(waited(1, 0, "booting"), ids(1)).failed == ["i-0"]


def test_only_launched_ones_are_judged():
    verdict = brake.judge(waited(9, 6), ["i-5", "i-8", "i-99"])
    assert (verdict.registered, verdict.failed, verdict.stop) == (["i-5"], ["i-8"], True)
    verdict = brake.judge(waited(3, 0), [])
    assert (verdict.failed, verdict.stop) == ([], False)


def test_who_rests():
    macs = ["0A:00:00:00:00:00", "0a:00:00:00:00:01", "0a:00:00:00:00:02"]
    found = [*servers(1, "busy"), {"mac": "0a:00:00:00:00:01", "state": "error"}]
    assert brake.resting(macs, found) == macs[1:]


def test_filters_name_what_is_missing():
    assert filters.launch_verdict(waited(3, 1), ids(3))["stop"] is True
    assert filters.resting_nodes(["a"], []) == ["a"]
    with pytest.raises(AnsibleFilterError, match="state"):
        filters.launch_verdict([{"instance": "i-1"}], ["i-1"])
    with pytest.raises(AnsibleFilterError, match="instance"):
        filters.launch_enough([{"state": "failed"}], ["i-1"])
    with pytest.raises(AnsibleFilterError, match="mac"):
        filters.resting_nodes(["a"], [{"state": "busy"}])


def test_what_is_waited_for():
    found = waited(4, 0)
    assert filters.launch_enough(found, ids(9)) == 3 and filters.launch_enough(found, ["i-1"]) == 1
