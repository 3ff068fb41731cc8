"""A served region with a clock that the test turns, and the parts of a farm in it."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from rehearsal.cloud import Cloud

START = 1_795_000_000.0
SESSION = Session()  # shared: it keeps the service models


class Clock:
    """Epoch seconds that stand still until the test moves them."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds

    def forward(self, seconds: float) -> None:
        self.seconds += seconds


class Aws:
    """Clients of the served region, and short ways to the parts that most tests need."""

    def __init__(self, cloud: Cloud, clock: Clock, url: str) -> None:
        self.cloud, self.clock, self.url = cloud, clock, url
        self.ec2 = self.client("ec2")

    def client(self, service: str, region: str = "eu-central-1") -> Any:
        config = Config(retries={"total_max_attempts": 1}, read_timeout=20)
        return SESSION.create_client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="rehearsal",
            aws_secret_access_key="rehearsal",
            config=config,
        )

    def running(self) -> None:
        """Let everything that is pending or stopping arrive."""
        self.clock.forward(5)

    # ------------------------------------------------------------------------------------------------------- resources

    def image(self) -> str:
        return self.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]

    def vpc(self, cidr: str = "10.0.0.0/24") -> str:
        return self.ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]

    def subnet(self, vpc: str | None = None, cidr: str = "10.0.0.0/24", zone: str = "eu-central-1a") -> str:
        answer = self.ec2.create_subnet(VpcId=vpc or self.vpc(), CidrBlock=cidr, AvailabilityZone=zone)
        return answer["Subnet"]["SubnetId"]

    def gateway(self, vpc: str) -> str:
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        return gateway

    def group(self, vpc: str, name: str = "nodes") -> str:
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]

    def launch(self, subnet: str | None = None, count: int = 1, **params: Any) -> list[dict[str, Any]]:
        if "NetworkInterfaces" not in params and "LaunchTemplate" not in params:
            params["SubnetId"] = subnet or self.subnet()
        if "LaunchTemplate" not in params:
            params = {"ImageId": self.image(), "InstanceType": "m7i.xlarge", **params}
        answer = self.ec2.run_instances(MinCount=params.pop("MinCount", count), MaxCount=count, **params)
        return answer["Instances"]

    def instance(self, identifier: str) -> dict[str, Any]:
        return self.ec2.describe_instances(InstanceIds=[identifier])["Reservations"][0]["Instances"][0]

    def state(self, identifier: str) -> str:
        return self.instance(identifier)["State"]["Name"]

    def template(self, **data: Any) -> str:
        data = {"ImageId": self.image(), "InstanceType": "m7i.xlarge", **data}
        answer = self.ec2.create_launch_template(LaunchTemplateName="nodes", LaunchTemplateData=data)
        return answer["LaunchTemplate"]["LaunchTemplateId"]

    def volumes(self, instance: str) -> list[dict[str, Any]]:
        filters = [{"Name": "attachment.instance-id", "Values": [instance]}]
        return self.ec2.describe_volumes(Filters=filters)["Volumes"]


def refused(code: str) -> Any:
    """The call must be refused with this error code."""
    return pytest.raises(ClientError, match=rf"\({code}\)")
