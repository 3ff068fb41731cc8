"""Windows Fast Launch of an image: snapshots that EC2 prepares in advance.

Source: EC2 User Guide, "Configure EC2 Fast Launch for your Windows AMI"; API Reference, EnableFastLaunch,
DisableFastLaunch. The helper instances that prepare a snapshot are not modelled: snapshots are there at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rehearsal.cloud.actions import action
from rehearsal.cloud.errors import ApiError, invalid, not_modelled
from rehearsal.cloud.images import image
from rehearsal.cloud.records import Params, Snapshot
from rehearsal.cloud.region import Region

FEWEST_PARALLEL = 6  # API Reference, EnableFastLaunch, MaxParallelLaunches
CREATED_BY = {"CreatedBy": "EC2 Fast Launch"}


@dataclass
class FastLaunch:
    """The setting of one image. ``gone_at``: when a disabled one has been cleaned up, in epoch seconds."""

    count: int
    parallel: int
    changed: float
    snapshots: list[str] = field(default_factory=list)
    gone_at: float | None = None


@action("EnableFastLaunch", "ImageId", optional=("ResourceType", "SnapshotConfiguration", "MaxParallelLaunches"))
def enable_fast_launch(region: Region, params: Params) -> Params:
    item = image(region, params["ImageId"])
    if item.owner != region.settings.account:
        raise ApiError("AuthFailure", f"Not authorized for image:{item.id}")
    if item.state != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{item.id}' is not available")
    if params.get("ResourceType", "snapshot") != "snapshot":
        raise invalid(f"ResourceType {params['ResourceType']}: snapshot is the only one")
    parallel = int(params.get("MaxParallelLaunches", FEWEST_PARALLEL))
    if parallel < FEWEST_PARALLEL:
        raise invalid(f"MaxParallelLaunches is {parallel}, it must be {FEWEST_PARALLEL} or more")
    count = int(params.get("SnapshotConfiguration", {}).get("TargetResourceCount", 5))
    made = FastLaunch(count, parallel, region.now())
    for _ in range(count):
        snapshot = Snapshot(
            region.new_id("snap"), item.disks[0].size, "vol-ffffffff", region.now(), region.settings.account
        )
        region.snapshots[snapshot.id] = snapshot
        region.tag(snapshot.id, CREATED_BY)
        made.snapshots.append(snapshot.id)
    region.fast_launch[item.id] = made
    return _described(region, item.id, made)


@action("DisableFastLaunch", "ImageId", optional=("Force",))
def disable_fast_launch(region: Region, params: Params) -> Params:
    """Its snapshots go; that takes as long as a change of an image's state."""
    found = region.fast_launch.get(params["ImageId"])
    if found is None:
        raise invalid(f"Fast Launch is not enabled for {params['ImageId']}")
    for snapshot in found.snapshots:
        region.snapshots.pop(snapshot, None)
        region.forget_tags(snapshot)
    found.snapshots, found.gone_at = [], region.now() + region.settings.image_seconds
    return _described(region, params["ImageId"], found)


@action("DescribeFastLaunchImages", optional=("ImageIds", "Filters", "MaxResults", "NextToken"))
def describe_fast_launch_images(region: Region, params: Params) -> Params:
    if params.get("Filters"):
        raise not_modelled("filters of DescribeFastLaunchImages")
    for name, entry in list(region.fast_launch.items()):
        if entry.gone_at is not None and entry.gone_at <= region.now():
            del region.fast_launch[name]
    wanted = params.get("ImageIds") or list(region.fast_launch)
    shown = [_described(region, name, region.fast_launch[name]) for name in wanted if name in region.fast_launch]
    return {"FastLaunchImages": shown}


def _described(region: Region, image_id: str, entry: FastLaunch) -> Params:
    return {
        "ImageId": image_id,
        "ResourceType": "snapshot",
        "SnapshotConfiguration": {"TargetResourceCount": entry.count},
        "MaxParallelLaunches": entry.parallel,
        "OwnerId": region.settings.account,
        "State": "enabled" if entry.gone_at is None else "disabling",
        "StateTransitionTime": entry.changed,
    }
