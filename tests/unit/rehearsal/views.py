"""Made-up records of a region, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from rehearsal.interfaces import (
    CloudView,
    ImageView,
    InstanceView,
    InterfaceView,
    RouteView,
    SecurityGroupView,
    SubnetView,
    VpcView,
)

VPC = "vpc-00000000000000001"
SUBNET = "subnet-00000000000000001"
NETWORK = IPv4Network("10.0.0.0/24")
IMAGE = ImageView("ami-1", "stock", "eu-central-1", None, "windows", "available")


def interface(number: int) -> InterfaceView:
    return InterfaceView(
        f"eni-{number:017x}",
        f"0a:00:00:00:00:{number:02x}",
        SUBNET,
        VPC,
        IPv4Address(f"10.0.0.{10 + number}"),
        None,
        True,
        ("sg-1",),
        f"i-{number:017x}",
    )


def instance(number: int, **changes: Any) -> InstanceView:
    values: dict[str, Any] = {
        "instance_id": f"i-{number:017x}",
        "image_id": "ami-1",
        "instance_type": "m7i.xlarge",
        "region": "eu-central-1",
        "zone": "eu-central-1a",
        "state": "running",
        "lifecycle": "on-demand",
        "launch_time": 1_700_000_000.0,
        "boots": 1,
        "interface": interface(number),
        "tags": {},
        "user_data": b"",
        "key_name": None,
        "metadata_enabled": True,
        "metadata_token_required": True,
        "metadata_tags": True,
    }
    return InstanceView(**{**values, **changes})


def view(
    *,
    count: int = 1,
    routes: tuple[RouteView, ...] = (RouteView(NETWORK, "local"),),
    groups: Mapping[str, SecurityGroupView] | None = None,
    instances: tuple[InstanceView, ...] | None = None,
    images: tuple[ImageView, ...] = (IMAGE,),
) -> CloudView:
    vpc = VpcView(VPC, NETWORK, "eu-central-1", (SubnetView(SUBNET, VPC, NETWORK, "eu-central-1a"),), {SUBNET: routes})
    return CloudView(
        instances if instances is not None else tuple(instance(number) for number in range(1, count + 1)),
        images,
        (vpc,),
        groups if groups is not None else {"sg-1": SecurityGroupView("sg-1", (), ())},
    )
