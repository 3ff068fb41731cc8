"""EC2 Fast Launch: an image for which EC2 keeps prepared snapshots."""

from __future__ import annotations

from rehearsal.cloud.actions import action, check_fields
from rehearsal.cloud.errors import ApiError, invalid, unknown
from rehearsal.cloud.filters import page, select
from rehearsal.cloud.records import Image, Params, Snapshot
from rehearsal.cloud.region import Region

# EC2 User Guide, "Use EC2 Fast Launch for your Windows instances": what EC2 makes for it carries this tag.
TAGS = {"CreatedBy": "EC2 Fast Launch"}
USUAL_COUNT = 5  # EC2 API Reference, FastLaunchSnapshotConfigurationRequest


def _image(region: Region, params: Params) -> Image:
    image = region.images.get(params["ImageId"])
    if image is None:
        raise unknown("ami", params["ImageId"])
    return image


def _described(region: Region, image_id: str, state: str) -> Params:
    return {
        "ImageId": image_id,
        "ResourceType": "snapshot",
        "SnapshotConfiguration": {"TargetResourceCount": region.fast_launches.get(image_id, 0)},
        "OwnerId": region.settings.account,
        "State": state,
    }


@action(
    "EnableFastLaunch",
    "ImageId",
    optional=("ResourceType", "SnapshotConfiguration", "LaunchTemplate", "MaxParallelLaunches"),
)
def enable_fast_launch(region: Region, params: Params) -> Params:
    """The snapshots are there at once. EC2 launches and ends helper instances for minutes, which are not modelled."""
    image = _image(region, params)
    if image.owner != region.settings.account or image.state != "available" or image.platform != "windows":
        raise invalid(f"Fast Launch needs an available Windows image of one's own: {image.id}")
    if params.get("MaxParallelLaunches", 6) < 6:
        raise invalid("MaxParallelLaunches must be 6 or greater")
    configuration = params.get("SnapshotConfiguration", {})
    check_fields("SnapshotConfiguration", configuration, {"TargetResourceCount"})
    count = int(configuration.get("TargetResourceCount", USUAL_COUNT))
    region.fast_launches[image.id] = count
    for _ in range(count):
        snapshot = Snapshot(
            region.new_id("snap"), image.disks[0].size, "vol-ffffffff", region.now(), region.settings.account
        )
        snapshot.fast_launch_of = image.id
        region.snapshots[snapshot.id] = snapshot
        region.tag(snapshot.id, TAGS)
    return _described(region, image.id, "enabled")


@action("DisableFastLaunch", "ImageId", optional=("Force",))
def disable_fast_launch(region: Region, params: Params) -> Params:
    """ "Discontinue Windows fast launch for a Windows AMI, and clean up existing pre-provisioned snapshots" (EC2 API
    Reference, DisableFastLaunch)."""
    image_id = params["ImageId"]
    if image_id not in region.fast_launches:
        raise ApiError("InvalidRequest", f"Fast Launch is not enabled for {image_id}")
    for snapshot in [item for item in region.snapshots.values() if item.fast_launch_of == image_id]:
        del region.snapshots[snapshot.id]
        region.forget_tags(snapshot.id)
    answer = _described(region, image_id, "disabling")
    del region.fast_launches[image_id]
    return answer


@action("DescribeFastLaunchImages", optional=("ImageIds", "Filters", "MaxResults", "NextToken"))
def describe_fast_launch_images(region: Region, params: Params) -> Params:
    wanted = params.get("ImageIds") or list(region.fast_launches)
    chosen = select(
        "DescribeFastLaunchImages",
        [name for name in wanted if name in region.fast_launches],
        params.get("Filters", []),
        {
            "resource-type": lambda item: ("snapshot",),
            "owner-id": lambda item: (region.settings.account,),
            "state": lambda item: ("enabled",),
        },
        lambda item: {},
    )
    shown, token = page(chosen, params, smallest=0, largest=200)
    return {"FastLaunchImages": [_described(region, name, "enabled") for name in shown], "NextToken": token}
