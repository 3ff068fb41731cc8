# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making an image of a builder, and keeping the newest images only. The clients are botocore's or a test's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..module_utils.aws_errors import error_code
from .bake_guard import deregister, snapshot_ids

TAG_FARM = "renderfarm:farm"
POLL_SECONDS = 5.0
STOP_SECONDS = 600.0


class ImageError(Exception):
    """The image could not be made; the text is for the user."""


def specifications(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """TagSpecifications that give image and snapshots the same tags."""
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": pairs} for kind in ("image", "snapshot")]


def stop(ec2: Any, instance_id: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Stop the instance, so that its disk is whole and nothing restarts behind our back."""
    ec2.stop_instances(InstanceIds=[instance_id])
    for _ in range(int(STOP_SECONDS / 2)):
        found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
        state = found["State"]["Name"]
        if state == "stopped":
            return
        if state in ("shutting-down", "terminated"):
            raise ImageError(f"{instance_id} is {state}: it ended before its image was made")
        sleep(2.0)
    raise ImageError(f"{instance_id} is not stopped after {STOP_SECONDS / 60:.0f} minutes: run bake-ami.yml again")


def wait(
    ec2: Any,
    image_id: str,
    *,
    minutes: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The image when it is available; ``say`` gets each new stand of the copy. ImageError: failed, or not in time."""
    begin, told = clock(), ""
    while True:
        image = _described(ec2, image_id)
        if image is not None and image["State"] == "available":
            return image
        if image is not None and image["State"] != "pending":
            reason = image.get("StateReason", {}).get("Message", "EC2 does not say why")
            raise ImageError(f"the image {image_id} is {image['State']}: {reason}")
        elapsed = (clock() - begin) / 60
        if elapsed >= minutes:
            raise ImageError(
                f"the image {image_id} is not available after {minutes:g} minutes: raise ami_bake_image_minutes"
            )
        stand = _progress(ec2, image) if image is not None else ""
        if stand != told:
            say(f"{image_id}: {stand or 'waiting for the copy of the disk'}, {elapsed:.0f} min")
            told = stand
        sleep(POLL_SECONDS)


def _described(ec2: Any, image_id: str) -> dict[str, Any] | None:
    """The image; None while EC2 does not show it yet."""
    try:
        images: list[dict[str, Any]] = ec2.describe_images(ImageIds=[image_id])["Images"]
    except Exception as error:
        if error_code(error) != "InvalidAMIID.NotFound":
            raise
        return None
    return images[0] if images else None


def _progress(ec2: Any, image: Mapping[str, Any]) -> str:
    """How far the copy is: ``45% of 80 GiB copied``; or that it cannot be seen, which is no reason to end the wait."""
    names = snapshot_ids(image)
    if not names:
        return ""
    try:
        found = ec2.describe_snapshots(SnapshotIds=names)["Snapshots"]
    except Exception as error:  # a snapshot that EC2 does not show yet, the network: the image goes on all the same
        return f"being copied, how far is not known ({error_code(error) or type(error).__name__})"
    size = sum(snapshot["VolumeSize"] for snapshot in found)
    shares = [float(str(snapshot.get("Progress") or "0").rstrip("%")) * snapshot["VolumeSize"] for snapshot in found]
    return f"{sum(shares) / size:.0f}% of {size} GiB copied" if size else ""


# ------------------------------------------------------------------------------------------------------------- keeping


def surplus(
    images: Iterable[Mapping[str, Any]], keep: int, in_use: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Ids of the images to be removed, oldest first, and those that are too old but in use, with by what.

    Only whole images count. An image in use stays whatever its age, and does not take the place of a newer one.
    """
    whole = sorted(
        (image for image in images if image["State"] == "available"),
        key=lambda image: (str(image["CreationDate"]), str(image["ImageId"])),
    )
    old = [str(image["ImageId"]) for image in whole[: max(0, len(whole) - keep)]]
    return [each for each in old if each not in in_use], {each: in_use[each] for each in old if each in in_use}


def users(ec2: Any, image_ids: Sequence[str]) -> dict[str, str]:
    """Image -> an instance or a launch template that starts from it."""
    if not image_ids:
        return {}
    found: dict[str, str] = {}
    for template in _template_versions(ec2):
        if (image_id := template.get("LaunchTemplateData", {}).get("ImageId")) in image_ids:
            found[image_id] = f"launch template {template['LaunchTemplateName']}"
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[
            {"Name": "image-id", "Values": list(image_ids)},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
    )
    for page in pages:
        for group in page["Reservations"]:
            for instance in group["Instances"]:
                found[instance["ImageId"]] = f"instance {instance['InstanceId']}"
    return found


def _template_versions(ec2: Any) -> list[dict[str, Any]]:
    """The newest and the default version of every template (DescribeLaunchTemplateVersions without a template)."""
    pages = ec2.get_paginator("describe_launch_template_versions").paginate(Versions=["$Latest", "$Default"])
    return [version for page in pages for version in page["LaunchTemplateVersions"]]


def remove(ec2: Any, image: Mapping[str, Any]) -> list[str]:
    """Deregister the image, end its Fast Launch, delete all of their snapshots. What was deleted, in words.

    Snapshots that another image needs stay (EC2 API Reference, DeregisterImage, DeleteAssociatedSnapshots). ImageError:
    others did.
    """
    image_id = str(image["ImageId"])
    _disable_fast_launch(ec2, image_id)
    snapshots = deregister(ec2, image_id)
    stay = {name: code for name, code in snapshots.items() if code not in ("success", "skipped")}
    if stay:
        raise ImageError(
            f"the image {image_id} is gone, but its snapshots stay and cost: "
            f"{', '.join(f'{name} ({code})' for name, code in stay.items())}. Remedy: allow ec2:DeleteSnapshot (IAM), "
            f"then: {'; '.join(f'aws ec2 delete-snapshot --snapshot-id {name}' for name in stay)}"
        )
    deleted = [f"snapshot {name}" for name, code in snapshots.items() if code == "success"]
    return [f"image {image['Name']} ({image_id})", *deleted]


def fast_launch(ec2: Any, image_id: str) -> dict[str, Any]:
    """What EC2 says of the image's Fast Launch; nothing when it is off."""
    found: list[dict[str, Any]] = ec2.describe_fast_launch_images(ImageIds=[image_id])["FastLaunchImages"]
    return found[0] if found else {}


def fast_launch_failure(found: Mapping[str, Any]) -> str:
    """Why turning it on (or off) failed; empty when it did not.

    States are enabling, enabling-failed, enabled, enabled-failed, disabling, disabling-failed (EC2 API Reference,
    DescribeFastLaunchImagesSuccessItem).
    """
    if not str(found.get("State", "")).endswith("-failed"):
        return ""
    return str(found.get("StateTransitionReason") or "EC2 does not say why")


def prepared(found: Mapping[str, Any]) -> int:
    """How many first boots EC2 keeps ready, or is about to."""
    if not str(found.get("State", "")).startswith("enabl"):
        return 0
    return int(found.get("SnapshotConfiguration", {}).get("TargetResourceCount", 0))


def enable_fast_launch(ec2: Any, image_id: str, snapshots: int, template: str = "") -> None:
    """Have EC2 prepare ``snapshots`` first boots, with the launch template of this name when there is one.

    MaxParallelLaunches is at least 6 (EC2 API Reference, EnableFastLaunch).
    """
    given = {"LaunchTemplate": {"LaunchTemplateName": template, "Version": "$Default"}} if template else {}
    ec2.enable_fast_launch(
        **given,
        ImageId=image_id,
        ResourceType="snapshot",
        SnapshotConfiguration={"TargetResourceCount": snapshots},
        MaxParallelLaunches=max(6, snapshots),
    )


def _disable_fast_launch(ec2: Any, image_id: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until EC2 has removed the snapshots that it prepared: after the image is gone nobody removes them."""
    begun = False
    for _ in range(int(STOP_SECONDS / POLL_SECONDS)):
        if not fast_launch(ec2, image_id):
            return
        if not begun:
            ec2.disable_fast_launch(ImageId=image_id)
            begun = True
        sleep(POLL_SECONDS)
    raise ImageError(
        f"Fast Launch of {image_id} is not disabled after {STOP_SECONDS / 60:.0f} minutes: try again later"
    )
