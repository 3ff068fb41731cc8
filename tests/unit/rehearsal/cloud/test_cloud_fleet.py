"""CreateFleet of type instant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_ec2 import Aws, refused

from rehearsal.cloud.fleet import Pool, counts

TYPES = ("c7i.4xlarge", "c7a.4xlarge", "c6i.4xlarge", "c5.4xlarge")
ZONE = "eu-central-1a"


class Fleets:
    """A template, subnets in two zones, and a short way to ask for a fleet."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.vpc = aws.vpc("10.0.0.0/16")
        self.group = aws.group(self.vpc)
        self.subnets = [
            aws.subnet(self.vpc, "10.0.0.0/25", "eu-central-1a"),
            aws.subnet(self.vpc, "10.0.0.128/25", "eu-central-1b"),
        ]
        self.template = aws.template(
            SecurityGroupIds=[self.group],
            InstanceInitiatedShutdownBehavior="terminate",
            MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 80, "DeleteOnTermination": True}}],
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "template"}]},
                {"ResourceType": "volume", "Tags": [{"Key": "from", "Value": "template"}]},
            ],
        )

    def overrides(self, *types: str, subnets: int = 1) -> list[dict[str, Any]]:
        return [
            {"InstanceType": kind, "SubnetId": subnet} for kind in types or TYPES for subnet in self.subnets[:subnets]
        ]

    def create(self, target: int, overrides: list[dict[str, Any]] | None = None, **params: Any) -> dict[str, Any]:
        specification = {"LaunchTemplateId": self.template, "Version": "$Latest"}
        config = {"LaunchTemplateSpecification": specification, "Overrides": overrides or self.overrides()}
        kind = params.pop("kind", "spot")
        params.setdefault("SpotOptions", {"AllocationStrategy": "price-capacity-optimized"})
        capacity = {"TotalTargetCapacity": target, "DefaultTargetCapacityType": kind, **params.pop("capacity", {})}
        return self.aws.ec2.create_fleet(
            Type="instant", LaunchTemplateConfigs=[config], TargetCapacitySpecification=capacity, **params
        )


@pytest.fixture
def fleets(aws: Aws) -> Iterator[Fleets]:
    yield Fleets(aws)


def by_type(answer: dict[str, Any]) -> dict[str, int]:
    result: dict[str, int] = {}
    for entry in answer["Instances"]:
        result[entry["InstanceType"]] = result.get(entry["InstanceType"], 0) + len(entry["InstanceIds"])
    return result


def test_instances_carry_everything_of_the_template(aws: Aws, fleets: Fleets) -> None:
    """Groups, metadata options, disks, shutdown behaviour, tags of template, request and EC2 itself."""
    answer = fleets.create(
        1,
        TagSpecifications=[
            {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "node"}]}
            for kind in ("fleet", "instance", "volume", "network-interface")
        ],
    )
    assert answer["Errors"] == []
    name = answer["Instances"][0]["InstanceIds"][0]
    instance = aws.instance(name)
    assert instance["InstanceLifecycle"] == "spot"
    assert instance["SecurityGroups"] == [{"GroupId": fleets.group, "GroupName": "nodes"}]
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags == {
        "from": "template",
        "Name": "node",
        "aws:ec2launchtemplate:id": fleets.template,
        "aws:ec2launchtemplate:version": "1",
        "aws:ec2:fleet-id": answer["FleetId"],
    }
    volume = aws.volumes(name)[0]
    assert volume["Size"] == 80
    assert {tag["Key"] for tag in volume["Tags"]} == {"from", "Name"}
    interface = aws.ec2.describe_network_interfaces()["NetworkInterfaces"][0]
    assert interface["TagSet"] == [{"Key": "Name", "Value": "node"}]


def test_one_call_launches_a_hundred_single_reservations(aws: Aws, fleets: Fleets) -> None:
    """Each instance of a fleet is a reservation of its own; the answer groups them by pool."""
    answer = fleets.create(100)
    assert sum(by_type(answer).values()) == 100
    assert answer["Instances"][0]["LaunchTemplateAndOverrides"]["LaunchTemplateSpecification"] == {
        "LaunchTemplateId": fleets.template,
        "Version": "1",
    }
    assert len(aws.ec2.describe_instances()["Reservations"]) == 100


def test_price_capacity_optimized_spreads_over_cheap_deep_pools(aws: Aws, fleets: Fleets) -> None:
    aws.cloud.set_capacity("c5.4xlarge", ZONE, 1)
    answer = fleets.create(30)
    assert len(by_type(answer)) == 3
    assert "c5.4xlarge" not in by_type(answer)
    assert answer["Errors"] == []


def test_lowest_price_fills_the_cheapest_pool_first(aws: Aws, fleets: Fleets) -> None:
    answer = fleets.create(10, SpotOptions={"AllocationStrategy": "lowest-price"})
    prices = aws.ec2.describe_spot_price_history(
        InstanceTypes=list(TYPES),
        AvailabilityZone=ZONE,
        ProductDescriptions=["Windows"],
        StartTime=aws.clock.seconds,
    )["SpotPriceHistory"]
    cheapest = min(prices, key=lambda entry: float(entry["SpotPrice"]))["InstanceType"]
    assert by_type(answer) == {cheapest: 10}


def test_capacity_optimized_takes_the_deepest_pool(aws: Aws, fleets: Fleets) -> None:
    for number, kind in enumerate(TYPES):
        aws.cloud.set_capacity(kind, ZONE, 10 * (number + 1))
    answer = fleets.create(10, SpotOptions={"AllocationStrategy": "capacity-optimized"})
    assert by_type(answer) == {TYPES[-1]: 10}


def test_diversified_uses_all_pools(aws: Aws, fleets: Fleets) -> None:
    answer = fleets.create(8, SpotOptions={"AllocationStrategy": "diversified"})
    assert by_type(answer) == dict.fromkeys(TYPES, 2)


def test_prioritized_on_demand(aws: Aws, fleets: Fleets) -> None:
    overrides = fleets.overrides()
    for number, override in enumerate(overrides):
        override["Priority"] = len(overrides) - number
    answer = fleets.create(3, overrides, kind="on-demand", OnDemandOptions={"AllocationStrategy": "prioritized"})
    assert by_type(answer) == {TYPES[-1]: 3}
    assert answer["Instances"][0]["Lifecycle"] == "on-demand"


def test_what_is_missing_is_in_errors(aws: Aws, fleets: Fleets) -> None:
    """The answer has what could be launched and InsufficientInstanceCapacity for each dry pool."""
    for kind in TYPES:
        aws.cloud.set_capacity(kind, ZONE, 1)
    aws.cloud.set_capacity("c5.4xlarge", ZONE, 0)
    answer = fleets.create(10)
    assert by_type(answer) == dict.fromkeys(TYPES[:3], 1)
    assert {entry["ErrorCode"] for entry in answer["Errors"]} == {"InsufficientInstanceCapacity"}
    shown = {entry["LaunchTemplateAndOverrides"]["Overrides"]["InstanceType"] for entry in answer["Errors"]}
    assert shown == set(TYPES)
    assert all(entry["Lifecycle"] == "spot" for entry in answer["Errors"])


def test_other_zones_help_out(aws: Aws, fleets: Fleets) -> None:
    for kind in TYPES:
        aws.cloud.set_capacity(kind, ZONE, 0)
    answer = fleets.create(5, fleets.overrides(subnets=2))
    assert sum(by_type(answer).values()) == 5
    assert {view.zone for view in aws.cloud.view().instances} == {"eu-central-1b"}


def test_spot_and_on_demand_parts(aws: Aws, fleets: Fleets) -> None:
    fleets.create(10, capacity={"OnDemandTargetCapacity": 3})
    found = [view.lifecycle for view in aws.cloud.view().instances]
    assert (found.count("on-demand"), found.count("spot")) == (3, 7)


def test_weights_round_up(aws: Aws, fleets: Fleets) -> None:
    """100 units of weight 16 are 7 instances."""
    overrides = [{**fleets.overrides("c7i.4xlarge")[0], "WeightedCapacity": 16}]
    answer = fleets.create(100, overrides)
    assert by_type(answer) == {"c7i.4xlarge": 7}
    fleet = aws.ec2.describe_fleets(FleetIds=[answer["FleetId"]])["Fleets"][0]
    assert fleet["FulfilledCapacity"] == 112


def test_minimum_target_is_all_or_nothing(aws: Aws, fleets: Fleets) -> None:
    """MinTargetCapacity with SingleAvailabilityZone: enough in one zone, or none at all."""
    options = {"AllocationStrategy": "lowest-price", "SingleAvailabilityZone": True, "MinTargetCapacity": 4}
    for zone in ("eu-central-1a", "eu-central-1b"):
        aws.cloud.set_capacity("c7i.4xlarge", zone, 3)
    overrides = fleets.overrides("c7i.4xlarge", subnets=2)
    answer = fleets.create(4, overrides, SpotOptions=options)
    assert answer["Instances"] == []
    assert answer["Errors"]
    aws.cloud.set_capacity("c7i.4xlarge", "eu-central-1b", 4)
    assert by_type(fleets.create(4, overrides, SpotOptions=options)) == {"c7i.4xlarge": 4}
    with refused("InvalidParameterCombination"):
        fleets.create(4, SpotOptions={"MinTargetCapacity": 4})


def test_a_type_that_the_zone_lacks_is_an_error_of_its_pool(aws: Aws, fleets: Fleets) -> None:
    """The fleet is launched without the pools that cannot exist."""
    overrides = [*fleets.overrides("c7i.4xlarge"), {"InstanceType": "c7g.4xlarge", "SubnetId": fleets.subnets[0]}]
    answer = fleets.create(2, overrides)
    assert by_type(answer) == {"c7i.4xlarge": 2}
    assert [entry["ErrorCode"] for entry in answer["Errors"]] == ["InvalidFleetConfiguration"]


def test_a_maximum_price_below_the_market(aws: Aws, fleets: Fleets) -> None:
    answer = fleets.create(1, [{**fleets.overrides("c7i.4xlarge")[0], "MaxPrice": "0.01"}])
    assert [entry["ErrorCode"] for entry in answer["Errors"]] == ["SpotMaxPriceTooLow"]


def test_a_full_subnet_limits_the_fleet(aws: Aws, fleets: Fleets) -> None:
    """A /25 has 123 usable addresses."""
    answer = fleets.create(130)
    assert sum(by_type(answer).values()) == 123
    assert {entry["ErrorCode"] for entry in answer["Errors"]} == {"InsufficientFreeAddressesInSubnet"}


def test_the_same_token_makes_no_second_fleet(aws: Aws, fleets: Fleets) -> None:
    first = fleets.create(2, ClientToken="farm-1")
    again = fleets.create(2, ClientToken="farm-1")
    assert (first["FleetId"], first["Instances"]) == (again["FleetId"], again["Instances"])
    assert len(aws.cloud.view().instances) == 2
    with refused("IdempotentParameterMismatch"):
        fleets.create(3, ClientToken="farm-1")


def test_the_override_subnet_goes_into_the_templates_interface(aws: Aws, fleets: Fleets) -> None:
    """A template with a network interface takes the subnet of the override."""
    fleets.template = aws.ec2.create_launch_template(
        LaunchTemplateName="with-interface",
        LaunchTemplateData={
            "ImageId": aws.image(),
            "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": [fleets.group], "AssociatePublicIpAddress": False}],
        },
    )["LaunchTemplate"]["LaunchTemplateId"]
    fleets.create(2)
    found = aws.cloud.view().instances
    assert {view.interface.subnet_id for view in found} == {fleets.subnets[0]}
    assert {view.interface.group_ids for view in found} == {(fleets.group,)}


def test_doubled_pools_and_two_subnets_of_a_zone_are_refused(aws: Aws, fleets: Fleets) -> None:
    with refused("InvalidParameterValue"):
        fleets.create(1, fleets.overrides("c7i.4xlarge") * 2)
    pair = [fleets.subnets[0], aws.subnet(fleets.vpc, "10.0.1.0/24")]
    with refused("InvalidParameterValue"):
        fleets.create(1, [{"InstanceType": "c7i.4xlarge", "SubnetId": name} for name in pair])


def test_only_instant_fleets_are_modelled(aws: Aws, fleets: Fleets) -> None:
    config = {"LaunchTemplateSpecification": {"LaunchTemplateId": fleets.template, "Version": "1"}}
    with refused("RehearsalNotImplemented"):
        aws.ec2.create_fleet(
            LaunchTemplateConfigs=[config],
            TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
        )


def test_instant_fleets_are_shown_by_id_only(aws: Aws, fleets: Fleets) -> None:
    """DescribeFleets without ids leaves instant fleets out; DescribeFleetInstances does not know them."""
    answer = fleets.create(2)
    assert aws.ec2.describe_fleets()["Fleets"] == []
    shown = aws.ec2.describe_fleets(FleetIds=[answer["FleetId"]])["Fleets"][0]
    assert shown["Instances"][0]["InstanceIds"] == answer["Instances"][0]["InstanceIds"]
    assert (shown["Type"], shown["FulfilledCapacity"]) == ("instant", 2)
    with refused("InvalidParameterValue"):
        aws.ec2.describe_fleet_instances(FleetId=answer["FleetId"])
    with refused("InvalidFleetId.NotFound"):
        aws.ec2.describe_fleets(FleetIds=["fleet-00000000-0000-0000-0000-000000000000"])


def test_deleting_a_fleet_terminates_it(aws: Aws, fleets: Fleets) -> None:
    answer = fleets.create(2)
    with refused("NoTerminateInstancesNotSupported"):
        aws.ec2.delete_fleets(FleetIds=[answer["FleetId"]], TerminateInstances=False)
    gone = aws.ec2.delete_fleets(FleetIds=[answer["FleetId"], "fleet-0"], TerminateInstances=True)
    assert gone["SuccessfulFleetDeletions"][0]["CurrentFleetState"] == "deleted_terminating"
    assert gone["UnsuccessfulFleetDeletions"][0]["Error"]["Code"] == "fleetIdDoesNotExist"
    aws.running()
    assert {view.state for view in aws.cloud.view().instances} == {"terminated"}


@given(
    weights=st.lists(st.sampled_from([1.0, 2.0, 4.0, 16.0]), min_size=1, max_size=5),
    room=st.lists(st.integers(0, 30), min_size=5, max_size=5),
    target=st.integers(1, 100),
    strategy=st.sampled_from(["lowest-price", "diversified", "price-capacity-optimized"]),
)
def test_allocation_meets_the_target_or_exhausts_all_pools(
    weights: list[float], room: list[int], target: int, strategy: str
) -> None:
    """Never more than one instance too many, never less while a pool has room."""
    pools = [Pool({}, {"WeightedCapacity": weight}, "spot", number) for number, weight in enumerate(weights)]
    fits = dict(enumerate(room))
    chosen = counts(pools, strategy, target, dict(fits))
    units = sum(pools[number].weight * count for number, count in chosen.items())
    assert all(count <= fits[number] for number, count in chosen.items())
    if units < target:
        assert all(chosen.get(number, 0) == fits[number] for number in range(len(pools)))
    else:
        assert units - target < max(weights)
