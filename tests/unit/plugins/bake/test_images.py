"""Which images stay, how they go, and how far the copy of a disk is."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.renderfarm.cloud.plugins.action import ec2_fast_launch
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import image_contents, images
from botocore.exceptions import ClientError


def image(number: int, state: str = "available") -> dict[str, Any]:
    return {
        "ImageId": f"ami-{number}",
        "Name": f"studio-{number}",
        "CreationDate": f"2026-11-{number:02d}T00:00:00.000Z",
        "State": state,
        "BlockDeviceMappings": [{"Ebs": {"SnapshotId": f"snap-{number}"}}, {"DeviceName": "xvdca"}],
    }


def test_newest_stay_and_oldest_go_first():
    assert images.surplus([image(3), image(1), image(5), image(2), image(4)], 2, {}) == (
        ["ami-1", "ami-2", "ami-3"],
        {},
    )
    assert images.surplus([image(1)], 2, {}) == ([], {})


def test_image_in_use_stays_and_takes_no_place():
    surplus = images.surplus([image(n) for n in range(1, 6)], 2, {"ami-2": "instance i-1", "ami-5": "instance i-2"})
    assert surplus == (["ami-1", "ami-3"], {"ami-2": "instance i-1"})


def test_unfinished_images_do_not_count():
    assert images.surplus([image(1), image(2), image(3, "pending"), image(4, "failed")], 2, {}) == ([], {})


class FakeEC2:
    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, method: str) -> Any:
        def call(**parameters: Any) -> Any:
            self.calls.append((method, parameters))
            given = self.answers[method]
            answer = given.pop(0) if len(given) > 1 else given[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, method: str) -> Any:
        class Paginator:
            def paginate(inner, **parameters: Any) -> list[Any]:
                return [getattr(self, method)(**parameters)]

        return Paginator()


def test_users_are_instances_and_launch_templates():
    ec2 = FakeEC2(
        describe_launch_template_versions=[
            {
                "LaunchTemplateVersions": [
                    {"LaunchTemplateName": "studio-render-node", "LaunchTemplateData": {"ImageId": "ami-1"}},
                    {"LaunchTemplateName": "other", "LaunchTemplateData": {}},
                ]
            }
        ],
        describe_instances=[{"Reservations": [{"Instances": [{"ImageId": "ami-2", "InstanceId": "i-1"}]}]}],
    )
    found = images.users(ec2, ["ami-1", "ami-2"])
    assert found == {"ami-1": "launch template studio-render-node", "ami-2": "instance i-1"}
    assert images.users(FakeEC2(), []) == {}


def test_image_goes_with_its_snapshots_and_its_fast_launch(monkeypatch):
    monkeypatch.setattr(images.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(images._disable_fast_launch, "__defaults__", (lambda seconds: None,))
    enabled = {"FastLaunchImages": [{"State": "enabled"}]}
    ec2 = FakeEC2(
        describe_fast_launch_images=[enabled, {"FastLaunchImages": [{"State": "disabling"}]}, {"FastLaunchImages": []}],
        disable_fast_launch=[{}],
        deregister_image=[
            {
                "DeleteSnapshotResults": [
                    {"SnapshotId": "snap-1", "ReturnCode": "success"},
                    {"SnapshotId": "snap-0", "ReturnCode": "skipped"},
                ]
            }
        ],
    )
    assert images.remove(ec2, image(1)) == ["image studio-1 (ami-1)", "snapshot snap-1"]
    assert [name for name, _ in ec2.calls].count("disable_fast_launch") == 1
    assert ec2.calls[-1] == ("deregister_image", {"ImageId": "ami-1", "DeleteAssociatedSnapshots": True})


def fast_launch(ec2: FakeEC2, template: str = "") -> dict[str, Any]:
    action = ec2_fast_launch.ActionModule.__new__(ec2_fast_launch.ActionModule)
    return action.act(ec2, {"image_id": "ami-1", "snapshots": 6, "launch_template": template, "region": "r"})


def fast_launch_in(state: str, reason: str = "", count: int = 6) -> dict[str, Any]:
    found = {"State": state, "StateTransitionReason": reason, "SnapshotConfiguration": {"TargetResourceCount": count}}
    return {"FastLaunchImages": [found]}


@pytest.mark.parametrize("state", ["enabling", "enabled"])
def test_fast_launch_that_is_on_is_left_alone(state):
    ec2 = FakeEC2(describe_fast_launch_images=[fast_launch_in(state)])
    assert fast_launch(ec2) == {"changed": False, "state": state}


def test_fast_launch_with_another_number_is_enabled_again_with_the_template():
    ec2 = FakeEC2(describe_fast_launch_images=[fast_launch_in("enabled", count=8)], enable_fast_launch=[{}])
    assert fast_launch(ec2, "ours") == {"changed": True, "state": "enabled", "warnings": []}
    given = dict(ec2.calls)["enable_fast_launch"]
    assert given["LaunchTemplate"] == {"LaunchTemplateName": "ours", "Version": "$Default"}
    assert given["SnapshotConfiguration"] == {"TargetResourceCount": 6}


@pytest.mark.parametrize("after", ["enabling", "enabling-failed"])
def test_fast_launch_that_failed_is_told_and_enabled_again(after):
    failed = fast_launch_in("enabling-failed", "no default VPC")
    ec2 = FakeEC2(describe_fast_launch_images=[failed, fast_launch_in(after, "none either")], enable_fast_launch=[{}])
    result = fast_launch(ec2)
    assert result["state"] == after
    (warning,) = result["warnings"]
    assert (
        "none either" if after == "enabling-failed" else "the last time it ended enabling-failed: no default VPC"
    ) in warning
    assert "Remedy: " in warning


def test_wait_tells_each_new_stand_once():
    half = {"Snapshots": [{"VolumeSize": 80, "Progress": "45%"}]}
    late = ClientError({"Error": {"Code": "InvalidAMIID.NotFound", "Message": ""}}, "DescribeImages")
    ec2 = FakeEC2(
        describe_images=[late, *({"Images": [image(1, "pending")]} for _ in range(3)), {"Images": [image(1)]}],
        describe_snapshots=[{"Snapshots": [{"VolumeSize": 80, "Progress": ""}]}, half, half],
    )
    said: list[str] = []
    found = images.wait(ec2, "ami-1", minutes=60, say=said.append, clock=lambda: 0.0, sleep=lambda seconds: None)
    assert images.snapshot_ids(found) == ["snap-1"]
    assert said == ["ami-1: 0% of 80 GiB copied, 0 min", "ami-1: 45% of 80 GiB copied, 0 min"]


def test_wait_goes_on_when_it_cannot_be_seen_how_far_the_copy_is():
    """A fresh snapshot is unknown at first (EC2 Developer Guide, "Eventual consistency in the Amazon EC2 API")."""
    late = ClientError({"Error": {"Code": "InvalidSnapshot.NotFound", "Message": ""}}, "DescribeSnapshots")
    half = {"Snapshots": [{"VolumeSize": 80, "Progress": "45%"}]}
    ec2 = FakeEC2(
        describe_images=[*({"Images": [image(1, "pending")]} for _ in range(3)), {"Images": [image(1)]}],
        describe_snapshots=[late, OSError("the network"), half],
    )
    said: list[str] = []
    images.wait(ec2, "ami-1", minutes=60, say=said.append, clock=lambda: 0.0, sleep=lambda seconds: None)
    assert said == [
        "ami-1: being copied, how far is not known (InvalidSnapshot.NotFound), 0 min",
        "ami-1: being copied, how far is not known (OSError), 0 min",
        "ami-1: 45% of 80 GiB copied, 0 min",
    ]


def test_wait_ends_with_the_reason():
    failed = {**image(1, "failed"), "StateReason": {"Message": "Internal error"}}
    with pytest.raises(images.ImageError, match="Internal error"):
        images.wait(FakeEC2(describe_images=[{"Images": [failed]}]), "ami-1", minutes=60, say=print)
    clock = iter((0.0, 0.0, 3600.0))
    ec2 = FakeEC2(describe_images=[{"Images": [image(1, "pending")]}], describe_snapshots=[{"Snapshots": []}])
    with pytest.raises(images.ImageError, match="ami_bake_image_minutes"):
        images.wait(ec2, "ami-1", minutes=60, say=lambda text: None, clock=lambda: next(clock), sleep=lambda s: None)


def test_builder_that_ends_before_it_is_stopped():
    def state(name: str) -> dict[str, Any]:
        return {"Reservations": [{"Instances": [{"State": {"Name": name}}]}]}

    ec2 = FakeEC2(stop_instances=[{}], describe_instances=[state("stopping"), state("stopped")])
    images.stop(ec2, "i-1", sleep=lambda seconds: None)
    with pytest.raises(images.ImageError, match="terminated"):
        images.stop(FakeEC2(stop_instances=[{}], describe_instances=[state("terminated")]), "i-1")


INSTALLERS = {
    "python": {"url": "https://x/python-3.12.10-embed-amd64.zip", "sha256": "AA" * 32},
    "renderers": [{"name": "3ds Max", "url": "https://x/max.msi?signature=1", "sha256": "bb" * 32}],
}


def contents(installers: Any = INSTALLERS, **settings: Any) -> dict[str, Any]:
    return image_contents.image_contents(installers, {"disk": 80, **settings})


def test_contents_are_listed_and_hashed():
    found = contents()
    assert [(item["name"], item["package"]) for item in found["items"]] == [
        ("python", "python-3.12.10-embed-amd64.zip"),
        ("3ds Max", "max.msi"),
    ]
    assert found["summary"] == "python aaaaaaaa, 3ds Max bbbbbbbb"
    assert found == contents()
    assert found["hash"] != contents(disk=100)["hash"]


def test_source_of_an_installer_does_not_count_its_checksum_and_arguments_do():
    def with_renderer(**changes: str) -> str:
        return contents({**INSTALLERS, "renderers": [{**INSTALLERS["renderers"][0], **changes}]})["hash"]

    assert with_renderer(url="https://elsewhere/3ds-max.msi") == contents()["hash"]
    assert with_renderer(sha256="cc" * 32) != contents()["hash"]
    assert with_renderer(arguments="/qn") != contents()["hash"]


def test_version_is_listed_and_said_but_does_not_count():
    versioned = {**INSTALLERS, "python": {**INSTALLERS["python"], "version": "3.12.10"}}
    found = contents(versioned)
    assert found["items"][0]["version"] == "3.12.10"
    assert found["summary"] == "python 3.12.10 aaaaaaaa, 3ds Max bbbbbbbb"
    assert found["hash"] == contents()["hash"]


@pytest.mark.parametrize("role", ["windows_package", "node_agent"])
def test_every_part_of_the_list_can_be_set(role):
    """What the list of contents keeps is an option of the installers."""
    specs = yaml.safe_load((image_contents.PROJECT / "roles" / role / "meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    source = options.get("windows_package_source") or options["node_agent_python"]
    assert "version" in source["options"]


def test_code_that_runs_on_the_builder_counts(monkeypatch, tmp_path):
    before = contents()["hash"]
    for place in ("farmnode/boot.py", "roles/render_node/tasks/install.yml"):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text("changed")
    monkeypatch.setattr(image_contents, "PROJECT", tmp_path)
    assert contents()["hash"] != before


def test_recipe_names_roles_that_exist():
    for role in image_contents.RECIPES:
        assert (image_contents.PROJECT / "roles" / role / "tasks").is_dir()


def test_summary_fits_into_a_tag():
    many = {"renderers": [{"name": f"renderer {n}", "sha256": "ab" * 32} for n in range(50)]}
    assert len(contents(many)["summary"]) == image_contents.LONGEST_TAG
