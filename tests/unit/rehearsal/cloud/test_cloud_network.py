"""VPCs, groups, routes, interfaces and public addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from simulated_ec2 import Aws, refused

from rehearsal.interfaces import RouteView, SecurityRule


def interface(aws: Aws, subnet: str, **params: Any) -> dict[str, Any]:
    return aws.ec2.create_network_interface(SubnetId=subnet, **params)["NetworkInterface"]


def test_addresses_that_cannot_be_had(aws: Aws) -> None:
    """In use, outside of the subnet, or one of the five that EC2 keeps."""
    subnet = aws.subnet()
    interface(aws, subnet, PrivateIpAddress="10.0.0.10")
    with refused("InvalidIPAddress.InUse"):
        interface(aws, subnet, PrivateIpAddress="10.0.0.10")
    with refused("InvalidIPAddress.InUse"):
        aws.launch(subnet, PrivateIpAddress="10.0.0.10")
    for address in ("10.0.1.4", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.255", "10.0.0"):
        with refused("InvalidParameterValue"):
            interface(aws, subnet, PrivateIpAddress=address)
    with refused("RehearsalNotImplemented"):
        interface(aws, subnet, PrivateIpAddresses=[{"PrivateIpAddress": "10.0.0.11", "Primary": False}])


def test_an_interface_outlives_its_instance(aws: Aws) -> None:
    """Passed by id it keeps MAC and address; made at launch it goes with the instance."""
    subnet = aws.subnet()
    kept = interface(aws, subnet, PrivateIpAddress="10.0.0.10")
    name = aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": kept["NetworkInterfaceId"]}])[0]
    assert name["PrivateIpAddress"] == "10.0.0.10"
    assert name["NetworkInterfaces"][0]["MacAddress"] == kept["MacAddress"]
    other = aws.launch(subnet)[0]
    with refused("InvalidNetworkInterface.InUse"):
        aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": kept["NetworkInterfaceId"]}])
    with refused("InvalidParameterValue"):
        aws.ec2.delete_network_interface(NetworkInterfaceId=kept["NetworkInterfaceId"])
    aws.running()
    aws.ec2.terminate_instances(InstanceIds=[name["InstanceId"], other["InstanceId"]])
    aws.running()
    left = aws.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [(item["NetworkInterfaceId"], item["Status"]) for item in left] == [
        (kept["NetworkInterfaceId"], "available")
    ]
    again = aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": kept["NetworkInterfaceId"]}])[0]
    assert again["NetworkInterfaces"][0]["MacAddress"] == kept["MacAddress"]


def test_delete_on_termination_of_a_passed_interface(aws: Aws) -> None:
    name = interface(aws, aws.subnet())["NetworkInterfaceId"]
    nic = {"DeviceIndex": 0, "NetworkInterfaceId": name, "DeleteOnTermination": True}
    instance = aws.launch(NetworkInterfaces=[nic])[0]["InstanceId"]
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.running()
    assert not aws.ec2.describe_network_interfaces()["NetworkInterfaces"]


def test_the_address_is_free_after_termination(aws: Aws) -> None:
    """A stopped instance keeps its private address, a terminated one does not."""
    subnet = aws.subnet()
    name = aws.launch(subnet, PrivateIpAddress="10.0.0.20")[0]["InstanceId"]
    aws.running()
    aws.ec2.stop_instances(InstanceIds=[name])
    aws.running()
    with refused("InvalidIPAddress.InUse"):
        aws.launch(subnet, PrivateIpAddress="10.0.0.20")
    aws.ec2.terminate_instances(InstanceIds=[name])
    aws.running()
    assert aws.launch(subnet, PrivateIpAddress="10.0.0.20")


def test_source_dest_check_is_one_setting(aws: Aws) -> None:
    """Changed at the instance it shows at the interface, and the other way round."""
    instance = aws.launch()[0]
    name, nic = instance["InstanceId"], instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    aws.ec2.modify_instance_attribute(InstanceId=name, SourceDestCheck={"Value": False})
    assert not aws.ec2.describe_network_interfaces()["NetworkInterfaces"][0]["SourceDestCheck"]
    assert not aws.instance(name)["SourceDestCheck"]
    aws.ec2.modify_network_interface_attribute(NetworkInterfaceId=nic, SourceDestCheck={"Value": True})
    assert aws.instance(name)["SourceDestCheck"]
    assert aws.cloud.view().instances[0].interface.source_dest_check


def test_a_second_interface(aws: Aws) -> None:
    """Attach and detach; device index 0 stays."""
    subnet = aws.subnet()
    name = aws.launch(subnet)[0]["InstanceId"]
    second = interface(aws, subnet, Description="second")["NetworkInterfaceId"]
    attachment = aws.ec2.attach_network_interface(InstanceId=name, NetworkInterfaceId=second, DeviceIndex=1)
    assert [nic["Attachment"]["DeviceIndex"] for nic in aws.instance(name)["NetworkInterfaces"]] == [0, 1]
    aws.ec2.detach_network_interface(AttachmentId=attachment["AttachmentId"])
    primary = aws.instance(name)["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    with refused("OperationNotPermitted"):
        aws.ec2.detach_network_interface(AttachmentId=primary)


# ------------------------------------------------------------------------------------------------------- what is in use


def test_a_group_in_use_stays(aws: Aws) -> None:
    """Not while an interface is in it, or a rule of another group names it."""
    vpc = aws.vpc()
    subnet, used, named, user = aws.subnet(vpc), aws.group(vpc, "a"), aws.group(vpc, "b"), aws.group(vpc, "c")
    pair = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": named}]}]
    aws.ec2.authorize_security_group_ingress(GroupId=user, IpPermissions=pair)
    name = aws.launch(subnet, SecurityGroupIds=[used])[0]["InstanceId"]
    for group in (used, named):
        with refused("DependencyViolation"):
            aws.ec2.delete_security_group(GroupId=group)
    aws.ec2.terminate_instances(InstanceIds=[name])
    with refused("DependencyViolation"):
        aws.ec2.delete_security_group(GroupId=used)
    aws.running()
    for group in (used, user, named):
        aws.ec2.delete_security_group(GroupId=group)
    default = aws.ec2.describe_security_groups()["SecurityGroups"][0]
    with refused("CannotDelete"):
        aws.ec2.delete_security_group(GroupId=default["GroupId"])


def test_the_default_group_lets_its_members_in(aws: Aws) -> None:
    vpc = aws.vpc()
    group = aws.ec2.describe_security_groups()["SecurityGroups"][0]
    assert group["VpcId"] == vpc
    assert group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"] == group["GroupId"]


def test_vpc_and_subnet_in_use_stay(aws: Aws) -> None:
    vpc = aws.vpc()
    subnet = aws.subnet(vpc)
    gateway = aws.gateway(vpc)
    table = aws.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    aws.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    nic = interface(aws, subnet)["NetworkInterfaceId"]
    with refused("DependencyViolation"):
        aws.ec2.delete_subnet(SubnetId=subnet)
    with refused("DependencyViolation"):
        aws.ec2.delete_route_table(RouteTableId=table)
    aws.ec2.delete_network_interface(NetworkInterfaceId=nic)
    aws.ec2.delete_subnet(SubnetId=subnet)
    with refused("DependencyViolation"):
        aws.ec2.delete_vpc(VpcId=vpc)
    with refused("DependencyViolation"):
        aws.ec2.delete_internet_gateway(InternetGatewayId=gateway)
    aws.ec2.delete_route_table(RouteTableId=table)
    aws.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    aws.ec2.delete_internet_gateway(InternetGatewayId=gateway)
    group = aws.group(vpc)
    with refused("DependencyViolation"):
        aws.ec2.delete_vpc(VpcId=vpc)
    aws.ec2.delete_security_group(GroupId=group)
    aws.ec2.delete_vpc(VpcId=vpc)
    assert not aws.cloud.view().vpcs


def test_a_gateway_with_mapped_addresses_stays(aws: Aws) -> None:
    vpc = aws.vpc()
    subnet, gateway = aws.subnet(vpc), aws.gateway(vpc)
    nic = interface(aws, subnet)["NetworkInterfaceId"]
    address = aws.ec2.allocate_address(Domain="vpc")
    made = aws.ec2.associate_address(AllocationId=address["AllocationId"], NetworkInterfaceId=nic)
    with refused("DependencyViolation"):
        aws.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    aws.ec2.disassociate_address(AssociationId=made["AssociationId"])
    aws.ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)


def test_one_gateway_per_vpc(aws: Aws) -> None:
    vpc = aws.vpc()
    aws.gateway(vpc)
    with refused("InvalidParameterValue"):
        aws.gateway(vpc)


def test_groups_need_a_vpc_and_rules_need_groups(aws: Aws) -> None:
    with refused("VPCIdNotSpecified"):
        aws.ec2.create_security_group(GroupName="a", Description="a")
    group = aws.group(aws.vpc())
    absent = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-0123456789abcdef0"}]}]
    with refused("InvalidGroup.NotFound"):
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=absent)
    rule = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)
    with refused("InvalidPermission.Duplicate"):
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rule)


# --------------------------------------------------------------------------------------------------------------- routes


def test_routes_of_a_subnet_in_the_view(aws: Aws) -> None:
    """The associated table, else the main table; a route to an interface without a machine is a black hole."""
    vpc = aws.vpc("10.0.0.0/16")
    first, second = aws.subnet(vpc, "10.0.0.0/24"), aws.subnet(vpc, "10.0.1.0/24")
    gateway = aws.gateway(vpc)
    nic = interface(aws, first)["NetworkInterfaceId"]
    table = aws.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    aws.ec2.associate_route_table(RouteTableId=table, SubnetId=first)
    aws.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    aws.ec2.create_route(RouteTableId=table, DestinationCidrBlock="192.168.1.0/24", NetworkInterfaceId=nic)

    def seen() -> Any:
        return aws.cloud.view().vpcs[0].routes

    local = RouteView(IPv4Network("10.0.0.0/16"), "local")
    assert seen()[second] == (local,)
    out = RouteView(IPv4Network("0.0.0.0/0"), gateway)
    assert seen()[first] == (local, out, RouteView(IPv4Network("192.168.1.0/24"), "blackhole"))
    instance = aws.launch(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": nic}])[0]["InstanceId"]
    assert seen()[first][2].target == nic
    shown = aws.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    assert shown[2]["InstanceId"] == instance
    assert {route["State"] for route in shown} == {"active"}
    aws.ec2.terminate_instances(InstanceIds=[instance])
    aws.running()
    shown = aws.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
    assert shown[2]["State"] == "blackhole"


def test_routes_name_targets_of_their_own_vpc(aws: Aws) -> None:
    here, there = aws.vpc(), aws.vpc("10.1.0.0/24")
    table = aws.ec2.create_route_table(VpcId=here)["RouteTable"]["RouteTableId"]
    gateway = aws.gateway(there)
    nic = interface(aws, aws.subnet(there, "10.1.0.0/24"))["NetworkInterfaceId"]
    for target in ({"GatewayId": gateway}, {"NetworkInterfaceId": nic}):
        with refused("InvalidParameterValue"):
            aws.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **target)
    with refused("RehearsalNotImplemented"):
        aws.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId="nat-1")


# ---------------------------------------------------------------------------------------------------- public addresses


def test_lent_addresses_go_when_the_instance_stops(aws: Aws) -> None:
    """A subnet that maps public addresses lends one while the instance runs; a start brings another."""
    subnet = aws.subnet()
    aws.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    instance = aws.launch(subnet)[0]
    first = IPv4Address(instance["PublicIpAddress"])
    assert first in IPv4Network("198.18.20.0/24")
    aws.running()
    aws.ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    aws.running()
    assert "PublicIpAddress" not in aws.instance(instance["InstanceId"])
    assert aws.cloud.view().instances[0].interface.public_address is None
    aws.ec2.start_instances(InstanceIds=[instance["InstanceId"]])
    assert IPv4Address(aws.instance(instance["InstanceId"])["PublicIpAddress"]) != first


@pytest.mark.parametrize("public", [True, False])
def test_the_interface_decides_on_its_public_address(aws: Aws, public: bool) -> None:
    """AssociatePublicIpAddress wins over the subnet."""
    subnet = aws.subnet()
    aws.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": not public})
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": public}
    assert ("PublicIpAddress" in aws.launch(NetworkInterfaces=[nic])[0]) is public


def test_elastic_addresses(aws: Aws) -> None:
    """Tags, filters, association with an interface, re-association only when allowed, no release while in use."""
    vpc = aws.vpc()
    aws.ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnet = aws.subnet(vpc)
    nic, other = (interface(aws, subnet)["NetworkInterfaceId"] for _ in range(2))
    tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "farm", "Value": "studio"}]}]
    address = aws.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)
    name = address["AllocationId"]
    with refused("Gateway.NotAttached"):
        aws.ec2.associate_address(AllocationId=name, NetworkInterfaceId=nic)
    aws.gateway(vpc)
    made = aws.ec2.associate_address(AllocationId=name, NetworkInterfaceId=nic)["AssociationId"]
    assert aws.ec2.associate_address(AllocationId=name, NetworkInterfaceId=nic)["AssociationId"] == made
    with refused("Resource.AlreadyAssociated"):
        aws.ec2.associate_address(AllocationId=name, NetworkInterfaceId=other)
    with refused("InvalidIPAddress.InUse"):
        aws.ec2.release_address(AllocationId=name)
    shown = aws.ec2.describe_network_interfaces(NetworkInterfaceIds=[nic])["NetworkInterfaces"][0]["Association"]
    dashed = address["PublicIp"].replace(".", "-")
    assert shown["PublicDnsName"] == f"ec2-{dashed}.eu-central-1.compute.amazonaws.com"
    assert (shown["AllocationId"], shown["PublicIp"]) == (name, address["PublicIp"])
    for filters in (
        [{"Name": "tag:farm", "Values": ["studio"]}],
        [{"Name": "network-interface-id", "Values": [nic]}],
        [{"Name": "public-ip", "Values": [address["PublicIp"]]}],
    ):
        assert aws.ec2.describe_addresses(Filters=filters)["Addresses"][0]["AllocationId"] == name
    found = aws.ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["elastic-ip"]}])["Tags"]
    assert [(tag["ResourceId"], tag["ResourceType"]) for tag in found] == [(name, "elastic-ip")]
    aws.ec2.associate_address(AllocationId=name, NetworkInterfaceId=other, AllowReassociation=True)
    aws.ec2.delete_network_interface(NetworkInterfaceId=other)
    aws.ec2.release_address(AllocationId=name)
    with refused("InvalidAllocationID.NotFound"):
        aws.ec2.describe_addresses(AllocationIds=[name])


def test_the_quota_of_elastic_addresses(aws: Aws) -> None:
    """Five per region by default."""
    found = {aws.ec2.allocate_address()["PublicIp"] for _ in range(5)}
    assert len(found) == 5
    with refused("AddressLimitExceeded"):
        aws.ec2.allocate_address()


def test_an_elastic_address_replaces_the_lent_one(aws: Aws) -> None:
    vpc = aws.vpc()
    subnet = aws.subnet(vpc)
    aws.gateway(vpc)
    aws.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    instance = aws.launch(subnet)[0]["InstanceId"]
    address = aws.ec2.allocate_address()
    aws.ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=instance)
    assert aws.instance(instance)["PublicIpAddress"] == address["PublicIp"]
    assert str(aws.cloud.view().instances[0].interface.public_address) == address["PublicIp"]


def test_security_rules_in_the_view(aws: Aws) -> None:
    group = aws.group(aws.vpc())
    permissions = [
        {"IpProtocol": "tcp", "FromPort": 5986, "ToPort": 5986, "IpRanges": [{"CidrIp": "192.168.1.0/24"}]},
        {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
    ]
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions)
    seen = aws.cloud.view().security_groups[group]
    assert seen.ingress == (
        SecurityRule("tcp", 5986, 5986, (IPv4Network("192.168.1.0/24"),)),
        SecurityRule("icmp", -1, -1, (IPv4Network("10.0.0.0/8"),)),
        SecurityRule("-1", -1, -1, (), (group,)),
    )
    assert seen.egress == (SecurityRule("-1", -1, -1, (IPv4Network("0.0.0.0/0"),)),)
