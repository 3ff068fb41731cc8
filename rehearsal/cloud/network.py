"""What EC2 checks around VPCs and moto does not; route tables with the state of their routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rehearsal.cloud.actions import COMMON, MOTO, MotoAction, action, by_moto
from rehearsal.cloud.eni import group_in_use
from rehearsal.cloud.errors import ApiError, dependency, invalid, not_modelled
from rehearsal.cloud.filters import Extractors, page, select
from rehearsal.cloud.records import Params
from rehearsal.cloud.region import Region

# Actions whose answers from moto were compared with the EC2 API Reference and with what amazon.aws's modules need, with
# the parameters that moto honours.
LISTING = ("Filters", "MaxResults", "NextToken")
AS_MOTO_DOES: dict[str, tuple[str, ...]] = {
    "AssociateRouteTable": ("RouteTableId", "SubnetId"),
    "CreateInternetGateway": ("TagSpecifications",),
    "CreateRouteTable": ("VpcId", "TagSpecifications", "ClientToken"),
    "CreateSubnet": ("VpcId", "CidrBlock", "AvailabilityZone", "AvailabilityZoneId", "TagSpecifications"),
    "CreateVpc": ("CidrBlock", "InstanceTenancy", "TagSpecifications"),
    "DeleteInternetGateway": ("InternetGatewayId",),
    "DeleteKeyPair": ("KeyName",),
    "DeleteRoute": ("RouteTableId", "DestinationCidrBlock"),
    "DescribeAvailabilityZones": ("ZoneNames", "AllAvailabilityZones", "Filters"),
    "DescribeInstanceTypeOfferings": ("LocationType", *LISTING),
    "DescribeInstanceTypes": ("InstanceTypes", *LISTING),
    "DescribeInternetGateways": ("InternetGatewayIds", *LISTING),
    "DescribeKeyPairs": ("KeyNames", "Filters", "IncludePublicKey"),
    "DescribeNetworkAcls": ("NetworkAclIds", *LISTING),
    "DescribeRegions": ("RegionNames", "AllRegions", "Filters"),
    "DescribeSecurityGroupRules": ("SecurityGroupRuleIds", *LISTING),
    "DescribeSecurityGroups": ("GroupIds", "GroupNames", *LISTING),
    "DescribeSubnets": ("SubnetIds", *LISTING),
    "DescribeVpcAttribute": ("VpcId", "Attribute"),
    "DescribeVpcs": ("VpcIds", *LISTING),
    "DisassociateRouteTable": ("AssociationId",),
    "ImportKeyPair": ("KeyName", "PublicKeyMaterial", "TagSpecifications"),
    "ModifySubnetAttribute": ("SubnetId", "MapPublicIpOnLaunch"),
    "ModifyVpcAttribute": ("VpcId", "EnableDnsSupport", "EnableDnsHostnames"),
    "ReplaceRouteTableAssociation": ("AssociationId", "RouteTableId"),
    "RevokeSecurityGroupEgress": ("GroupId", "IpPermissions", "SecurityGroupRuleIds"),
    "RevokeSecurityGroupIngress": ("GroupId", "IpPermissions", "SecurityGroupRuleIds"),
    "UpdateSecurityGroupRuleDescriptionsEgress": ("GroupId", "IpPermissions"),
    "UpdateSecurityGroupRuleDescriptionsIngress": ("GroupId", "IpPermissions"),
}
MOTO.update({name: MotoAction(frozenset(known) | COMMON) for name, known in AS_MOTO_DOES.items()})


# ------------------------------------------------------------------------------------------------------ what is in use


@by_moto("CreateSecurityGroup", "GroupName", "Description", "VpcId", "TagSpecifications")
def create_security_group(region: Region, params: Params) -> None:
    if not params.get("VpcId"):
        raise ApiError("VPCIdNotSpecified", "No default VPC for this user")
    if params["VpcId"] not in region.network.vpcs:
        raise ApiError("InvalidVpcID.NotFound", f"The vpc ID '{params['VpcId']}' does not exist")


@by_moto("AuthorizeSecurityGroupIngress", "GroupId", "IpPermissions", "TagSpecifications")
@by_moto("AuthorizeSecurityGroupEgress", "GroupId", "IpPermissions", "TagSpecifications")
def referenced_groups(region: Region, params: Params) -> None:
    """A rule can name only groups that exist."""
    for permission in params.get("IpPermissions", []):
        for pair in permission.get("UserIdGroupPairs", []):
            name = pair.get("GroupId")
            if name is not None and region.network.get_security_group_from_id(name) is None:
                raise ApiError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")


@by_moto("DeleteSecurityGroup", "GroupId")
def delete_security_group(region: Region, params: Params) -> None:
    """Not while an interface is in it or another group's rule names it; the VPC's default group never."""
    name = params.get("GroupId", "")
    group = region.network.get_security_group_from_id(name)
    if group is None:
        return
    if group.name == "default":
        raise ApiError("CannotDelete", f'the specified group: "{name}" name: "default" cannot be deleted by a user')
    if group_in_use(region, name) or any(_names(other, name) for other in _groups(region) if other.id != name):
        raise dependency(f"resource {name} has a dependent object")


def _groups(region: Region) -> Iterator[Any]:
    for groups in region.network.groups.values():
        yield from groups.values()


def _names(group: Any, identifier: str) -> bool:
    return any(rule.source_group.get("GroupId") == identifier for rule in (*group.ingress_rules, *group.egress_rules))


@by_moto("DeleteSubnet", "SubnetId")
def delete_subnet(region: Region, params: Params) -> None:
    name = params["SubnetId"]
    if any(interface.subnet_id == name for interface in region.interfaces.values()):
        raise dependency(f"The subnet '{name}' has dependencies and cannot be deleted.")
    # An association ends with its subnet.
    for table in region.network.route_tables.values():
        for association, subnet in list(table._associations.items()):
            if subnet == name:
                del table._associations[association]


@by_moto("CreateKeyPair", "KeyName", "KeyType", "KeyFormat", "TagSpecifications")
def create_key_pair(region: Region, params: Params) -> None:
    if params.get("KeyFormat", "pem") != "pem":
        raise not_modelled(f"key pairs in the format {params['KeyFormat']}")


@by_moto("DeleteVpc", "VpcId")
def delete_vpc(region: Region, params: Params) -> None:
    name = params["VpcId"]
    network = region.network
    used = region.internet_gateway(name) is not None
    used |= any(group.name != "default" for group in network.groups[name].values())
    used |= any(subnet.vpc_id == name for subnets in network.subnets.values() for subnet in subnets.values())
    used |= sum(table.vpc_id == name for table in network.route_tables.values()) > 1
    if used and name in network.vpcs:
        raise dependency(f"The vpc '{name}' has dependencies and cannot be deleted.")


@by_moto("DetachInternetGateway", "InternetGatewayId", "VpcId")
def detach_internet_gateway(region: Region, params: Params) -> None:
    name = params["VpcId"]
    if any(
        region.public_address(interface) is not None
        for interface in region.interfaces.values()
        if interface.vpc_id == name
    ):
        raise dependency(
            f"Network {name} has some mapped public address(es). Please unmap those public address(es) before "
            "detaching the gateway."
        )


@by_moto("AttachInternetGateway", "InternetGatewayId", "VpcId")
def attach_internet_gateway(region: Region, params: Params) -> None:
    present = region.internet_gateway(params["VpcId"])
    if present is not None and present != params["InternetGatewayId"]:
        raise invalid(f"Network {params['VpcId']} already has an internet gateway attached")


@by_moto("DeleteRouteTable", "RouteTableId")
def delete_route_table(region: Region, params: Params) -> None:
    table = region.network.route_tables.get(params["RouteTableId"])
    if table is not None and table.main_association_id is not None:
        raise dependency(f"The routeTable '{table.id}' has dependencies and cannot be deleted.")


# --------------------------------------------------------------------------------------------------------------- routes


def route_target(region: Region, table: Any, route: Any) -> str:
    """``local``, ``igw-…``, ``eni-…``, or ``blackhole`` when what the route names cannot forward any more."""
    if route.local:
        return "local"
    if route.gateway is not None:
        name = str(route.gateway.id)
        return name if region.internet_gateway(table.vpc_id) == name else "blackhole"
    interface = region.interfaces.get(route.interface.id) if route.interface is not None else None
    if interface is None or interface.instance_id is None:
        return "blackhole"
    return interface.id


def _describe_route(region: Region, table: Any, route: Any) -> Params:
    target = route_target(region, table, route)
    shown: Params = {
        "DestinationCidrBlock": route.destination_cidr_block,
        "Origin": "CreateRouteTable" if route.local else "CreateRoute",
        "State": "blackhole" if target == "blackhole" else "active",
    }
    if route.local:
        shown["GatewayId"] = "local"
    elif route.gateway is not None:
        shown["GatewayId"] = route.gateway.id
    elif route.interface is not None:
        shown["NetworkInterfaceId"] = route.interface.id
        interface = region.interfaces.get(route.interface.id)
        if interface is not None and interface.instance_id is not None:
            shown |= {"InstanceId": interface.instance_id, "InstanceOwnerId": region.settings.account}
    return shown


def describe_route_table(region: Region, table: Any) -> Params:
    return {
        "Associations": table.associations,
        "PropagatingVgws": [],
        "RouteTableId": table.id,
        "Routes": [_describe_route(region, table, route) for route in table.routes],
        "Tags": region.tag_list(table.id),
        "VpcId": table.vpc_id,
        "OwnerId": region.settings.account,
    }


ROUTE_TABLE_FILTERS: Extractors[Any] = {
    "route-table-id": lambda item: (item.id,),
    "vpc-id": lambda item: (item.vpc_id,),
    "association.main": lambda item: (item.main_association_id is not None,),
    "association.route-table-association-id": lambda item: item.all_associations_ids,
    "association.route-table-id": lambda item: (item.id,),
    "association.subnet-id": lambda item: item._associations.values(),
    "route.destination-cidr-block": lambda item: [route.destination_cidr_block for route in item.routes],
    "route.gateway-id": lambda item: [route.gateway_id for route in item.routes],
}


@action("DescribeRouteTables", optional=("RouteTableIds", "Filters", "MaxResults", "NextToken"))
def describe_route_tables(region: Region, params: Params) -> Params:
    wanted = params.get("RouteTableIds", [])
    items = [region.network.get_route_table(name) for name in wanted] or list(region.network.route_tables.values())
    chosen = select(
        "DescribeRouteTables",
        items,
        params.get("Filters", []),
        ROUTE_TABLE_FILTERS,
        lambda item: region.tags(item.id),
    )
    shown, token = page(chosen, params)
    return {"RouteTables": [describe_route_table(region, item) for item in shown], "NextToken": token}


ROUTE = ("RouteTableId", "DestinationCidrBlock", "GatewayId", "NetworkInterfaceId")


@by_moto("CreateRoute", *ROUTE)
@by_moto("ReplaceRoute", *ROUTE)
def route(region: Region, params: Params) -> None:
    """Targets are the internet gateway of the VPC, or a network interface in it."""
    table = region.network.get_route_table(params["RouteTableId"])
    if "NetworkInterfaceId" in params:
        target = params["NetworkInterfaceId"]
        fits = region.interface(target).vpc_id == table.vpc_id
    else:
        target = params.get("GatewayId", "")
        fits = region.internet_gateway(table.vpc_id) == target
    if not fits:
        raise invalid(f"route table {table.id} and {target or 'no target'} belong to different networks")
