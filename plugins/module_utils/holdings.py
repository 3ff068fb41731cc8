# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that a farm holds in a Region, what it costs as long as it is there, and how it is given back.

One table, ``KINDS``, says for each kind of thing how EC2 lists it, what it costs and how it is deleted. The order of
the table is the order in which things can go: what uses another thing is before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .aws_errors import error_code, explain
from .fleet import FILTER_VALUES, TAG_FARM, literal
from .prices import (
    GP3_PER_GIB_MONTH,
    HOURS_PER_MONTH,
    PUBLIC_IPV4_PER_HOUR,
    SNAPSHOT_PER_GIB_MONTH,
    on_demand_price,
    product_filters,
)

# Stored log data (https://aws.amazon.com/cloudwatch/pricing/, us-east-1).
LOGS_PER_GIB_MONTH = 0.03
# S3 Standard (https://aws.amazon.com/s3/pricing/, eu-central-1).
S3_PER_GB_MONTH = 0.0245
# Snapshots that EC2 Fast Launch keeps ready carry this tag (EC2 User Guide, "Use EC2 Fast Launch for your Windows
# instances").
_FAST_LAUNCH = {"Name": "tag:CreatedBy", "Values": ["EC2 Fast Launch"]}
# States in which an instance is billed or about to be (EC2 User Guide, "Amazon EC2 instance state changes").
_BILLED = ("pending", "running")

Item = Mapping[str, Any]
Clients = Callable[[str], Any]  # service -> botocore's client of the Region
# How long what was used may still count as used, in seconds: an instance's interface goes some time after it.
RELEASE_SECONDS = 600.0


@dataclass(frozen=True)
class Thing:
    """One thing. ``usd_per_month`` is what it costs if it stays for a month; None when its price is not known."""

    kind: str
    id: str
    name: str
    detail: str
    region: str
    usd_per_month: float | None
    item: Item = field(compare=False, repr=False, default_factory=dict)


@dataclass(frozen=True)
class Unreadable:
    """A kind of thing of which nobody could tell whether there are any."""

    kind: str
    region: str
    reason: str


@dataclass(frozen=True)
class Kind:
    """A kind of thing. ``delete`` gives one back; None when that is not for the farm to do."""

    name: str
    find: Callable[[Finder], Iterable[Item]]
    id: str
    detail: Callable[[Item], str]
    price: Callable[[Finder, Item], float | None] = lambda finder, item: 0.0
    delete: Callable[[Clients, Item], None] | None = None


# ----------------------------------------------------------------------------------------------------------------- find


class Finder:
    """Lists the things of one farm in one Region, with all pages. What two kinds need is asked once.

    ``bucket`` is the one through which the controller's installers go; empty when there is none. ``hourly`` tells what
    an instance type costs on-demand, in USD per hour; None when it is not known.
    """

    def __init__(
        self,
        clients: Clients,
        farm: str,
        bucket: str = "",
        hourly: Callable[[str], float | None] = lambda instance_type: None,
    ) -> None:
        self._clients = clients
        self.farm = farm
        self.bucket = bucket
        self.hourly = hourly
        self.tagged = {"Name": f"tag:{TAG_FARM}", "Values": [literal(farm)]}
        self._known: dict[str, list[Item]] = {}

    def ask(self, operation: str, key: str, service: str = "ec2", **parameters: Any) -> list[Item]:
        """All items below ``key`` of the answers to ``operation``."""
        found: list[Item] = []
        for page in self.pages(operation, service, **parameters):
            if key not in page:
                raise ValueError(f"the answer to {operation} holds no {key}")
            found += page[key]
        return found

    def pages(self, operation: str, service: str, **parameters: Any) -> Iterable[Item]:
        """The answers to ``operation``, one after the other."""
        client = self._clients(service)
        if client.can_paginate(operation):
            pages: Iterable[Item] = client.get_paginator(operation).paginate(**parameters)
            return pages
        return [getattr(client, operation)(**parameters)]

    def own(self, operation: str, key: str, **parameters: Any) -> list[Item]:
        """The items that carry the farm's tag; asked once."""
        return self.once(operation, key, Filters=[self.tagged], **parameters)

    def once(self, operation: str, key: str, **parameters: Any) -> list[Item]:
        """All items, which several kinds need; always with the same parameters."""
        if operation not in self._known:
            self._known[operation] = self.ask(operation, key, **parameters)
        return self._known[operation]

    def with_value(self, operation: str, key: str, name: str, values: Sequence[str]) -> list[Item]:
        """The items for which the filter ``name`` has one of ``values``."""
        return [
            item
            for start in range(0, len(values), FILTER_VALUES)
            for item in self.ask(
                operation, key, Filters=[{"Name": name, "Values": values[start : start + FILTER_VALUES]}]
            )
        ]


def _unique(key: str, *lists: Iterable[Item]) -> list[Item]:
    return list({item[key]: item for items in lists for item in items}.values())


def _instances(finder: Finder) -> list[Item]:
    found = [i for r in finder.own("describe_instances", "Reservations") for i in r["Instances"]]
    return [i for i in found if i["State"]["Name"] != "terminated"]


def _volumes(finder: Finder) -> list[Item]:
    """Also untagged ones, as long as a machine of the farm has them."""
    machines = [i["InstanceId"] for i in _instances(finder)]
    attached = finder.with_value("describe_volumes", "Volumes", "attachment.instance-id", machines)
    return _unique("VolumeId", finder.own("describe_volumes", "Volumes"), attached)


def _vpcs(finder: Finder) -> list[Item]:
    return finder.own("describe_vpcs", "Vpcs")


def _in_vpcs(finder: Finder, operation: str, key: str, id_key: str) -> list[Item]:
    """What carries the tag or is in a network of the farm: a run that was killed may not have got to the tags."""
    inside = finder.with_value(operation, key, "vpc-id", [vpc["VpcId"] for vpc in _vpcs(finder)])
    return _unique(id_key, finder.own(operation, key), inside)


def _images(finder: Finder) -> list[Item]:
    return finder.own("describe_images", "Images", Owners=["self"])


def snapshots_of(images: Iterable[Item]) -> list[str]:
    """The ids of the snapshots that images are made of."""
    disks = [device.get("Ebs", {}) for image in images for device in image.get("BlockDeviceMappings", ())]
    return [disk["SnapshotId"] for disk in disks if disk.get("SnapshotId")]


def _snapshots(finder: Finder) -> list[Item]:
    of_images = finder.with_value("describe_snapshots", "Snapshots", "snapshot-id", snapshots_of(_images(finder)))
    return _unique("SnapshotId", finder.own("describe_snapshots", "Snapshots"), of_images)


def _fast_launches(finder: Finder) -> list[Item]:
    own = {image["ImageId"] for image in _images(finder)}
    return [item for item in finder.once("describe_fast_launch_images", "FastLaunchImages") if item["ImageId"] in own]


def _fast_launch_snapshots(finder: Finder) -> list[Item]:
    """Nothing tells of which image they are: they are the farm's, unless other images have Fast Launch."""
    return [] if _others_have_fast_launch(finder) else _all_fast_launch_snapshots(finder)


def _unclear_snapshots(finder: Finder) -> list[Item]:
    return _all_fast_launch_snapshots(finder) if _others_have_fast_launch(finder) else []


def _others_have_fast_launch(finder: Finder) -> bool:
    enabled = {item["ImageId"] for item in finder.once("describe_fast_launch_images", "FastLaunchImages")}
    return bool(enabled - {image["ImageId"] for image in _images(finder)})


def _all_fast_launch_snapshots(finder: Finder) -> list[Item]:
    return finder.ask("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=[_FAST_LAUNCH])


def _own_route_tables(finder: Finder) -> list[Item]:
    """A network's main table goes with it."""
    tables = _in_vpcs(finder, "describe_route_tables", "RouteTables", "RouteTableId")
    return [t for t in tables if not any(a.get("Main") for a in t.get("Associations", ()))]


def _own_groups(finder: Finder) -> list[Item]:
    """A network's default group goes with it."""
    groups = _in_vpcs(finder, "describe_security_groups", "SecurityGroups", "GroupId")
    return [group for group in groups if group["GroupName"] != "default"]


def _gateways(finder: Finder) -> list[Item]:
    vpcs = [vpc["VpcId"] for vpc in _vpcs(finder)]
    attached = finder.with_value("describe_internet_gateways", "InternetGateways", "attachment.vpc-id", vpcs)
    return _unique("InternetGatewayId", finder.own("describe_internet_gateways", "InternetGateways"), attached)


def _log_groups(finder: Finder) -> list[Item]:
    """The prefix alone is that of another farm's groups as well: ``studio`` begins ``studio2``."""
    top = f"/renderfarm/{finder.farm}"
    groups = finder.ask("describe_log_groups", "logGroups", "logs", logGroupNamePrefix=top)
    return [group for group in groups if group["logGroupName"] == top or group["logGroupName"].startswith(f"{top}/")]


def installers_folder(farm: str) -> str:
    """Where the installers of one farm are in their bucket, which farms may share."""
    return f"renderfarm/{farm}/"


def _in_bucket(finder: Finder, operation: str, key: str) -> list[Item]:
    """What S3 lists below the farm's folder, with bucket and address. S3 leaves the list out when it is empty."""
    if not finder.bucket:
        return []
    try:
        answers = finder.pages(operation, "s3", Bucket=finder.bucket, Prefix=installers_folder(finder.farm))
        found = [item for page in answers for item in page.get(key, ())]
    except Exception as error:
        if error_code(error) != "NoSuchBucket":
            raise
        return []
    return [{**item, "Bucket": finder.bucket, "Url": f"s3://{finder.bucket}/{item['Key']}"} for item in found]


# --------------------------------------------------------------------------------------------------------------- delete


def _terminate(clients: Clients, item: Item) -> None:
    clients("ec2").terminate_instances(InstanceIds=[item["InstanceId"]])


def _disable_fast_launch(clients: Clients, item: Item) -> None:
    if item.get("State") != "disabling":
        clients("ec2").disable_fast_launch(ImageId=item["ImageId"])


def _deregister(clients: Clients, item: Item) -> None:
    """With its snapshots in the same call: without the image, nobody knows that they belong to the farm."""
    clients("ec2").deregister_image(ImageId=item["ImageId"], DeleteAssociatedSnapshots=True)


def _release(clients: Clients, item: Item) -> None:
    if item.get("AssociationId"):
        clients("ec2").disassociate_address(AssociationId=item["AssociationId"])
    clients("ec2").release_address(AllocationId=item["AllocationId"])


def _delete_route_table(clients: Clients, item: Item) -> None:
    for association in item.get("Associations", ()):
        clients("ec2").disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    clients("ec2").delete_route_table(RouteTableId=item["RouteTableId"])


def _delete_gateway(clients: Clients, item: Item) -> None:
    for attachment in item.get("Attachments", ()):
        clients("ec2").detach_internet_gateway(InternetGatewayId=item["InternetGatewayId"], VpcId=attachment["VpcId"])
    clients("ec2").delete_internet_gateway(InternetGatewayId=item["InternetGatewayId"])


def _delete_object(clients: Clients, item: Item) -> None:
    clients("s3").delete_object(Bucket=item["Bucket"], Key=item["Key"])


def _abort_upload(clients: Clients, item: Item) -> None:
    clients("s3").abort_multipart_upload(Bucket=item["Bucket"], Key=item["Key"], UploadId=item["UploadId"])


def _delete(operation: str, parameter: str, key: str, service: str = "ec2") -> Callable[[Clients, Item], None]:
    def delete(clients: Clients, item: Item) -> None:
        getattr(clients(service), operation)(**{parameter: item[key]})

    return delete


# ---------------------------------------------------------------------------------------------------------------- kinds


def _instance_detail(item: Item) -> str:
    spot = ", spot: at most" if item.get("InstanceLifecycle") == "spot" and item["State"]["Name"] in _BILLED else ""
    return f"{item['InstanceType']}, {item['State']['Name']}{spot}"


def _instance_price(finder: Finder, item: Item) -> float | None:
    """What it costs on-demand, which is also the most that spot can cost. It is billed by the second."""
    if item["State"]["Name"] not in _BILLED:
        return 0.0
    hourly = finder.hourly(item["InstanceType"])
    return None if hourly is None else hourly * HOURS_PER_MONTH


def _snapshot_detail(item: Item) -> str:
    return f"{item['VolumeSize']} GiB at most, {item['State']}"


def _snapshot_price(finder: Finder, item: Item) -> float:
    """The most that it can be: only blocks that differ from an earlier snapshot are billed."""
    return float(item["VolumeSize"]) * SNAPSHOT_PER_GIB_MONTH


_delete_snapshot = _delete("delete_snapshot", "SnapshotId", "SnapshotId")

_UNCLEAR = "Fast Launch snapshot of this farm or of another image"

KINDS = (
    Kind(
        "instance",
        _instances,
        "InstanceId",
        _instance_detail,
        _instance_price,
        _terminate,
    ),
    Kind(
        "Fast Launch",
        _fast_launches,
        "ImageId",
        lambda item: str(item.get("State", "")),
        delete=_disable_fast_launch,
    ),
    Kind(
        "public address",
        lambda finder: finder.own("describe_addresses", "Addresses"),
        "AllocationId",
        lambda item: str(item["PublicIp"]) + ("" if item.get("AssociationId") else ", unused"),
        lambda finder, item: PUBLIC_IPV4_PER_HOUR * HOURS_PER_MONTH,
        _release,
    ),
    Kind(
        "network interface",
        lambda finder: _in_vpcs(finder, "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
        "NetworkInterfaceId",
        lambda item: f"{item.get('PrivateIpAddress', '')}, {item['Status']}",
        delete=_delete("delete_network_interface", "NetworkInterfaceId", "NetworkInterfaceId"),
    ),
    Kind(
        "volume",
        _volumes,
        "VolumeId",
        lambda item: f"{item['Size']} GiB {item['VolumeType']}, {item['State']}",
        lambda finder, item: float(item["Size"]) * GP3_PER_GIB_MONTH,
        _delete("delete_volume", "VolumeId", "VolumeId"),
    ),
    Kind(
        "launch template",
        lambda finder: finder.own("describe_launch_templates", "LaunchTemplates"),
        "LaunchTemplateId",
        lambda item: str(item["LaunchTemplateName"]),
        delete=_delete("delete_launch_template", "LaunchTemplateId", "LaunchTemplateId"),
    ),
    Kind(
        "image",
        _images,
        "ImageId",
        lambda item: f"{item['Name']}, {item['State']}; its snapshots are billed",
        delete=_deregister,
    ),
    Kind(
        "Fast Launch snapshot",
        _fast_launch_snapshots,
        "SnapshotId",
        _snapshot_detail,
        _snapshot_price,
        _delete_snapshot,
    ),
    # They may belong to an image of somebody else: told, and never deleted.
    Kind(
        _UNCLEAR,
        _unclear_snapshots,
        "SnapshotId",
        _snapshot_detail,
        _snapshot_price,
    ),
    Kind("snapshot", _snapshots, "SnapshotId", _snapshot_detail, _snapshot_price, _delete_snapshot),
    Kind(
        "key pair",
        lambda finder: finder.own("describe_key_pairs", "KeyPairs"),
        "KeyPairId",
        lambda item: str(item["KeyName"]),
        delete=_delete("delete_key_pair", "KeyName", "KeyName"),
    ),
    Kind(
        "route table",
        _own_route_tables,
        "RouteTableId",
        lambda item: f"in {item['VpcId']}",
        delete=_delete_route_table,
    ),
    Kind(
        "subnet",
        lambda finder: _in_vpcs(finder, "describe_subnets", "Subnets", "SubnetId"),
        "SubnetId",
        lambda item: f"{item['CidrBlock']} in {item['AvailabilityZone']}",
        delete=_delete("delete_subnet", "SubnetId", "SubnetId"),
    ),
    Kind(
        "security group",
        _own_groups,
        "GroupId",
        lambda item: str(item["GroupName"]),
        delete=_delete("delete_security_group", "GroupId", "GroupId"),
    ),
    Kind(
        "internet gateway",
        _gateways,
        "InternetGatewayId",
        lambda item: "attached" if item.get("Attachments") else "detached",
        delete=_delete_gateway,
    ),
    Kind(
        "network",
        _vpcs,
        "VpcId",
        lambda item: str(item["CidrBlock"]),
        delete=_delete("delete_vpc", "VpcId", "VpcId"),
    ),
    Kind(
        "log group",
        _log_groups,
        "logGroupName",
        lambda item: f"{item.get('storedBytes', 0)} bytes",
        lambda finder, item: float(item.get("storedBytes", 0)) / 2**30 * LOGS_PER_GIB_MONTH,
        _delete("delete_log_group", "logGroupName", "logGroupName", "logs"),
    ),
    Kind(
        "installer in S3",
        lambda finder: _in_bucket(finder, "list_objects_v2", "Contents"),
        "Url",
        lambda item: f"{item['Size'] / 1e9:.2f} GB",
        lambda finder, item: float(item["Size"]) / 1e9 * S3_PER_GB_MONTH,
        _delete_object,
    ),
    Kind(
        "unfinished upload to S3",
        lambda finder: _in_bucket(finder, "list_multipart_uploads", "Uploads"),
        "Url",
        lambda item: f"begun {item['Initiated']:%Y-%m-%d %H:%M} UTC; its parts are billed",
        lambda finder, item: None,
        _abort_upload,
    ),
)


# --------------------------------------------------------------------------------------------------------------- report


def _name(item: Item) -> str:
    tags = {tag["Key"]: tag.get("Value", "") for tag in item.get("Tags", ())}
    return str(tags.get("Name", ""))


def things(kind: Kind, finder: Finder, region: str) -> list[Thing]:
    """All things of one kind."""
    return [
        Thing(kind.name, str(item[kind.id]), _name(item), kind.detail(item), region, kind.price(finder, item), item)
        for item in kind.find(finder)
    ]


def price_list(clients: Clients, region: str) -> Callable[[str], float | None]:
    """Gives the on-demand price of an instance type in USD per hour; None when it cannot be read, for whatever reason.

    A list of what is left is more urgent than a price.
    """

    @cache
    def hourly(instance_type: str) -> float | None:
        filters = product_filters(instance_type, region)
        try:
            return on_demand_price(
                clients("pricing").get_products(ServiceCode="AmazonEC2", Filters=filters)["PriceList"]
            )
        except Exception:
            return None

    return hourly


def survey(clients: Clients, farm: str, region: str, bucket: str = "") -> tuple[list[Thing], list[Unreadable]]:
    """Everything that the farm holds in the Region and in the bucket, and the kinds that could not be read."""
    finder = Finder(clients, farm, bucket, price_list(clients, region))
    found: list[Thing] = []
    unreadable: list[Unreadable] = []
    for kind in KINDS:
        try:
            found += things(kind, finder, region)
        except Exception as error:
            # Said to the user as such: never taken for "there are none".
            reason = explain(error, doing=f"list each {kind.name} in {region}")
            unreadable.append(Unreadable(kind.name, region, reason))
    return found, unreadable


def total(found: Iterable[Thing]) -> float:
    """USD per month of all things whose price is known."""
    return sum(thing.usd_per_month or 0.0 for thing in found)


def billed(found: Iterable[Thing]) -> list[Thing]:
    """Those that cost money, also at a price that is not known."""
    return [thing for thing in found if thing.usd_per_month is None or thing.usd_per_month > 0]


def verdict(found: Sequence[Thing], unreadable: Sequence[Unreadable], regions: Sequence[str]) -> str:
    """What a user wants to know first, in one sentence. "Nothing" only when EC2 said so for each kind and Region."""
    where = ", ".join(regions)
    if unreadable:
        kinds = ", ".join(dict.fromkeys(f"{entry.kind} ({entry.region})" for entry in unreadable))
        return f"It is not known what is left in {where}, for these could not be listed: {kinds}"
    if not found:
        return f"Nothing is left in {where}"
    if all(thing.kind == _UNCLEAR for thing in found):
        return (
            f"Nothing else is left in {where}, but nobody can tell whether these {len(found)} Fast Launch snapshots "
            f"are this farm's or another image's ({total(found):.2f} USD per month)"
        )
    costing = billed(found)
    if not costing:
        return f"Nothing that costs money is left in {where}; {len(found)} free things are"
    unpriced = [thing for thing in costing if thing.usd_per_month is None]
    running = sum(thing.kind == "instance" for thing in unpriced)
    priced = len(costing) - len(unpriced)
    parts = [f"{total(found):.2f} USD per month for {priced}"] if priced else []
    parts += [f"{running} running at a price that is not known"] if running else []
    parts += [f"{len(unpriced) - running} of unknown size"] if len(unpriced) > running else []
    return f"Left in {where} and billed: {len(costing)} of {len(found)} things ({', '.join(parts)})"


def names(found: Iterable[Thing]) -> list[str]:
    """One short line for each."""
    return [f"{thing.kind} {thing.id} ({thing.region})" for thing in found]


# -------------------------------------------------------------------------------------------------------------- destroy

# What EC2 says of a thing that is gone already: "….NotFound" and these.
_GONE = frozenset({"InvalidAMIID.Unavailable", "ResourceNotFoundException", "Gateway.NotAttached", "NoSuchUpload"})
# And of one that another thing still uses, which may be about to go.
_USED = frozenset(
    {
        "DependencyViolation",
        "InvalidIPAddress.InUse",
        "InvalidNetworkInterface.InUse",
        "InvalidParameterValue",
        "InvalidSnapshot.InUse",
        "VolumeInUse",
    }
)


_DELETED = tuple(kind for kind in KINDS if kind.delete)


class DestroyError(Exception):
    """Something cannot be deleted; the text is for the user."""


class Destroyer:
    """Deletes everything of a farm in a Region. ``deleted`` is right at any time, also after an error."""

    def __init__(
        self,
        clients: Clients,
        farm: str,
        region: str,
        *,
        bucket: str = "",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._farm = farm
        self._region = region
        self._bucket = bucket
        self._sleep = sleep
        self._clock = clock
        self.deleted: list[Thing] = []

    def run(self) -> list[Thing]:
        """Delete kind after kind, and return what was deleted. What is still used is tried again until it is free.

        DestroyError: something stays used, or a kind cannot be listed.
        """
        for kind in _DELETED:
            self._delete_all(kind)
        return self.deleted

    def planned(self) -> list[Thing]:
        """What ``run`` would delete."""
        return [thing for kind in _DELETED for thing in self._remaining(kind)]

    def _delete_all(self, kind: Kind) -> None:
        end = self._clock() + RELEASE_SECONDS
        asked: set[str] = set()
        while True:
            found = list(self._remaining(kind))
            problems = [problem for thing in found if (problem := self._delete(kind, thing, asked))]
            if not found:
                return
            if self._clock() > end:
                names = ", ".join(thing.id for thing in found[:10])
                raise DestroyError(
                    f"After {RELEASE_SECONDS:.0f} s there is still: {kind.name} {names}. "
                    f"{problems[0] if problems else 'EC2 has not finished deleting it'}. Remedy: run it again."
                )
            self._sleep(2.0)

    def _remaining(self, kind: Kind) -> Iterator[Thing]:
        try:
            yield from things(kind, Finder(self._clients, self._farm, self._bucket), self._region)
        except Exception as error:
            raise DestroyError(explain(error, doing=f"list each {kind.name} in {self._region}")) from error

    def _delete(self, kind: Kind, thing: Thing, asked: set[str]) -> str:
        """Delete it once. Returns why it is not possible yet; empty when it is on its way."""
        if kind.delete is None or thing.id in asked:
            return ""
        try:
            kind.delete(self._clients, thing.item)
        except Exception as error:
            code = error_code(error)
            if code in _USED:
                return explain(error, doing=f"delete the {kind.name} {thing.id}").rstrip(".")
            if code not in _GONE and "NotFound" not in code:
                raise DestroyError(explain(error, doing=f"delete the {kind.name} {thing.id}")) from error
        asked.add(thing.id)
        self.deleted.append(thing)
        return ""
