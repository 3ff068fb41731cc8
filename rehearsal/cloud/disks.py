"""Volumes and snapshots."""

from __future__ import annotations

from rehearsal.cloud.actions import action
from rehearsal.cloud.errors import ApiError, unknown
from rehearsal.cloud.filters import Extractors, page, select
from rehearsal.cloud.protocol import timestamp
from rehearsal.cloud.records import ImageDisk, Instance, Params, Snapshot, Volume
from rehearsal.cloud.region import Region


def create_volumes(region: Region, instance: Instance, disks: list[ImageDisk]) -> list[Volume]:
    """Make and attach one volume per entry of a resolved block device mapping."""
    now = region.now()
    made = []
    for disk in disks:
        volume = Volume(
            id=region.new_id("vol"),
            size=disk.size,
            kind=disk.kind,
            zone=instance.zone,
            create_time=now,
            snapshot_id=disk.snapshot_id or None,
            iops=disk.iops,
            throughput=disk.throughput,
            encrypted=disk.encrypted,
            instance_id=instance.id,
            device=disk.device,
            delete_on_termination=disk.delete_on_termination,
            attach_time=now,
        )
        region.volumes[volume.id] = volume
        instance.volumes[disk.device] = volume.id
        made.append(volume)
    return made


def release_volumes(region: Region, instance: Instance) -> None:
    """An instance is gone: its volumes are deleted or left available, by their DeleteOnTermination."""
    for identifier in instance.volumes.values():
        volume = region.volumes[identifier]
        if volume.delete_on_termination:
            del region.volumes[identifier]
            region.forget_tags(identifier)
        else:
            volume.instance_id, volume.device = None, ""
    instance.volumes.clear()


def _attachment(volume: Volume) -> list[Params]:
    if volume.instance_id is None:
        return []
    return [
        {
            "AttachTime": volume.attach_time,
            "Device": volume.device,
            "InstanceId": volume.instance_id,
            "State": "attached",
            "VolumeId": volume.id,
            "DeleteOnTermination": volume.delete_on_termination,
        }
    ]


def describe_volume(region: Region, volume: Volume) -> Params:
    return {
        "Attachments": _attachment(volume),
        "AvailabilityZone": volume.zone,
        "CreateTime": volume.create_time,
        "Encrypted": volume.encrypted,
        "Size": volume.size,
        "SnapshotId": volume.snapshot_id or "",
        "State": _volume_state(volume),
        "VolumeId": volume.id,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
        "Tags": region.tag_list(volume.id),
        "VolumeType": volume.kind,
        "MultiAttachEnabled": False,
    }


def _volume_state(volume: Volume) -> str:
    return "in-use" if volume.instance_id else "available"


VOLUME_FILTERS: Extractors[Volume] = {
    "volume-id": lambda item: (item.id,),
    "status": lambda item: (_volume_state(item),),
    "size": lambda item: (item.size,),
    "snapshot-id": lambda item: (item.snapshot_id,),
    "volume-type": lambda item: (item.kind,),
    "encrypted": lambda item: (item.encrypted,),
    "availability-zone": lambda item: (item.zone,),
    "create-time": lambda item: (timestamp(item.create_time),),
    "attachment.instance-id": lambda item: (item.instance_id,),
    "attachment.device": lambda item: (item.device,) if item.instance_id else (),
    "attachment.status": lambda item: ("attached",) if item.instance_id else (),
    "attachment.delete-on-termination": lambda item: (item.delete_on_termination,) if item.instance_id else (),
}


@action("DescribeVolumes", optional=("VolumeIds", "Filters", "MaxResults", "NextToken"))
def describe_volumes(region: Region, params: Params) -> Params:
    wanted = params.get("VolumeIds", [])
    absent = [name for name in wanted if name not in region.volumes]
    if absent:
        raise unknown("vol", *absent)
    items = [region.volumes[name] for name in wanted] if wanted else list(region.volumes.values())
    chosen = select(
        "DescribeVolumes", items, params.get("Filters", []), VOLUME_FILTERS, lambda item: region.tags(item.id)
    )
    shown, token = page(chosen, params, ids="VolumeIds")
    return {"Volumes": [describe_volume(region, item) for item in shown], "NextToken": token}


@action("DeleteVolume", "VolumeId")
def delete_volume(region: Region, params: Params) -> Params:
    volume = region.volumes.get(params["VolumeId"])
    if volume is None:
        raise unknown("vol", params["VolumeId"])
    if volume.instance_id:
        raise ApiError("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.instance_id}")
    del region.volumes[volume.id]
    region.forget_tags(volume.id)
    return {}


# ----------------------------------------------------------------------------------------------------------- snapshots


def describe_snapshot(region: Region, snapshot: Snapshot) -> Params:
    return {
        "Description": snapshot.description,
        "Encrypted": snapshot.encrypted,
        "OwnerId": snapshot.owner,
        "Progress": "100%" if snapshot.state == "completed" else "0%",
        "SnapshotId": snapshot.id,
        "StartTime": snapshot.start_time,
        "State": snapshot.state,
        "VolumeId": snapshot.volume_id,
        "VolumeSize": snapshot.size,
        "StorageTier": "standard",
        "Tags": region.tag_list(snapshot.id),
    }


SNAPSHOT_FILTERS: Extractors[Snapshot] = {
    "snapshot-id": lambda item: (item.id,),
    "description": lambda item: (item.description,),
    "encrypted": lambda item: (item.encrypted,),
    "owner-id": lambda item: (item.owner,),
    "status": lambda item: (item.state,),
    "volume-id": lambda item: (item.volume_id,),
    "volume-size": lambda item: (item.size,),
    "start-time": lambda item: (timestamp(item.start_time),),
    "storage-tier": lambda item: ("standard",),
}


@action("DescribeSnapshots", optional=("SnapshotIds", "OwnerIds", "Filters", "MaxResults", "NextToken"))
def describe_snapshots(region: Region, params: Params) -> Params:
    wanted = params.get("SnapshotIds", [])
    known = region.known_snapshots()
    absent = [name for name in wanted if name not in known]
    if absent:
        raise unknown("snap", *absent)
    items = [known[name] for name in wanted] if wanted else list(known.values())
    owners = {region.settings.account if owner == "self" else owner for owner in params.get("OwnerIds", [])}
    if owners:
        items = [item for item in items if item.owner in owners]
    chosen = select(
        "DescribeSnapshots", items, params.get("Filters", []), SNAPSHOT_FILTERS, lambda item: region.tags(item.id)
    )
    shown, token = page(chosen, params, ids="SnapshotIds")
    return {"Snapshots": [describe_snapshot(region, item) for item in shown], "NextToken": token}


def image_of_snapshot(region: Region, snapshot_id: str) -> str | None:
    """The image that still needs the snapshot, if any."""
    for image in region.images.values():
        if any(disk.snapshot_id == snapshot_id for disk in image.disks):
            return image.id
    return None


@action("DeleteSnapshot", "SnapshotId")
def delete_snapshot(region: Region, params: Params) -> Params:
    snapshot = region.snapshots.get(params["SnapshotId"])
    if snapshot is None:
        raise unknown("snap", params["SnapshotId"])
    if snapshot.owner != region.settings.account:
        raise ApiError("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)
    image = image_of_snapshot(region, snapshot.id)
    if image is not None:
        raise ApiError("InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {image}")
    del region.snapshots[snapshot.id]
    region.forget_tags(snapshot.id)
    return {}
