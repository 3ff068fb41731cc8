"""Elastic IP addresses."""

from __future__ import annotations

from ipaddress import IPv4Address

from rehearsal.cloud.actions import action
from rehearsal.cloud.errors import ApiError, missing, unknown
from rehearsal.cloud.filters import Extractors, select
from rehearsal.cloud.instances import attached
from rehearsal.cloud.records import Address, Interface, Params
from rehearsal.cloud.region import Region, tag_specifications


def find(region: Region, params: Params) -> Address:
    """By AllocationId or PublicIp."""
    if "AllocationId" in params:
        if params["AllocationId"] not in region.addresses:
            raise unknown("eipalloc", params["AllocationId"])
        return region.addresses[params["AllocationId"]]
    if "PublicIp" not in params:
        raise missing("AllocationId")
    for address in region.addresses.values():
        if str(address.public) == params["PublicIp"]:
            return address
    raise ApiError("InvalidAddress.NotFound", f"Address '{params['PublicIp']}' not found.")


@action("AllocateAddress", optional=("Domain", "Address", "TagSpecifications", "NetworkBorderGroup"))
def allocate_address(region: Region, params: Params) -> Params:
    if len(region.addresses) >= region.settings.address_quota:
        raise ApiError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
    tags = tag_specifications(params.get("TagSpecifications", []), {"elastic-ip"})
    public = IPv4Address(params["Address"]) if "Address" in params else region.take_public_address()
    if public not in region.settings.public_network or any(item.public == public for item in region.addresses.values()):
        raise ApiError("InvalidAddress.NotFound", f"Address {public} is not available.")
    address = Address(region.new_id("eipalloc"), public)
    region.addresses[address.id] = address
    region.tag(address.id, tags.get("elastic-ip", {}))
    return {
        "PublicIp": str(public),
        "AllocationId": address.id,
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": region.settings.region,
        "Domain": "vpc",
    }


def _target(region: Region, params: Params) -> Interface:
    if "NetworkInterfaceId" in params:
        return region.interface(params["NetworkInterfaceId"])
    if "InstanceId" not in params:
        raise missing("InstanceId")
    instance = region.instance(params["InstanceId"])
    interface = attached(instance)
    if interface is None or not instance.alive:
        raise ApiError("InvalidInstanceID", f"The pending-instance-creation or terminated instance {instance.id} "
                       "cannot have an address.")  # fmt: skip
    return interface


@action(
    "AssociateAddress",
    optional=(
        "AllocationId",
        "PublicIp",
        "InstanceId",
        "NetworkInterfaceId",
        "AllowReassociation",
        "PrivateIpAddress",
    ),
)
def associate_address(region: Region, params: Params) -> Params:
    """An address or an interface that has an association keeps it, unless AllowReassociation is given."""
    address, interface = find(region, params), _target(region, params)
    if params.get("PrivateIpAddress", str(interface.address)) != str(interface.address):
        raise ApiError("InvalidParameterValue", f"{interface.id} has no address {params['PrivateIpAddress']}")
    if region.internet_gateway(interface.vpc_id) is None:
        raise ApiError("Gateway.NotAttached", f"Network {interface.vpc_id} is not attached to any internet gateway")
    if address.interface_id == interface.id:
        return {"AssociationId": address.association_id}
    present = region.elastic_address(interface.id)
    if (address.interface_id or present) and not params.get("AllowReassociation"):
        busy = address if address.interface_id else present
        raise ApiError(
            "Resource.AlreadyAssociated", f"resource {busy.id if busy else ''} is already associated with "
            f"associate-id {busy.association_id if busy else ''}"
        )  # fmt: skip
    if present is not None:
        present.interface_id = present.association_id = None
    address.interface_id, address.association_id = interface.id, region.new_id("eipassoc")
    interface.automatic = None
    return {"AssociationId": address.association_id}


@action("DisassociateAddress", optional=("AssociationId", "PublicIp"))
def disassociate_address(region: Region, params: Params) -> Params:
    for address in region.addresses.values():
        name = address.association_id if "AssociationId" in params else str(address.public)
        if address.interface_id is not None and name in (params.get("AssociationId"), params.get("PublicIp")):
            address.association_id = address.interface_id = None
            return {}
    raise ApiError(
        "InvalidAssociationID.NotFound",
        f"The association ID '{params.get('AssociationId', params.get('PublicIp'))}' does not exist",
    )


@action("ReleaseAddress", optional=("AllocationId", "PublicIp", "NetworkBorderGroup"))
def release_address(region: Region, params: Params) -> Params:
    address = find(region, params)
    if address.interface_id is not None:
        raise ApiError("InvalidIPAddress.InUse", f"Address {address.public} is in use.")
    del region.addresses[address.id]
    region.forget_tags(address.id)
    return {}


def describe_address(region: Region, address: Address) -> Params:
    shown: Params = {
        "AllocationId": address.id,
        "Domain": "vpc",
        "NetworkBorderGroup": region.settings.region,
        "PublicIp": str(address.public),
        "PublicIpv4Pool": "amazon",
        "Tags": region.tag_list(address.id),
    }
    if address.interface_id is not None:
        interface = region.interfaces[address.interface_id]
        shown |= {
            "AssociationId": address.association_id,
            "InstanceId": interface.instance_id,
            "NetworkInterfaceId": interface.id,
            "NetworkInterfaceOwnerId": region.settings.account,
            "PrivateIpAddress": str(interface.address),
        }
    return shown


def _filters(region: Region) -> Extractors[Address]:
    def interface(item: Address) -> Interface | None:
        return region.interfaces.get(item.interface_id or "")

    def private(item: Address) -> tuple[str, ...]:
        found = interface(item)
        return (str(found.address),) if found else ()

    def instance(item: Address) -> tuple[str | None, ...]:
        found = interface(item)
        return (found.instance_id,) if found else ()

    return {
        "allocation-id": lambda item: (item.id,),
        "association-id": lambda item: (item.association_id,),
        "domain": lambda item: ("vpc",),
        "instance-id": instance,
        "network-border-group": lambda item: (region.settings.region,),
        "network-interface-id": lambda item: (item.interface_id,),
        "network-interface-owner-id": lambda item: (region.settings.account,) if item.interface_id else (),
        "private-ip-address": private,
        "public-ip": lambda item: (str(item.public),),
    }


@action("DescribeAddresses", optional=("AllocationIds", "PublicIps", "Filters"))
def describe_addresses(region: Region, params: Params) -> Params:
    items = list(region.addresses.values())
    if "AllocationIds" in params:
        items = [find(region, {"AllocationId": name}) for name in params["AllocationIds"]]
    elif "PublicIps" in params:
        items = [find(region, {"PublicIp": name}) for name in params["PublicIps"]]
    chosen = select(
        "DescribeAddresses", items, params.get("Filters", []), _filters(region), lambda item: region.tags(item.id)
    )
    return {"Addresses": [describe_address(region, item) for item in chosen]}
