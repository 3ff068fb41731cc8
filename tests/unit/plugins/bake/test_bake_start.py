"""How a bake begins: what an earlier one left, whose builder may be gone on with, and when it is refused."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.renderfarm.cloud.plugins.action.bake_guard import ActionModule
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import bake_guard


class FakeEC2:
    """Builders of the farm ``studio`` by id: tag of the bake and hours since the launch."""

    def __init__(self, **builders: tuple[str, float]) -> None:
        self.builders = {
            name.replace("_", "-"): {
                "InstanceId": name.replace("_", "-"),
                "State": {"Name": "running"},
                "LaunchTime": datetime.now(UTC) - timedelta(hours=hours),
                "Tags": [{"Key": "renderfarm:bake", "Value": bake}, {"Key": "Name", "Value": f"builder-of-{bake}"}],
            }
            for name, (bake, hours) in builders.items()
        }
        self.tagged: list[tuple[list[str], str]] = []

    def get_paginator(self, method: str) -> Any:
        class Paginator:
            def paginate(inner, Filters: list[dict[str, Any]]) -> list[Any]:
                bakes = next((each["Values"] for each in Filters if each["Name"] == "tag:renderfarm:bake"), None)
                found = [
                    builder
                    for builder in self.builders.values()
                    if bakes is None or bake_guard.tag(builder, "renderfarm:bake") in bakes
                ]
                return [{"Reservations": [{"Instances": found}]}]

        return Paginator()

    def describe_images(self, **parameters: Any) -> dict[str, Any]:
        return {"Images": []}

    def describe_snapshots(self, **parameters: Any) -> dict[str, Any]:
        return {"Snapshots": []}

    def terminate_instances(self, InstanceIds: list[str]) -> dict[str, Any]:
        for name in InstanceIds:
            del self.builders[name]
        return {}

    def create_tags(self, Resources: list[str], Tags: list[dict[str, str]]) -> None:
        self.tagged.append((Resources, Tags[0]["Value"]))


@pytest.fixture(autouse=True)
def guards(monkeypatch: pytest.MonkeyPatch) -> list[bake_guard.Record]:
    started: list[bake_guard.Record] = []
    monkeypatch.setattr(bake_guard, "start", lambda record, state: started.append(record))
    return started


def options(**changes: Any) -> dict[str, Any]:
    return {"bake": "new", "farm": "studio", "region": "eu-central-1", "keep_builder": False, "hours": 6, **changes}


def remember(state: Path, bake: str, **changes: Any) -> None:
    values = {"bake": bake, "farm": "studio", "region": "eu-central-1", "keep_builder": True, "pid": 1, "started": -1}
    path = bake_guard.record_path(state, bake)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**values, **changes}))


def start(ec2: FakeEC2, state: Path, **changes: Any) -> dict[str, Any]:
    return ActionModule._start(ActionModule.__new__(ActionModule), ec2, state, options(**changes))


def test_nothing_left_nothing_ended(tmp_path, guards):
    assert start(FakeEC2(), tmp_path) == {"changed": False, "ended": [], "adopted": {}}
    assert [(record.bake, record.pid) for record in guards] == [("new", os.getppid())]


def test_builder_of_an_earlier_bake_is_ended(tmp_path):
    remember(tmp_path, "old")
    ec2 = FakeEC2(i_1=("old", 1))
    assert start(ec2, tmp_path)["ended"] == ["builder i-1"]
    assert ec2.builders == {}
    assert bake_guard.records(tmp_path) == []


def test_builder_of_an_earlier_bake_is_gone_on_with_and_tagged_for_this_one(tmp_path):
    remember(tmp_path, "old")
    ec2 = FakeEC2(i_1=("old", 1))
    found = start(ec2, tmp_path, keep_builder=True)
    assert found == {"changed": False, "ended": [], "adopted": {"name": "builder-of-old", "instance_id": "i-1"}}
    assert ec2.tagged == [(["i-1"], "new")]


def test_bake_under_way_on_this_controller_is_left_alone(tmp_path, guards):
    remember(tmp_path, "old", pid=os.getpid(), started=bake_guard.process_start(os.getpid()))
    ec2 = FakeEC2(i_1=("old", 1))
    with pytest.raises(AnsibleActionFail, match=f"Process {os.getpid()} on this controller"):
        start(ec2, tmp_path)
    assert list(ec2.builders) == ["i-1"]
    assert guards == []


def test_builder_of_another_controller_is_left_alone_until_it_should_have_ended_itself(tmp_path):
    ec2 = FakeEC2(i_1=("theirs", 5))
    with pytest.raises(AnsibleActionFail, match="terminate-instances --region eu-central-1 --instance-ids i-1"):
        start(ec2, tmp_path)
    assert start(FakeEC2(i_1=("theirs", 7)), tmp_path)["ended"] == ["builder i-1"]


def test_run_that_bakes_nothing_ends_what_was_left_and_nothing_else(tmp_path):
    remember(tmp_path, "old")
    remember(tmp_path, "now", pid=os.getpid(), started=bake_guard.process_start(os.getpid()))
    ec2 = FakeEC2(i_1=("old", 1), i_2=("now", 1), i_3=("theirs", 1), i_4=("theirs", 7))
    found = ActionModule._sweep(ActionModule.__new__(ActionModule), ec2, tmp_path, options())
    assert found == {"changed": True, "ended": ["builder i-1", "builder i-4"]}
    assert [record.bake for record in bake_guard.records(tmp_path)] == ["now"]


def test_other_farms_are_none_of_its_business(tmp_path):
    remember(tmp_path, "old", farm="other", pid=os.getpid(), started=bake_guard.process_start(os.getpid()))
    start(FakeEC2(), tmp_path)
    assert [record.bake for record in bake_guard.records(tmp_path)] == ["old"]


def test_record_of_a_kept_builder_stays_so_that_a_later_bake_ends_it(tmp_path):
    remember(tmp_path, "new")
    ec2 = FakeEC2(i_1=("new", 1))
    assert ActionModule._end(ec2, tmp_path, options(keep_builder=True))["kept"] == ["i-1"]
    assert [(record.bake, record.ended) for record in bake_guard.records(tmp_path)] == [("new", True)]
    assert ActionModule._end(ec2, tmp_path, options())["ended"] == ["builder i-1"]
    assert bake_guard.records(tmp_path) == []


def test_a_builder_that_shall_go_is_no_longer_kept_by_the_guard(tmp_path, monkeypatch):
    """Also when it cannot be ended now: the guard, which tries again, reads the record."""
    remember(tmp_path, "new")

    def refuse(*_: Any, **__: Any) -> list[str]:
        raise bake_guard.Unended("new", [("ending the builder", RuntimeError("throttled"))])

    monkeypatch.setattr(bake_guard, "clean", refuse)
    with pytest.raises(bake_guard.Unended):
        ActionModule._end(FakeEC2(), tmp_path, options())
    assert [record.keep_builder for record in bake_guard.records(tmp_path)] == [False]
