# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks AWS what ``preflight`` checks: all questions at the same time, nothing is changed.

Rights are found out by dry runs: EC2 answers ``DryRunOperation`` to who may do it and ``UnauthorizedOperation`` to who
may not (EC2 API Reference, "Common parameters", DryRun). The policy that the farm needs allows most changes for
resources with the farm's tag only, so an action on a resource is tried with one of the farm's, and not before the farm
has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from .aws_errors import error_code, explain
from .fleet import FILTER_VALUES, TAG_FARM, TAG_ROLE, Lifecycle, fleet_request
from .fleet import Wish as FleetWish
from .preflight import QUOTAS, Facts, Running, Wish
from .prices import on_demand_price, product_filters

DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
THREADS = 8
PAGE_SIZE = 1000
_PRODUCT = "Windows"
_PRICE_OF = "the price of "
_OTHER_TYPES = "the other instance types that run"
# Without these an estimate is missing, no machine.
_OPTIONAL_SERVICES = ("pricing:", "servicequotas:")

Clients = Mapping[str, Any]
"""botocore's clients by service: ec2, sts, ssm, service-quotas, pricing."""


@dataclass(frozen=True)
class Probe:
    """A dry run. ``needs`` are the resources of the farm that it names; without them it is left out."""

    action: str
    method: str
    needs: tuple[str, ...] = ()
    parameters: Callable[[Mapping[str, str], str], dict[str, Any]] = lambda ids, farm: {}


def _tagged(kind: str, farm: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": TAG_FARM, "Value": farm}]}]


def _fleet(ids: Mapping[str, str], farm: str) -> dict[str, Any]:
    """The request with which nodes are launched, without the token: EC2 remembers nothing of a dry run."""
    wish = FleetWish(
        farm, "render_node", 1, {"name": ids["template"]}, instance_types=[ids["node_type"]], subnet_ids=[ids["subnet"]]
    )
    lifecycle: Lifecycle = "spot" if ids["lifecycle"] == "spot" else "on-demand"
    request = fleet_request(wish, 1, lifecycle, token="")
    del request["ClientToken"]
    return request


# A public key that is one in form only: a dry run imports nothing.
_KEY = b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7 preflight"
_RULE = [{"IpProtocol": "tcp", "FromPort": 5986, "ToPort": 5986, "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}]

PROBES: tuple[Probe, ...] = (
    *(
        Probe(f"ec2:{name}", method)
        for name, method in (
            ("DescribeAddresses", "describe_addresses"),
            ("DescribeInstanceStatus", "describe_instance_status"),
            ("DescribeInternetGateways", "describe_internet_gateways"),
            ("DescribeKeyPairs", "describe_key_pairs"),
            ("DescribeNetworkInterfaces", "describe_network_interfaces"),
            ("DescribeSnapshots", "describe_snapshots"),
            ("DescribeTags", "describe_tags"),
            ("DescribeVolumes", "describe_volumes"),
        )
    ),
    Probe(
        "ec2:CreateVpc",
        "create_vpc",
        (),
        lambda ids, farm: {"CidrBlock": "10.0.0.0/24", "TagSpecifications": _tagged("vpc", farm)},
    ),
    Probe(
        "ec2:CreateInternetGateway",
        "create_internet_gateway",
        (),
        lambda ids, farm: {"TagSpecifications": _tagged("internet-gateway", farm)},
    ),
    Probe(
        "ec2:ImportKeyPair",
        "import_key_pair",
        (),
        lambda ids, farm: {
            "KeyName": f"renderfarm-{farm}-preflight",
            "PublicKeyMaterial": _KEY,
            "TagSpecifications": _tagged("key-pair", farm),
        },
    ),
    Probe(
        "ec2:AllocateAddress",
        "allocate_address",
        (),
        lambda ids, farm: {"Domain": "vpc", "TagSpecifications": _tagged("elastic-ip", farm)},
    ),
    Probe(
        "ec2:CreateLaunchTemplate",
        "create_launch_template",
        (),
        lambda ids, farm: {
            "LaunchTemplateName": f"{farm}-preflight",
            "LaunchTemplateData": {"InstanceType": "c7i.4xlarge"},
            "TagSpecifications": _tagged("launch-template", farm),
        },
    ),
    Probe("ec2:DescribeVpcAttribute", "describe_vpc_attribute", ("vpc",), lambda ids, farm: {
        "VpcId": ids["vpc"], "Attribute": "enableDnsSupport"}),
    Probe("ec2:CreateSubnet", "create_subnet", ("vpc",), lambda ids, farm: {
        "VpcId": ids["vpc"], "CidrBlock": ids["vpc_network"], "TagSpecifications": _tagged("subnet", farm)}),
    Probe("ec2:CreateRouteTable", "create_route_table", ("vpc",), lambda ids, farm: {
        "VpcId": ids["vpc"], "TagSpecifications": _tagged("route-table", farm)}),
    Probe("ec2:CreateSecurityGroup", "create_security_group", ("vpc",), lambda ids, farm: {
        "VpcId": ids["vpc"], "GroupName": f"{farm}-preflight", "Description": "dry run",
        "TagSpecifications": _tagged("security-group", farm)}),
    Probe("ec2:AuthorizeSecurityGroupIngress", "authorize_security_group_ingress", ("group",), lambda ids, farm: {
        "GroupId": ids["group"], "IpPermissions": _RULE}),
    Probe("ec2:RevokeSecurityGroupIngress", "revoke_security_group_ingress", ("group",), lambda ids, farm: {
        "GroupId": ids["group"], "IpPermissions": _RULE}),
    Probe("ec2:CreateRoute", "create_route", ("route_table",), lambda ids, farm: {
        "RouteTableId": ids["route_table"], "DestinationCidrBlock": "192.0.2.0/24", "GatewayId": "local"}),
    # Without a group EC2 takes the VPC's default one (EC2 API Reference, RunInstances), which is not the farm's.
    Probe("ec2:RunInstances", "run_instances", ("subnet", "group", "start_image"), lambda ids, farm: {
        "ImageId": ids["start_image"], "InstanceType": ids["instance_type"], "MinCount": 1, "MaxCount": 1,
        "SubnetId": ids["subnet"], "SecurityGroupIds": [ids["group"]],
        "TagSpecifications": _tagged("instance", farm) + _tagged("volume", farm) + _tagged("network-interface", farm)}),
    Probe("ec2:CreateNetworkInterface", "create_network_interface", ("subnet", "group"), lambda ids, farm: {
        "SubnetId": ids["subnet"], "Groups": [ids["group"]], "TagSpecifications": _tagged("network-interface", farm)}),
    Probe("ec2:GetConsoleOutput", "get_console_output", ("instance",), lambda ids, farm: {
        "InstanceId": ids["instance"]}),
    Probe("ec2:GetPasswordData", "get_password_data", ("instance",), lambda ids, farm: {
        "InstanceId": ids["instance"]}),
    Probe("ec2:DescribeInstanceAttribute", "describe_instance_attribute", ("instance",), lambda ids, farm: {
        "InstanceId": ids["instance"], "Attribute": "sourceDestCheck"}),
    Probe("ec2:StopInstances", "stop_instances", ("instance",), lambda ids, farm: {"InstanceIds": [ids["instance"]]}),
    Probe("ec2:TerminateInstances", "terminate_instances", ("instance",), lambda ids, farm: {
        "InstanceIds": [ids["instance"]]}),
    Probe("ec2:CreateImage", "create_image", ("instance",), lambda ids, farm: {
        "InstanceId": ids["instance"], "Name": f"{farm}-preflight",
        "TagSpecifications": _tagged("image", farm) + _tagged("snapshot", farm)}),
    Probe("ec2:DeregisterImage", "deregister_image", ("image",), lambda ids, farm: {"ImageId": ids["image"]}),
    Probe("ec2:DeleteSnapshot", "delete_snapshot", ("snapshot",), lambda ids, farm: {"SnapshotId": ids["snapshot"]}),
    Probe("ec2:CreateLaunchTemplateVersion", "create_launch_template_version", ("template",), lambda ids, farm: {
        "LaunchTemplateName": ids["template"], "LaunchTemplateData": {"InstanceType": ids["instance_type"]}}),
    Probe("ec2:DeleteLaunchTemplate", "delete_launch_template", ("template",), lambda ids, farm: {
        "LaunchTemplateName": ids["template"]}),
    Probe("ec2:CreateFleet", "create_fleet", ("template", "subnet", "node_type"), lambda ids, farm: _fleet(ids, farm)),
    Probe("ec2:ModifyNetworkInterfaceAttribute", "modify_network_interface_attribute", ("interface",),
          lambda ids, farm: {"NetworkInterfaceId": ids["interface"], "SourceDestCheck": {"Value": False}}),
    Probe("ec2:DeleteNetworkInterface", "delete_network_interface", ("interface",), lambda ids, farm: {
        "NetworkInterfaceId": ids["interface"]}),
)  # fmt: skip


# What only one of the two playbooks does; nobody is stopped for a right that is not needed.
BAKE_ONLY = frozenset({"ec2:CreateImage", "ec2:DeleteSnapshot", "ec2:DeregisterImage", "ec2:StopInstances"})
UP_ONLY = frozenset(
    {
        "ec2:AllocateAddress",
        "ec2:CreateFleet",
        "ec2:CreateLaunchTemplate",
        "ec2:CreateLaunchTemplateVersion",
        "ec2:CreateNetworkInterface",
        "ec2:DeleteLaunchTemplate",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeAddresses",
        "ec2:DescribeNetworkInterfaces",
        "ec2:ModifyNetworkInterfaceAttribute",
    }
)


class CredentialsError(Exception):
    """Nobody may ask anything: all other questions would have the same answer."""


def collect(clients: Clients, wish: Wish, farm: str, base_parameter: str) -> Facts:
    """Everything that the checks need to know from AWS. ``base_parameter``: SSM parameter of the stock image.

    CredentialsError: there are none, or AWS does not take them. What else fails is told in ``Facts.unknown``, or counts
    as a permission that is missing.
    """
    try:
        caller = clients["sts"].get_caller_identity()
    except Exception as error:
        raise CredentialsError(explain(error, doing="ask AWS who this is")) from error
    asked = _all_at_once(_questions(clients, wish, farm, base_parameter))
    others = _other_types(asked["running instances"], wish)
    if others:
        asked |= _all_at_once({_OTHER_TYPES: partial(_types, clients["ec2"], others)})
    facts = Facts(account=str(caller["Account"]), caller=str(caller["Arn"]))
    denied, unknown, known = {}, {}, {}
    for question, answer in asked.items():
        if not isinstance(answer, Exception):
            known[question] = answer
        elif error_code(answer) in DENIED and not _action(answer).startswith(_OPTIONAL_SERVICES):
            denied[_action(answer)] = "denied"
        else:
            unknown[question] = explain(answer, doing=f"find out about {question}")
    _fill(facts, known, farm)
    ids = _ids(known, facts, wish, farm)
    needed = [probe for probe in PROBES if probe.action not in {"bake": UP_ONLY, "up": BAKE_ONLY}.get(wish.purpose, ())]
    possible = [probe for probe in needed if all(ids.get(need) for need in probe.needs)]
    outcomes = _all_at_once({probe.action: _dry_run(clients["ec2"], probe, ids, farm) for probe in possible})
    facts.untried = sorted(probe.action for probe in needed if probe not in possible)
    facts.permissions = {**{action: _outcome(said) for action, said in outcomes.items()}, **denied}
    facts.unknown = unknown
    return facts


def _all_at_once(calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Name -> answer, or the exception instead of it."""
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
    return {name: future.exception() or future.result() for name, future in futures.items()}


def _wished_types(wish: Wish) -> set[str]:
    return {*wish.node_types, wish.manager_type, wish.builder_type}


def _other_types(running: Any, wish: Wish) -> list[str]:
    """The types that run in the account and are none of the wish's. ``running`` may be the reason why nobody knows."""
    if isinstance(running, Exception):
        return []
    return sorted({str(instance["InstanceType"]) for instance in running} - _wished_types(wish))


def _types(ec2: Any, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Those of ``kinds`` that EC2 knows in this Region."""
    return [
        found
        for start in range(0, len(kinds), FILTER_VALUES)
        for page in ec2.get_paginator("describe_instance_types").paginate(
            Filters=[{"Name": "instance-type", "Values": kinds[start : start + FILTER_VALUES]}]
        )
        for found in page["InstanceTypes"]
    ]


def _questions(clients: Clients, wish: Wish, farm: str, base_parameter: str) -> dict[str, Callable[[], Any]]:
    ec2 = clients["ec2"]
    types = sorted(_wished_types(wish))
    by_farm = [{"Name": f"tag:{TAG_FARM}", "Values": [farm]}]
    questions: dict[str, Callable[[], Any]] = {
        "running instances": lambda: _instances(ec2),
        "instance types": lambda: _types(ec2, types),
        "offers in the zones": lambda: ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": types}]
        )["InstanceTypeOfferings"],
        "VPCs": lambda: ec2.describe_vpcs(Filters=by_farm)["Vpcs"],
        "subnets": lambda: ec2.describe_subnets(Filters=by_farm)["Subnets"],
        "security groups": lambda: ec2.describe_security_groups(Filters=by_farm)["SecurityGroups"],
        "route tables": lambda: ec2.describe_route_tables(Filters=by_farm)["RouteTables"],
        "launch templates": lambda: ec2.describe_launch_templates(Filters=by_farm)["LaunchTemplates"],
        "images": lambda: ec2.describe_images(Owners=["self"], Filters=by_farm)["Images"],
        "the stock image": lambda: _stock_image(clients, base_parameter),
        "spot prices": lambda: _spot_prices(ec2, wish),
    }
    for lifecycle, (code, _) in QUOTAS.items():
        questions[f"the quota {lifecycle}"] = partial(_quota, clients["service-quotas"], code)
    for kind in types:
        questions[f"{_PRICE_OF}{kind}"] = partial(_price, clients["pricing"], kind, wish.region)
    return questions


def _price(pricing: Any, kind: str, region: str) -> float | None:
    found = pricing.get_products(ServiceCode="AmazonEC2", Filters=product_filters(kind, region))
    return on_demand_price(found["PriceList"])


def _instances(ec2: Any) -> list[dict[str, Any]]:
    """Everything that counts against the account's quotas in this Region."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}],
        PaginationConfig={"PageSize": PAGE_SIZE},
    )
    return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def _stock_image(clients: Clients, parameter: str) -> dict[str, Any]:
    identifier = clients["ssm"].get_parameter(Name=parameter)["Parameter"]["Value"]
    return _image(clients["ec2"].describe_images(ImageIds=[identifier])["Images"][0])


def _spot_prices(ec2: Any, wish: Wish) -> dict[tuple[str, str], float]:
    """The price of each pool now. With StartTime now EC2 gives the one that is in force (DescribeSpotPriceHistory)."""
    now = datetime.now(UTC)
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=list(wish.node_types), ProductDescriptions=[_PRODUCT], StartTime=now, EndTime=now
    )
    return {
        (entry["InstanceType"], entry["AvailabilityZone"]): float(entry["SpotPrice"])
        for page in pages
        for entry in page["SpotPriceHistory"]
    }


def _quota(quotas: Any, code: str) -> float:
    """The applied value; where none was ever applied, the default of AWS (Service Quotas API Reference)."""
    try:
        return float(quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])
    except Exception as error:
        if error_code(error) != "NoSuchResourceException":
            raise
        return float(quotas.get_aws_default_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"])


def _image(found: Mapping[str, Any]) -> dict[str, Any]:
    disks = [disk["Ebs"] for disk in found.get("BlockDeviceMappings", []) if "Ebs" in disk]
    return {
        "image_id": found["ImageId"],
        "name": found["Name"],
        "created": found["CreationDate"],
        "sizes": [disk["VolumeSize"] for disk in disks if "VolumeSize" in disk],
        "snapshots": [disk["SnapshotId"] for disk in disks if "SnapshotId" in disk],
        "tags": tags(found),
    }


def tags(resource: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}


def _fill(facts: Facts, known: Mapping[str, Any], farm: str) -> None:
    """Put the answers into ``facts``; what was not answered stays None."""
    if (instances := known.get("running instances")) is not None:
        facts.running = [_running(instance, farm) for instance in instances]
    if (types := known.get("instance types")) is not None:
        types = [*types, *known.get(_OTHER_TYPES, ())]
        facts.vcpus = {kind["InstanceType"]: kind["VCpuInfo"]["DefaultVCpus"] for kind in types}
    if (offerings := known.get("offers in the zones")) is not None:
        facts.offered = frozenset((offer["InstanceType"], offer["Location"]) for offer in offerings)
    if (vpcs := known.get("VPCs")) is not None:
        facts.vpc_networks = [str(vpc["CidrBlock"]) for vpc in vpcs]
        own = {vpc["VpcId"] for vpc in vpcs}
        facts.addresses = [str(each["PrivateIpAddress"]) for each in instances or () if each.get("VpcId") in own]
    if (images := known.get("images")) is not None:
        available = [_image(image) for image in images if image["State"] == "available"]
        facts.images = sorted(available, key=lambda image: str(image["created"]), reverse=True)
    facts.base_image = known.get("the stock image")
    facts.spot_prices = known.get("spot prices")
    facts.quotas = {lifecycle: known.get(f"the quota {lifecycle}") for lifecycle in QUOTAS}
    facts.on_demand_prices = {
        name.removeprefix(_PRICE_OF): value for name, value in known.items() if name.startswith(_PRICE_OF)
    }


def _running(instance: Mapping[str, Any], farm: str) -> Running:
    own = tags(instance)
    return Running(
        type=instance["InstanceType"],
        lifecycle=instance.get("InstanceLifecycle", "on-demand"),
        farm_role=own.get(TAG_ROLE, "") if own.get(TAG_FARM) == farm else "",
    )


def _ids(known: Mapping[str, Any], facts: Facts, wish: Wish, farm: str) -> dict[str, str]:
    """Resources of this farm that dry runs may name: a policy that names the farm allows nothing on another's."""
    images: Sequence[Mapping[str, Any]] = facts.images or ()
    start = images[0] if images and wish.purpose == "up" else facts.base_image
    subnet: Mapping[str, Any] = next(iter(known.get("subnets") or ()), {})
    groups = [group for group in known.get("security groups") or () if group.get("VpcId") == subnet.get("VpcId")]
    running = known.get("running instances") or ()
    farm_instances = [instance for instance in running if tags(instance).get(TAG_FARM) == farm]
    return {
        "vpc": _first(known.get("VPCs"), "VpcId"),
        "vpc_network": _first(known.get("VPCs"), "CidrBlock"),
        "subnet": str(subnet.get("SubnetId", "")),
        "group": _first(groups, "GroupId"),
        "route_table": _first(known.get("route tables"), "RouteTableId"),
        "template": _first(known.get("launch templates"), "LaunchTemplateName"),
        "instance": _first(farm_instances, "InstanceId"),
        "interface": next((_first(each.get("NetworkInterfaces"), "NetworkInterfaceId") for each in farm_instances), ""),
        "image": str(images[-1]["image_id"]) if images else "",
        "snapshot": str(images[-1]["snapshots"][0]) if images and images[-1]["snapshots"] else "",
        "start_image": str(start["image_id"]) if start else "",
        "node_type": next(iter(wish.node_types), ""),
        "lifecycle": "spot" if wish.spot else "on-demand",
        "instance_type": wish.builder_type if wish.purpose == "bake" else wish.manager_type,
    }


def _first(found: Iterable[Mapping[str, Any]] | None, key: str) -> str:
    return next((str(entry[key]) for entry in found or ()), "")


def _dry_run(ec2: Any, probe: Probe, ids: Mapping[str, str], farm: str) -> Callable[[], Any]:
    return lambda: getattr(ec2, probe.method)(DryRun=True, **probe.parameters(ids, farm))


def _outcome(said: Any) -> str:
    if not isinstance(said, Exception):
        return "answered"  # reading calls may answer instead of refusing the dry run
    code = error_code(said)
    return "allowed" if code == "DryRunOperation" else "denied" if code in DENIED else code


def _action(error: BaseException) -> str:
    """``ec2:DescribeVpcs`` of a ClientError; its operation is an attribute of botocore's."""
    name = str(getattr(error, "operation_name", "an action"))
    service = {"GetParameter": "ssm", "GetProducts": "pricing"}.get(name)
    return f"{service or ('servicequotas' if 'ServiceQuota' in name else 'ec2')}:{name}"
