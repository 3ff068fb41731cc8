"""Elastic network interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rehearsal.cloud.actions import action, attribute, check_fields
from rehearsal.cloud.errors import ApiError, combination, invalid, not_modelled, unknown
from rehearsal.cloud.filters import Extractors, page, select
from rehearsal.cloud.records import Instance, Interface, Params
from rehearsal.cloud.region import Region, tag_specifications
from rehearsal.vpc_dns import private_name, public_name


def create_interface(
    region: Region,
    subnet: Any,
    *,
    address: str | None = None,
    groups: Sequence[str] = (),
    description: str = "",
    delete_on_termination: bool = False,
    public: bool = False,
) -> Interface:
    """A new interface in the subnet. ApiError: address or group that EC2 would refuse."""
    ids = region.security_groups(groups, subnet.vpc_id) if groups else [region.default_group(subnet.vpc_id)]
    interface = Interface(
        id=region.new_id("eni"),
        mac=region.new_mac(),
        subnet_id=subnet.id,
        vpc_id=subnet.vpc_id,
        zone=subnet.availability_zone,
        address=region.take_address(subnet, address),
        group_ids=ids,
        description=description,
        delete_on_termination=delete_on_termination,
        wants_public=public,
    )
    region.interfaces[interface.id] = interface
    return interface


def attach(region: Region, interface: Interface, instance: Instance, index: int) -> None:
    interface.instance_id = instance.id
    interface.device_index = index
    interface.attachment_id = region.new_id("eni-attach")
    interface.attach_time = region.now()
    instance.interfaces[index] = interface
    if index == 0:
        instance.primary = interface


def detach(region: Region, interface: Interface) -> None:
    instance = region.instances.get(interface.instance_id or "")
    if instance is not None:
        instance.interfaces.pop(interface.device_index, None)
    interface.instance_id = interface.attachment_id = interface.automatic = None
    interface.device_index = 0
    interface.delete_on_termination = False


def release_interfaces(region: Region, instance: Instance) -> None:
    """An instance is gone: its interfaces are deleted or kept, by their DeleteOnTermination."""
    for interface in list(instance.interfaces.values()):
        if interface.delete_on_termination:
            delete_interface(region, interface)
        else:
            detach(region, interface)
    instance.interfaces.clear()


def delete_interface(region: Region, interface: Interface) -> None:
    elastic = region.elastic_address(interface.id)
    if elastic is not None:
        elastic.interface_id = elastic.association_id = None
    interface.automatic = None
    del region.interfaces[interface.id]
    region.forget_tags(interface.id)


# ---------------------------------------------------------------------------------------------------------- describing


def groups_of(region: Region, interface: Interface) -> list[Params]:
    groups = region.network.groups[interface.vpc_id]
    return [{"GroupId": name, "GroupName": groups[name].name} for name in interface.group_ids if name in groups]


def private_dns_name(region: Region, interface: Interface) -> str:
    """Amazon VPC User Guide, "DNS hostnames": the IP name of the private address."""
    return private_name(interface.address, region.settings.region)


def public_dns_name(region: Region, interface: Interface) -> str:
    address = region.public_address(interface)
    if address is None or not region.vpc(interface.vpc_id).enable_dns_hostnames:
        return ""
    return public_name(address, region.settings.region)


def association(region: Region, interface: Interface) -> Params | None:
    """The public address of an interface, as both Describe calls show it."""
    address = region.public_address(interface)
    if address is None:
        return None
    elastic = region.elastic_address(interface.id)
    return {
        "IpOwnerId": region.settings.account if elastic else "amazon",
        "PublicDnsName": public_dns_name(region, interface),
        "PublicIp": str(address),
    }


def _own_association(region: Region, interface: Interface) -> Params | None:
    shown = association(region, interface)
    elastic = region.elastic_address(interface.id)
    if shown is not None and elastic is not None:
        shown |= {"AllocationId": elastic.id, "AssociationId": elastic.association_id}
    return shown


def describe_interface(region: Region, interface: Interface) -> Params:
    dns = private_dns_name(region, interface)
    own = _own_association(region, interface)
    shown: Params = {
        "NetworkInterfaceId": interface.id,
        "AvailabilityZone": interface.zone,
        "Description": interface.description,
        "Groups": groups_of(region, interface),
        "InterfaceType": "interface",
        "Ipv6Addresses": [],
        "MacAddress": interface.mac,
        "OwnerId": region.settings.account,
        "PrivateDnsName": dns,
        "PrivateIpAddress": str(interface.address),
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateDnsName": dns,
                "PrivateIpAddress": str(interface.address),
                "Association": own,
            }
        ],
        "RequesterManaged": False,
        "SourceDestCheck": interface.source_dest_check,
        "Status": "in-use" if interface.attachment_id else "available",
        "SubnetId": interface.subnet_id,
        "TagSet": region.tag_list(interface.id),
        "VpcId": interface.vpc_id,
        "Association": own,
    }
    if interface.attachment_id:
        shown["Attachment"] = {
            "AttachTime": interface.attach_time,
            "AttachmentId": interface.attachment_id,
            "DeleteOnTermination": interface.delete_on_termination,
            "DeviceIndex": interface.device_index,
            "NetworkCardIndex": 0,
            "InstanceId": interface.instance_id,
            "InstanceOwnerId": region.settings.account,
            "Status": "attached",
        }
    return shown


def instance_interface(region: Region, interface: Interface) -> Params:
    """An interface as DescribeInstances shows it."""
    dns = private_dns_name(region, interface)
    public = association(region, interface)
    return {
        "Association": public,
        "Attachment": {
            "AttachTime": interface.attach_time,
            "AttachmentId": interface.attachment_id,
            "DeleteOnTermination": interface.delete_on_termination,
            "DeviceIndex": interface.device_index,
            "NetworkCardIndex": 0,
            "Status": "attached",
        },
        "Description": interface.description,
        "Groups": groups_of(region, interface),
        "Ipv6Addresses": [],
        "MacAddress": interface.mac,
        "NetworkInterfaceId": interface.id,
        "OwnerId": region.settings.account,
        "PrivateDnsName": dns,
        "PrivateIpAddress": str(interface.address),
        "PrivateIpAddresses": [
            {
                "Association": public,
                "Primary": True,
                "PrivateDnsName": dns,
                "PrivateIpAddress": str(interface.address),
            }
        ],
        "SourceDestCheck": interface.source_dest_check,
        "Status": "in-use",
        "SubnetId": interface.subnet_id,
        "VpcId": interface.vpc_id,
        "InterfaceType": "interface",
    }


def _extractors(region: Region) -> Extractors[Interface]:
    def public(item: Interface) -> tuple[str, ...]:
        address = region.public_address(item)
        return (str(address),) if address else ()

    def elastic(item: Interface, name: str) -> tuple[str | None, ...]:
        address = region.elastic_address(item.id)
        return (getattr(address, name),) if address else ()

    return {
        "network-interface-id": lambda item: (item.id,),
        "subnet-id": lambda item: (item.subnet_id,),
        "vpc-id": lambda item: (item.vpc_id,),
        "availability-zone": lambda item: (item.zone,),
        "description": lambda item: (item.description,),
        "group-id": lambda item: item.group_ids,
        "group-name": lambda item: [group["GroupName"] for group in groups_of(region, item)],
        "mac-address": lambda item: (item.mac,),
        "owner-id": lambda item: (region.settings.account,),
        "private-dns-name": lambda item: (private_dns_name(region, item),),
        "private-ip-address": lambda item: (str(item.address),),
        "addresses.private-ip-address": lambda item: (str(item.address),),
        "addresses.association.public-ip": public,
        "association.public-ip": public,
        "association.allocation-id": lambda item: elastic(item, "id"),
        "association.association-id": lambda item: elastic(item, "association_id"),
        "attachment.instance-id": lambda item: (item.instance_id,),
        "attachment.attachment-id": lambda item: (item.attachment_id,),
        "attachment.device-index": lambda item: (item.device_index,) if item.attachment_id else (),
        "attachment.delete-on-termination": lambda item: (item.delete_on_termination,) if item.attachment_id else (),
        "attachment.status": lambda item: ("attached" if item.attachment_id else "detached",),
        "source-dest-check": lambda item: (item.source_dest_check,),
        "status": lambda item: ("in-use" if item.attachment_id else "available",),
        "interface-type": lambda item: ("interface",),
        "requester-managed": lambda item: (False,),
    }


# ------------------------------------------------------------------------------------------------------------- actions


@action(
    "CreateNetworkInterface",
    "SubnetId",
    optional=("PrivateIpAddress", "PrivateIpAddresses", "Groups", "Description", "TagSpecifications", "ClientToken"),
)
def create_network_interface(region: Region, params: Params) -> Params:
    known = region.remembered("CreateNetworkInterface", params)
    if known is None:
        subnet = region.subnet(params["SubnetId"])
        tags = tag_specifications(params.get("TagSpecifications", []), {"network-interface"})
        interface = create_interface(
            region,
            subnet,
            address=primary_address(params),
            groups=params.get("Groups", []),
            description=params.get("Description", ""),
        )
        region.tag(interface.id, tags.get("network-interface", {}))
        region.remember("CreateNetworkInterface", params, interface.id)
        known = interface.id
    return {"NetworkInterface": describe_interface(region, region.interface(known))}


def primary_address(params: Params) -> str | None:
    """PrivateIpAddress, or the primary one of PrivateIpAddresses. Secondary addresses are not modelled."""
    listed = params.get("PrivateIpAddresses", [])
    if any(not entry.get("Primary") for entry in listed):
        raise not_modelled("secondary private addresses of a network interface")
    if listed and params.get("PrivateIpAddress"):
        raise combination("Only one primary private IP address can be specified.")
    return listed[0]["PrivateIpAddress"] if listed else params.get("PrivateIpAddress")


@action("DeleteNetworkInterface", "NetworkInterfaceId")
def delete_network_interface(region: Region, params: Params) -> Params:
    interface = region.interface(params["NetworkInterfaceId"])
    if interface.attachment_id:
        raise invalid(f"Network interface '{interface.id}' is currently in use.")
    delete_interface(region, interface)
    return {}


@action("DescribeNetworkInterfaces", optional=("Filters", "NetworkInterfaceIds", "MaxResults", "NextToken"))
def describe_network_interfaces(region: Region, params: Params) -> Params:
    wanted = params.get("NetworkInterfaceIds", [])
    absent = [name for name in wanted if name not in region.interfaces]
    if absent:
        raise unknown("eni", *absent)
    items = [region.interfaces[name] for name in wanted] if wanted else list(region.interfaces.values())
    chosen = select(
        "DescribeNetworkInterfaces",
        items,
        params.get("Filters", []),
        _extractors(region),
        lambda item: region.tags(item.id),
    )
    shown, token = page(chosen, params, ids="NetworkInterfaceIds")
    return {"NetworkInterfaces": [describe_interface(region, item) for item in shown], "NextToken": token}


@action("DescribeNetworkInterfaceAttribute", "NetworkInterfaceId", "Attribute")
def describe_network_interface_attribute(region: Region, params: Params) -> Params:
    interface = region.interface(params["NetworkInterfaceId"])
    shown = describe_interface(region, interface)
    values: Params = {
        "description": {"Description": {"Value": interface.description}},
        "groupSet": {"Groups": shown["Groups"]},
        "sourceDestCheck": {"SourceDestCheck": {"Value": interface.source_dest_check}},
        "attachment": {"Attachment": shown.get("Attachment")},
    }
    if params["Attribute"] not in values:
        raise not_modelled(f"the attribute {params['Attribute']} of DescribeNetworkInterfaceAttribute")
    return {"NetworkInterfaceId": interface.id, **values[params["Attribute"]]}


@action(
    "ModifyNetworkInterfaceAttribute",
    "NetworkInterfaceId",
    optional=("Description", "SourceDestCheck", "Groups", "Attachment"),
)
def modify_network_interface_attribute(region: Region, params: Params) -> Params:
    interface = region.interface(params["NetworkInterfaceId"])
    if attribute(params, "Description") is not None:
        interface.description = attribute(params, "Description") or ""
    if attribute(params, "SourceDestCheck") is not None:
        interface.source_dest_check = bool(attribute(params, "SourceDestCheck"))
    if params.get("Groups"):
        interface.group_ids = region.security_groups(params["Groups"], interface.vpc_id)
    if "Attachment" in params:
        attachment = params["Attachment"]
        check_fields("ModifyNetworkInterfaceAttribute.Attachment", attachment, {"AttachmentId", "DeleteOnTermination"})
        if attachment.get("AttachmentId") != interface.attachment_id:
            raise _no_attachment(attachment.get("AttachmentId"))
        interface.delete_on_termination = bool(attachment.get("DeleteOnTermination"))
    return {}


def _no_attachment(identifier: str | None) -> ApiError:
    return ApiError("InvalidAttachmentID.NotFound", f"The attachment ID '{identifier}' does not exist")


@action("AttachNetworkInterface", "DeviceIndex", "InstanceId", "NetworkInterfaceId", optional=("NetworkCardIndex",))
def attach_network_interface(region: Region, params: Params) -> Params:
    interface, instance = region.interface(params["NetworkInterfaceId"]), region.instance(params["InstanceId"])
    check_attachable(interface, instance.zone)
    if params["DeviceIndex"] in instance.interfaces:
        raise invalid(f"Instance '{instance.id}' already has an interface attached at device index "
                      f"'{params['DeviceIndex']}'.")  # fmt: skip
    attach(region, interface, instance, params["DeviceIndex"])
    return {"AttachmentId": interface.attachment_id, "NetworkCardIndex": 0}


def check_attachable(interface: Interface, zone: str) -> None:
    if interface.attachment_id:
        raise ApiError("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    if interface.zone != zone:
        raise invalid(
            f"You may not attach a network interface to an instance if they are not in the same availability zone: "
            f"{interface.id} is in {interface.zone}, the instance in {zone}"
        )


@action("DetachNetworkInterface", "AttachmentId", optional=("Force",))
def detach_network_interface(region: Region, params: Params) -> Params:
    for interface in region.interfaces.values():
        if interface.attachment_id == params["AttachmentId"]:
            if interface.device_index == 0:
                raise ApiError(
                    "OperationNotPermitted",
                    "The network interface at device index 0 and networkCard index 0 cannot be detached.",
                )
            detach(region, interface)
            return {}
    raise _no_attachment(params["AttachmentId"])


def group_in_use(region: Region, group_id: str) -> bool:
    return any(group_id in interface.group_ids for interface in region.interfaces.values())
