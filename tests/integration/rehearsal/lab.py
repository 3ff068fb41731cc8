"""Run on the controller of a rehearsal: makes a network and instances with boto3, prints their ids as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3

HOME = "198.18.1.2/32"


def network(ec2: Any) -> dict[str, str]:
    """A VPC with one subnet, a way to the internet and an empty security group."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-central-1a")["Subnet"][
        "SubnetId"
    ]
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    group = ec2.create_security_group(GroupName="lab", Description="lab", VpcId=vpc)["GroupId"]
    ec2.create_key_pair(KeyName="lab", KeyType="rsa")
    return {"vpc": vpc, "subnet": subnet, "group": group}


def launch(ec2: Any, lab: dict[str, str], name: str, user_data: str, *, spot: bool = False) -> str:
    """One instance of the stock image with a public address."""
    stock = "/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base"
    image = boto3.client("ssm").get_parameter(Name=stock)["Parameter"]["Value"]
    market = {"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}
    answer = ec2.run_instances(
        ImageId=image,
        InstanceType="m7i.xlarge",
        MinCount=1,
        MaxCount=1,
        KeyName="lab",
        UserData=user_data,
        NetworkInterfaces=[
            {
                "DeviceIndex": 0,
                "SubnetId": lab["subnet"],
                "Groups": [lab["group"]],
                "AssociatePublicIpAddress": True,
            }
        ],
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
        **market,
    )
    instance: str = answer["Instances"][0]["InstanceId"]
    return instance


def permit(ec2: Any, group: str, port: int, *, cidr: str = "", source: str = "") -> None:
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
    rule |= {"IpRanges": [{"CidrIp": cidr}]} if cidr else {"UserIdGroupPairs": [{"GroupId": source}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])


def main() -> None:
    request = json.load(sys.stdin)
    ec2 = boto3.client("ec2")
    match request["do"]:
        case "network":
            answer: Any = network(ec2)
        case "launch":
            answer = launch(ec2, request["lab"], request["name"], request["user_data"], spot=request["spot"])
        case "permit":
            answer = permit(ec2, request["group"], request["port"], cidr=request["cidr"], source=request["source"])
        case "terminate":
            answer = ec2.terminate_instances(InstanceIds=[request["instance"]])["TerminatingInstances"][0]["InstanceId"]
        case "vpcs":
            answer = [vpc["CidrBlock"] for vpc in ec2.describe_vpcs()["Vpcs"]]
        case "image":
            answer = ec2.create_image(InstanceId=request["instance"], Name="lab image")["ImageId"]
        case "image_state":
            answer = ec2.describe_images(ImageIds=[request["image"]])["Images"][0]["State"]
    print(json.dumps(answer))


main()
