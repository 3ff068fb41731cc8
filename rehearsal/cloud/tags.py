"""Tags of everything, found by identifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rehearsal.cloud.actions import action
from rehearsal.cloud.errors import ApiError
from rehearsal.cloud.filters import page, select
from rehearsal.cloud.records import Params
from rehearsal.cloud.region import Region, check_tag_keys

# Prefix of an identifier -> resource type in DescribeTags (EC2 API Reference, TagDescription).
TYPES = {
    "acl": "network-acl",
    "ami": "image",
    "dopt": "dhcp-options",
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "fleet": "fleet",
    "i": "instance",
    "igw": "internet-gateway",
    "key": "key-pair",
    "lt": "launch-template",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "sir": "spot-instances-request",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}


def kind_of(identifier: str) -> str:
    """The resource type. ApiError: no prefix that can be tagged."""
    kind = TYPES.get(identifier.partition("-")[0])
    if kind is None:
        raise ApiError("InvalidID", f"The ID '{identifier}' is not valid")
    return kind


def exists(region: Region, identifier: str) -> bool:
    network = region.network
    tables: dict[str, Mapping[str, Any]] = {
        "acl": network.network_acls,
        "ami": region.images,
        "dopt": network.dhcp_options_sets,
        "eipalloc": region.addresses,
        "eni": region.interfaces,
        "fleet": region.fleets,
        "i": region.instances,
        "igw": network.internet_gateways,
        "key": {pair.id: pair for pair in network.key_pairs.values()},
        "lt": region.templates,
        "rtb": network.route_tables,
        "sir": region.spot_requests,
        "snap": region.snapshots,
        "vol": region.volumes,
        "vpc": network.vpcs,
    }
    prefix = identifier.partition("-")[0]
    if prefix == "subnet":
        return any(identifier in subnets for subnets in network.subnets.values())
    groups = [group for found in network.groups.values() for group in found.values()]
    if prefix == "sg":
        return any(group.id == identifier for group in groups)
    if prefix == "sgr":
        return any(rule.id == identifier for group in groups for rule in (*group.ingress_rules, *group.egress_rules))
    return identifier in tables[prefix]


def _check(region: Region, identifiers: list[str]) -> None:
    for identifier in identifiers:
        kind_of(identifier)
        if not exists(region, identifier):
            code = {
                "i": "InvalidInstanceID.NotFound",
                "ami": "InvalidAMIID.NotFound",
                "snap": "InvalidSnapshot.NotFound",
                "vol": "InvalidVolume.NotFound",
                "eni": "InvalidNetworkInterfaceID.NotFound",
            }.get(identifier.partition("-")[0], "InvalidID")
            raise ApiError(code, f"The ID '{identifier}' does not exist")


@action("CreateTags", "Resources", "Tags")
def create_tags(region: Region, params: Params) -> Params:
    tags = {entry["Key"]: entry.get("Value", "") for entry in params["Tags"]}
    check_tag_keys(tags)
    _check(region, params["Resources"])
    for identifier in params["Resources"]:
        region.tag(identifier, tags)
    return {}


@action("DeleteTags", "Resources", optional=("Tags",))
def delete_tags(region: Region, params: Params) -> Params:
    """A key without a value goes whatever its value is; without Tags all own tags go."""
    _check(region, params["Resources"])
    for identifier in params["Resources"]:
        present = region.tags(identifier)
        wanted = params.get("Tags") or [{"Key": key} for key in present if not key.startswith("aws:")]
        for entry in wanted:
            if "Value" not in entry or present.get(entry["Key"]) == entry["Value"]:
                present.pop(entry["Key"], None)
    return {}


@action("DescribeTags", optional=("Filters", "MaxResults", "NextToken"))
def describe_tags(region: Region, params: Params) -> Params:
    filters = params.get("Filters", [])
    chosen = select(
        "DescribeTags",
        _candidates(region, filters),
        filters,
        {
            "key": lambda item: (item[1],),
            "resource-id": lambda item: (item[0],),
            "resource-type": lambda item: (TYPES.get(item[0].partition("-")[0], ""),),
            "value": lambda item: (item[2],),
        },
        lambda item: {item[1]: item[2]},
    )
    shown, token = page(chosen, params)
    return {
        "Tags": [
            {"Key": key, "ResourceId": name, "ResourceType": kind_of(name), "Value": value}
            for name, key, value in shown
        ],
        "NextToken": token,
    }


def _candidates(region: Region, filters: list[Params]) -> list[tuple[str, str, str]]:
    """(id, key, value): of the named resources only, when a filter names them without wildcards."""
    names = next((entry.get("Values", []) for entry in filters if entry.get("Name") == "resource-id"), None)
    if names is None or any(set(name) & set("*?\\") for name in names):
        names = list(region.network.tags)
    return [(name, key, value) for name in names for key, value in region.tags(name).items()]
