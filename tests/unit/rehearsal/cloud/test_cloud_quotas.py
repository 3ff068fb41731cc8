"""Launches are held to the vCPU quotas."""

from __future__ import annotations

from simulated_ec2 import Aws, refused
from test_cloud_fleet import Fleets, by_type

ZONE = "eu-central-1a"


def test_on_demand_launches_end_at_their_quota(aws: Aws) -> None:
    aws.cloud.set_vcpu_quota("on-demand", 10)
    aws.cloud.set_vcpu_quota("spot", 0)
    subnet = aws.subnet()
    made = aws.launch(subnet, count=5, MinCount=1)  # m7i.xlarge: 4 vCPUs
    assert len(made) == 2
    with refused("VcpuLimitExceeded"):
        aws.launch(subnet)
    aws.ec2.terminate_instances(InstanceIds=[made[0]["InstanceId"]])
    assert len(aws.launch(subnet)) == 1


def test_spot_launches_end_at_theirs(aws: Aws) -> None:
    aws.cloud.set_vcpu_quota("spot", 3)
    with refused("MaxSpotInstanceCountExceeded"):
        aws.launch(InstanceMarketOptions={"MarketType": "spot"})


def test_a_stopped_instance_counts_only_when_it_starts_again(aws: Aws) -> None:
    aws.cloud.set_vcpu_quota("on-demand", 4)
    subnet = aws.subnet()
    (first,) = aws.launch(subnet)
    aws.running()
    aws.ec2.stop_instances(InstanceIds=[first["InstanceId"]])
    aws.running()
    aws.launch(subnet)
    with refused("VcpuLimitExceeded"):
        aws.ec2.start_instances(InstanceIds=[first["InstanceId"]])


def test_a_fleet_gets_what_the_quota_leaves_over_all_pools(aws: Aws) -> None:
    fleets = Fleets(aws)
    aws.cloud.set_vcpu_quota("spot", 70)
    answer = fleets.create(10)
    assert sum(by_type(answer).values()) == 4  # of 16 vCPUs each
    assert {entry["ErrorCode"] for entry in answer["Errors"]} == {"MaxSpotInstanceCountExceeded"}
    assert len(answer["Errors"]) == 4  # each pool is closed
    answer = fleets.create(1)
    assert answer["Instances"] == [] and len(answer["Errors"]) == 4


def test_a_smaller_type_may_still_fit(aws: Aws) -> None:
    fleets = Fleets(aws)
    aws.cloud.set_vcpu_quota("on-demand", 20)
    options = {"OnDemandOptions": {"AllocationStrategy": "prioritized"}, "SpotOptions": {}, "kind": "on-demand"}
    answer = fleets.create(3, fleets.overrides("c7i.4xlarge", "m7i.xlarge"), **options)
    assert by_type(answer) == {"c7i.4xlarge": 1, "m7i.xlarge": 1}
    assert {entry["ErrorCode"] for entry in answer["Errors"]} == {"VcpuLimitExceeded"}


def test_types_of_other_families_have_other_quotas(aws: Aws) -> None:
    aws.cloud.set_vcpu_quota("on-demand", 0)
    assert len(aws.launch(InstanceType="g4dn.xlarge")) == 1
