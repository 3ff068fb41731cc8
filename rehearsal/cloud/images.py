"""Images: made from instances, described, deregistered."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rehearsal.cloud.actions import action, attribute, check_fields
from rehearsal.cloud.disks import image_of_snapshot
from rehearsal.cloud.errors import ApiError, invalid, not_modelled, unknown
from rehearsal.cloud.filters import Extractors, page, select
from rehearsal.cloud.protocol import timestamp
from rehearsal.cloud.records import Image, ImageDisk, Instance, Params, Snapshot
from rehearsal.cloud.region import Region, tag_specifications
from rehearsal.cloud.states import require_state

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")  # EC2 API Reference, CreateImage, parameter Name
DISK_FIELDS = {"DeviceName", "Ebs", "NoDevice"}
EBS_FIELDS = {"SnapshotId", "VolumeSize", "VolumeType", "DeleteOnTermination", "Iops", "Throughput", "Encrypted"}
SMALLEST_THROUGHPUT = 125  # MiB/s of gp3
SMALLEST_IOPS = 3000


def resolve_disks(region: Region, image_disks: Iterable[ImageDisk], mappings: Iterable[Params]) -> list[ImageDisk]:
    """The disks of an instance: those of its image, each changed or removed by the mapping of the same device name.

    Source: EC2 User Guide, "Block device mappings". A disk that the image lacks defaults to DeleteOnTermination false.
    """
    disks = {disk.device: disk for disk in image_disks}
    for mapping in mappings:
        check_fields("BlockDeviceMapping", mapping, DISK_FIELDS)
        device = mapping.get("DeviceName")
        if not device:
            raise ApiError("MissingParameter", "The request must contain the parameter DeviceName")
        if "NoDevice" in mapping:
            disks.pop(device, None)
        else:
            disks[device] = _disk(region, device, disks.get(device), mapping.get("Ebs", {}))
    return list(disks.values())


def _disk(region: Region, device: str, base: ImageDisk | None, ebs: Params) -> ImageDisk:
    check_fields("BlockDeviceMapping.Ebs", ebs, EBS_FIELDS)
    snapshot_id = ebs.get("SnapshotId") or (base.snapshot_id if base else "")
    smallest = 1
    if snapshot_id:
        snapshot = region.snapshots.get(snapshot_id)
        if snapshot is None:
            raise unknown("snap", snapshot_id)
        smallest = snapshot.size
    size = ebs.get("VolumeSize") or (base.size if base else None) or (smallest if snapshot_id else None)
    if size is None:
        raise ApiError("MissingParameter", "The request must contain the parameter size or snapshotId")
    if size < smallest:
        raise ApiError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size}GB is smaller than snapshot '{snapshot_id}', expect size >= {smallest}GB",
        )
    kind = ebs.get("VolumeType") or (base.kind if base else "gp2")
    iops, throughput = _performance(kind, ebs, base)
    return ImageDisk(
        device=device,
        snapshot_id=snapshot_id,
        size=size,
        kind=kind,
        delete_on_termination=ebs.get("DeleteOnTermination", base.delete_on_termination if base else False),
        iops=iops,
        throughput=throughput,
        encrypted=ebs.get("Encrypted", base.encrypted if base else False),
    )


def _performance(kind: str, ebs: Params, base: ImageDisk | None) -> tuple[int | None, int | None]:
    """IOPS and throughput of a volume: free minimum of gp3, three IOPS per GiB left out for gp2."""
    if kind == "gp3":
        inherited = base if base is not None and base.kind == "gp3" else None
        iops = ebs.get("Iops") or (inherited.iops if inherited else None) or SMALLEST_IOPS
        throughput = ebs.get("Throughput") or (inherited.throughput if inherited else None) or SMALLEST_THROUGHPUT
        return iops, throughput
    if "Throughput" in ebs:
        raise invalid(f"The parameter throughput is not supported for {kind} volumes")
    if "Iops" in ebs and kind not in ("io1", "io2"):
        raise invalid(f"The parameter iops is not supported for {kind} volumes.")
    return ebs.get("Iops"), None


def image(region: Region, identifier: str) -> Image:
    """ApiError: never existed, or deregistered."""
    found = region.images.get(identifier)
    if found is None:
        if identifier in region.deregistered:
            raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{identifier}' is no longer available")
        raise unknown("ami", identifier)
    return found


@action(
    "CreateImage",
    "InstanceId",
    "Name",
    optional=("Description", "NoReboot", "BlockDeviceMappings", "TagSpecifications"),
)
def create_image(region: Region, params: Params) -> Params:
    """Pending until the disk was copied. The source is rebooted unless NoReboot is given or it is stopped."""
    instance = region.instance(params["InstanceId"])
    require_state(instance, ("running", "stopping", "stopped"), "imaged")
    name = params["Name"]
    if not NAME.fullmatch(name):
        raise ApiError("InvalidAMIName.Malformed", f"AMI name '{name}' is invalid: 3 to 128 characters of ()[] ./-'@_")
    for other in region.images.values():
        if other.name == name and other.owner == region.settings.account:
            raise ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {other.id}")
    tags = tag_specifications(params.get("TagSpecifications", []), {"image", "snapshot"})
    made = _image_of(region, instance, params)
    region.images[made.id] = made
    region.tag(made.id, tags.get("image", {}))
    for disk in made.disks:
        region.tag(disk.snapshot_id, tags.get("snapshot", {}))
    if instance.state == "running" and not params.get("NoReboot"):
        instance.boots += 1
    return {"ImageId": made.id}


def _image_of(region: Region, instance: Instance, params: Params) -> Image:
    now = region.now()
    identifier = region.new_id("ami")
    present = [
        ImageDisk(
            volume.device,
            volume.snapshot_id or "",
            volume.size,
            volume.kind,
            volume.delete_on_termination,
            volume.iops,
            volume.throughput,
            volume.encrypted,
        )
        for volume in (region.volumes[name] for name in instance.volumes.values())
    ]
    disks = []
    for disk in resolve_disks(region, present, params.get("BlockDeviceMappings", [])):
        volume_id = instance.volumes.get(disk.device)
        if volume_id is None:
            raise not_modelled("volumes in CreateImage that the instance does not have")
        snapshot = Snapshot(
            id=region.new_id("snap"),
            size=disk.size,
            volume_id=volume_id,
            start_time=now,
            owner=region.settings.account,
            description=f"Created by CreateImage({instance.id}) for {identifier}",
            encrypted=disk.encrypted,
            state="pending",
            image_id=identifier,
        )
        region.snapshots[snapshot.id] = snapshot
        disks.append(
            ImageDisk(
                disk.device,
                snapshot.id,
                disk.size,
                disk.kind,
                disk.delete_on_termination,
                disk.iops,
                disk.throughput,
                disk.encrypted,
            )
        )
    return Image(
        id=identifier,
        name=params["Name"],
        owner=region.settings.account,
        create_time=now,
        disks=disks,
        description=params.get("Description", ""),
        platform=instance.platform,
        architecture=instance.architecture,
        root_device=instance.root_device,
        source_instance_id=instance.id,
        source_image_id=instance.image_id,
        state="pending",
        earliest=now + region.settings.image_seconds,
        copied=region.settings.images_complete_alone,
    )


# ---------------------------------------------------------------------------------------------------------- describing


def describe_image(region: Region, item: Image) -> Params:
    shown: Params = {
        "Architecture": item.architecture,
        "BlockDeviceMappings": [_mapping(disk) for disk in item.disks],
        "CreationDate": timestamp(item.create_time),
        "Description": item.description,
        "EnaSupport": True,
        "Hypervisor": "xen",
        "ImageId": item.id,
        "ImageLocation": f"{item.owner_alias or item.owner}/{item.name}",
        "ImageOwnerAlias": item.owner_alias,
        "ImageType": "machine",
        "Name": item.name,
        "OwnerId": item.owner,
        "Platform": item.platform,
        "PlatformDetails": "Windows",
        "ProductCodes": [],
        "Public": item.public,
        "RootDeviceName": item.root_device,
        "RootDeviceType": "ebs",
        "SourceImageId": item.source_image_id,
        "SourceInstanceId": item.source_instance_id,
        "SriovNetSupport": "simple",
        "State": item.state,
        "Tags": region.tag_list(item.id),
        "UsageOperation": "RunInstances:0002",
        "VirtualizationType": "hvm",
    }
    if item.reason:
        shown["StateReason"] = {"Code": "Server.InternalError", "Message": item.reason}
    return shown


def _mapping(disk: ImageDisk) -> Params:
    return {
        "DeviceName": disk.device,
        "Ebs": {
            "DeleteOnTermination": disk.delete_on_termination,
            "Iops": disk.iops,
            "SnapshotId": disk.snapshot_id,
            "VolumeSize": disk.size,
            "VolumeType": disk.kind,
            "Throughput": disk.throughput,
            "Encrypted": disk.encrypted,
        },
    }


IMAGE_FILTERS: Extractors[Image] = {
    "architecture": lambda item: (item.architecture,),
    "block-device-mapping.device-name": lambda item: [disk.device for disk in item.disks],
    "block-device-mapping.snapshot-id": lambda item: [disk.snapshot_id for disk in item.disks],
    "block-device-mapping.volume-size": lambda item: [disk.size for disk in item.disks],
    "block-device-mapping.volume-type": lambda item: [disk.kind for disk in item.disks],
    "creation-date": lambda item: (timestamp(item.create_time),),
    "description": lambda item: (item.description,),
    "ena-support": lambda item: (True,),
    "hypervisor": lambda item: ("xen",),
    "image-id": lambda item: (item.id,),
    "image-type": lambda item: ("machine",),
    "is-public": lambda item: (item.public,),
    "name": lambda item: (item.name,),
    "owner-alias": lambda item: (item.owner_alias,),
    "owner-id": lambda item: (item.owner,),
    "platform": lambda item: (item.platform,),
    "root-device-name": lambda item: (item.root_device,),
    "root-device-type": lambda item: ("ebs",),
    "source-image-id": lambda item: (item.source_image_id,),
    "source-instance-id": lambda item: (item.source_instance_id,),
    "state": lambda item: (item.state,),
    "virtualization-type": lambda item: ("hvm",),
}


@action(
    "DescribeImages",
    optional=(
        "ImageIds",
        "Owners",
        "Filters",
        "ExecutableUsers",
        "IncludeDeprecated",
        "IncludeDisabled",
        "MaxResults",
        "NextToken",
    ),
)
def describe_images(region: Region, params: Params) -> Params:
    wanted = params.get("ImageIds", [])
    known = region.known_images()
    absent = [name for name in wanted if name not in known]
    if absent:
        raise unknown("ami", *absent)
    items = [known[name] for name in wanted] if wanted else list(known.values())
    owners = {region.settings.account if owner == "self" else owner for owner in params.get("Owners", [])}
    if owners:
        items = [item for item in items if item.owner in owners or item.owner_alias in owners]
    if "ExecutableUsers" in params:
        if params["ExecutableUsers"] not in (["self"], ["all"]):
            raise not_modelled("launch permissions of single accounts")
        items = [item for item in items if item.public]
    chosen = select(
        "DescribeImages", items, params.get("Filters", []), IMAGE_FILTERS, lambda item: region.tags(item.id)
    )
    shown, token = page(chosen, params, ids="ImageIds")
    return {"Images": [describe_image(region, item) for item in shown], "NextToken": token}


@action("DescribeImageAttribute", "ImageId", "Attribute")
def describe_image_attribute(region: Region, params: Params) -> Params:
    item = image(region, params["ImageId"])
    values: dict[str, Params] = {
        "launchPermission": {"LaunchPermissions": [{"Group": "all"}] if item.public else []},
        "description": {"Description": {"Value": item.description}},
        "productCodes": {"ProductCodes": []},
    }
    if params["Attribute"] not in values:
        raise not_modelled(f"the attribute {params['Attribute']} of DescribeImageAttribute")
    return {"ImageId": item.id, **values[params["Attribute"]]}


@action("ModifyImageAttribute", "ImageId", optional=("Description", "Attribute", "Value"))
def modify_image_attribute(region: Region, params: Params) -> Params:
    item = image(region, params["ImageId"])
    value = attribute(params, "Description")
    if params.get("Attribute", "").lower() == "description" and "Value" in params:
        value = params["Value"]
    if value is None:
        raise not_modelled("ModifyImageAttribute of anything but the description")
    item.description = value
    return {}


# -------------------------------------------------------------------------------------------------------- deregistering


@action("DeregisterImage", "ImageId", optional=("DeleteAssociatedSnapshots",))
def deregister_image(region: Region, params: Params) -> Params:
    """With DeleteAssociatedSnapshots the snapshots go too, except those that another image needs."""
    item = image(region, params["ImageId"])
    if item.owner != region.settings.account:
        raise ApiError("AuthFailure", f"Not authorized for image:{item.id}")
    del region.images[item.id]
    region.deregistered.add(item.id)
    region.forget_tags(item.id)
    result: Params = {"Return": True}
    if params.get("DeleteAssociatedSnapshots"):
        result["DeleteSnapshotResults"] = [_delete_snapshot(region, disk.snapshot_id) for disk in item.disks]
    return result


def _delete_snapshot(region: Region, identifier: str) -> Params:
    """As EC2 does for the caller, who needs the permission (EC2 API Reference, DeleteSnapshotReturnCode)."""
    if image_of_snapshot(region, identifier):
        return {"SnapshotId": identifier, "ReturnCode": "skipped"}
    if "DeleteSnapshot" in region.denied:
        return {"SnapshotId": identifier, "ReturnCode": "missing-permissions"}
    region.snapshots.pop(identifier, None)
    region.forget_tags(identifier)
    return {"SnapshotId": identifier, "ReturnCode": "success"}
