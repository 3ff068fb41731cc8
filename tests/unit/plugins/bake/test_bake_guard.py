"""The guard of a bake: whom it waits for, what it ends, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import bake_guard
from ansible_collections.renderfarm.cloud.plugins.plugin_utils.bake_guard import Record


class FakeEC2:
    """Instances, images (id -> state) and snapshots of one bake; the snapshot of ``ami-1`` is ``snap-1``."""

    def __init__(self, instances: list[str], images: dict[str, str], snapshots: tuple[str, ...] = ()) -> None:
        self.alive, self.images = instances, images
        self.state = "running"
        self.snapshots = [*snapshots, *(self._snapshot(name) for name in images)]
        self.log: list[str] = []

    def get_paginator(self, method: str) -> Any:
        class Paginator:
            def paginate(inner, **parameters: Any) -> list[Any]:
                found = [{"InstanceId": name, "State": {"Name": self.state}} for name in self.alive]
                return [{"Reservations": [{"Instances": found}]}]

        assert method == "describe_instances"
        return Paginator()

    def describe_images(self, **parameters: Any) -> dict[str, Any]:
        assert parameters["Filters"] == [{"Name": "tag:renderfarm:bake", "Values": ["studio-1"]}]
        found = [
            {"ImageId": name, "State": state, "BlockDeviceMappings": [{"Ebs": {"SnapshotId": self._snapshot(name)}}]}
            for name, state in self.images.items()
        ]
        return {"Images": found}

    def describe_snapshots(self, **parameters: Any) -> dict[str, Any]:
        assert parameters["Filters"] == [{"Name": "tag:renderfarm:bake", "Values": ["studio-1"]}]
        return {"Snapshots": [{"SnapshotId": name} for name in self.snapshots]}

    def terminate_instances(self, InstanceIds: list[str]) -> dict[str, Any]:
        self.log += [f"terminate {name}" for name in InstanceIds]
        self.alive = [name for name in self.alive if name not in InstanceIds]
        return {}

    def deregister_image(self, ImageId: str, DeleteAssociatedSnapshots: bool) -> dict[str, Any]:
        assert DeleteAssociatedSnapshots
        self.log.append(f"deregister {ImageId}")
        del self.images[ImageId]
        self.snapshots.remove(self._snapshot(ImageId))
        return {"DeleteSnapshotResults": [{"SnapshotId": self._snapshot(ImageId), "ReturnCode": "success"}]}

    def delete_snapshot(self, SnapshotId: str) -> dict[str, Any]:
        self.log.append(f"delete {SnapshotId}")
        self.snapshots.remove(SnapshotId)
        return {}

    @staticmethod
    def _snapshot(image: str) -> str:
        return image.replace("ami", "snap")


def record(**changes: Any) -> Record:
    values = {
        "bake": "studio-1",
        "farm": "studio",
        "region": "eu-central-1",
        "keep_builder": False,
        "pid": 1,
        "started": 1,
    }
    return Record(**{**values, **changes})


def test_builder_and_unfinished_image_go_whole_image_stays():
    ec2 = FakeEC2(["i-1"], {"ami-1": "pending", "ami-2": "available", "ami-3": "failed"})
    assert bake_guard.clean(ec2, "studio-1", keep_builder=False) == [
        "builder i-1", "unfinished image ami-1", "unfinished image ami-3",
    ]  # fmt: skip
    assert ec2.images == {"ami-2": "available"}
    assert ec2.snapshots == ["snap-2"]
    assert bake_guard.clean(ec2, "studio-1", keep_builder=False) == []


def test_snapshot_of_no_image_goes():
    ec2 = FakeEC2([], {"ami-2": "available"}, ("snap-1",))
    assert bake_guard.clean(ec2, "studio-1", keep_builder=False) == ["snapshot snap-1"]
    assert ec2.snapshots == ["snap-2"]


def test_builder_is_kept_on_demand_its_unfinished_image_is_not():
    ec2 = FakeEC2(["i-1"], {"ami-1": "pending"})
    assert bake_guard.clean(ec2, "studio-1", keep_builder=True) == ["unfinished image ami-1"]
    assert ec2.alive == ["i-1"]


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_builder_that_was_stopped_for_its_image_is_never_kept(state):
    """Nothing would end it: its deadline went with the stop."""
    ec2 = FakeEC2(["i-1"], {"ami-1": "failed"})
    ec2.state = state
    assert bake_guard.clean(ec2, "studio-1", keep_builder=True) == ["builder i-1", "unfinished image ami-1"]


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_appears_late_is_ended_too():
    """A task that was under way when ansible-playbook was killed still launches."""
    time_, ec2 = Time(), FakeEC2([], {})

    def client() -> FakeEC2:
        if time_.now == 10:
            ec2.alive.append("i-late")
        return ec2

    said: list[str] = []
    assert bake_guard.clean_until_quiet(client, record(), said.append, clock=time_.clock, sleep=time_.sleep)
    assert ec2.log == ["terminate i-late"]
    assert time_.now >= 10 + bake_guard.QUIET_SECONDS


def test_errors_of_the_api_do_not_end_the_guard():
    time_, failures = Time(), iter([OSError("down"), OSError("down")])
    ec2 = FakeEC2(["i-1"], {})

    def client() -> FakeEC2:
        error = next(failures, None)
        if error:
            raise error
        return ec2

    assert bake_guard.clean_until_quiet(client, record(), lambda text: None, clock=time_.clock, sleep=time_.sleep)
    assert ec2.alive == []


def test_guard_leaves_the_field_to_a_bake_that_took_its_record():
    def client() -> FakeEC2:
        raise OSError("down")

    time_, answers = Time(), iter([True, True, False])
    assert bake_guard.clean_until_quiet(
        client, record(), lambda text: None, lambda: next(answers), clock=time_.clock, sleep=time_.sleep
    )
    assert time_.now == 2 * bake_guard.POLL_SECONDS


def test_bake_that_ended_and_left_its_builder_is_not_alive():
    own = bake_guard.own_record("studio-1", {"farm": "f", "region": "r", "keep_builder": True}, os.getpid())
    assert not replace(own, ended=True).alive()


def test_api_that_stays_down_is_given_up_after_an_hour():
    time_ = Time()

    def client() -> FakeEC2:
        raise OSError("down")

    assert not bake_guard.clean_until_quiet(client, record(), lambda text: None, clock=time_.clock, sleep=time_.sleep)
    assert time_.now >= bake_guard.LONGEST_SECONDS


def test_record_tells_whether_its_process_lives():
    own = bake_guard.own_record("studio-1", {"farm": "f", "region": "r", "keep_builder": False}, os.getpid())
    assert own.alive()
    assert not record(pid=own.pid, started=own.started + 1).alive()  # the pid was given to another process
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert bake_guard.process_start(child.pid) is None


def test_records_are_read_and_forgotten(tmp_path):
    path = bake_guard.record_path(tmp_path, "studio-1")
    path.parent.mkdir()
    path.write_text(json.dumps(record().__dict__))
    path.with_suffix(".log").write_text("")
    assert bake_guard.records(tmp_path) == [record()]
    bake_guard.forget(tmp_path, "studio-1")
    assert list(path.parent.iterdir()) == []
    path.write_text("{")
    with pytest.raises(ValueError, match="delete it"):
        bake_guard.records(tmp_path)


def guard_of(tmp_path: Path, parent: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    path = bake_guard.record_path(tmp_path, "studio-1")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(bake_guard.own_record(
        "studio-1", {"farm": "f", "region": "r", "keep_builder": False}, parent.pid).__dict__))  # fmt: skip
    return subprocess.Popen([sys.executable, bake_guard.__file__, str(tmp_path), "studio-1"])


def test_guard_waits_for_the_process_and_does_nothing_after_a_bake_that_ended(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    guard = guard_of(tmp_path, parent)
    try:
        time.sleep(0.2)
        assert guard.poll() is None
        bake_guard.forget(tmp_path, "studio-1")
    finally:
        parent.communicate(b"\n")
    assert guard.wait(timeout=10) == 0
