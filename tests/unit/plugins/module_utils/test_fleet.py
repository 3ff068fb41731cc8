"""The fleet: what is asked of EC2 for a wish, and what is made of the answers."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import fleet as fleets
from ansible_collections.renderfarm.cloud.plugins.module_utils.fleet import Fleet, FleetError, Wish
from botocore.exceptions import ClientError


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "No."}}, "CreateFleet")


class FakeEC2:
    """EC2 as far as a fleet sees it. Spot and on-demand capacity run out; time passes only by ``sleep``."""

    def __init__(self, *, spot: int = 10**6, on_demand: int = 10**6, boot_seconds: float = 0) -> None:
        self.capacity = {"spot": spot, "on-demand": on_demand}
        self.boot_seconds = boot_seconds
        self.invisible_seconds = 0.0
        self.now = 1_800_000_100.0  # in the middle of the validity of a client token
        self.instances: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.refuse: dict[str, str] = {}
        self.dry: dict[tuple[str, str], float] = {}  # (type, subnet) -> until when it has nothing
        self.bucket: float | None = None  # instances that may be launched or ended now, refilled by 2 and 20 per s
        self.refilled = self.now
        self.unknown_to_terminate: set[str] = set()
        self.lose_answer = False
        self.die_at_once = False
        self._numbers = itertools.count(1)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def add(self, number: int, *, role: str = "render_node", state: str = "running", farm: str = "studio") -> list[str]:
        """Instances that were launched one second after the other."""
        ids = []
        for _ in range(number):
            serial = next(self._numbers)
            instance_id = f"i-{serial:017x}"
            self.instances[instance_id] = {
                "InstanceId": instance_id,
                "state": state,
                "begin": self.now,
                "ended": self.now,
                "LaunchTime": datetime.fromtimestamp(
                    self.now if state == "pending" else self.now - 10_000 + serial, tz=UTC
                ),
                "InstanceType": "c7i.4xlarge",
                "Placement": {"AvailabilityZone": "eu-central-1a"},
                "PrivateIpAddress": "10.0.0.9",
                "NetworkInterfaces": [{"MacAddress": "0a:00:00:00:00:01", "Attachment": {"DeviceIndex": 0}}],
                "Tags": [
                    {"Key": "renderfarm:farm", "Value": farm},
                    {"Key": "renderfarm:role", "Value": role},
                    {"Key": "Name", "Value": "n"},
                ],
            }
            ids.append(instance_id)
        return ids

    def _state(self, instance: dict[str, Any]) -> str:
        if instance["state"] == "pending" and self.now - instance["begin"] >= self.boot_seconds:
            return "terminated" if self.die_at_once else "running"
        if instance["state"] == "shutting-down" and self.now - instance["ended"] >= self.boot_seconds:
            return "terminated"
        return str(instance["state"])

    def get_paginator(self, operation_name: str) -> FakeEC2:
        assert operation_name == "describe_instances"
        return self

    def paginate(self, **parameters: Any):
        self.calls.append(("describe_instances", parameters))
        wanted = {f["Name"]: f["Values"] for f in parameters["Filters"]}
        assert parameters["PaginationConfig"] == {"PageSize": 1000}
        found = []
        for instance in self.instances.values():
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            if all(tags.get(name.removeprefix("tag:")) in values for name, values in wanted.items()):
                hidden = instance["state"] == "pending" and self.now - instance["begin"] < self.invisible_seconds
                if not hidden:
                    found.append({**instance, "State": {"Name": self._state(instance)}})
        for start in range(0, len(found), 1000) or [0]:
            yield {"Reservations": [{"Instances": [i]} for i in found[start : start + 1000]]}

    def _take(self, number: int, per_second: float) -> None:
        if self.bucket is None:
            return
        self.bucket = min(1000.0, self.bucket + (self.now - self.refilled) * per_second)
        self.refilled = self.now
        if number > self.bucket:
            raise refused("RequestLimitExceeded")
        self.bucket -= number

    def create_fleet(self, **parameters: Any) -> dict[str, Any]:
        self.calls.append(("create_fleet", parameters))
        self._take(parameters["TargetCapacitySpecification"]["TotalTargetCapacity"], 2)
        token = parameters["ClientToken"]
        assert len(token) <= 64 and token.isascii()
        if token not in self.answers:
            self.answers[token] = self._launch(parameters)
        if self.lose_answer:
            self.lose_answer = False
            raise TimeoutError("the answer was lost")
        return self.answers[token]

    def _launch(self, parameters: dict[str, Any]) -> dict[str, Any]:
        target = parameters["TargetCapacitySpecification"]
        lifecycle, wished = target["DefaultTargetCapacityType"], target["TotalTargetCapacity"]
        assert parameters["Type"] == "instant" and 1 <= wished <= 1000
        if lifecycle in self.refuse:
            raise refused(self.refuse[lifecycle])
        asked = parameters["LaunchTemplateConfigs"][0]["Overrides"]
        dry = [p for p in asked if self.dry.get((p["InstanceType"], p["SubnetId"]), 0) > self.now]
        given = min(wished, self.capacity[lifecycle]) if len(dry) < len(asked) else 0
        self.capacity[lifecycle] -= given
        ids = self.add(given, state="pending")
        for instance_id in ids:
            (tags,) = (t["Tags"] for t in parameters["TagSpecifications"] if t["ResourceType"] == "instance")
            self.instances[instance_id]["Tags"] = tags
            if lifecycle == "spot":
                self.instances[instance_id]["InstanceLifecycle"] = "spot"
        pools = asked if given < wished else dry
        errors = [
            {
                "ErrorCode": "InsufficientInstanceCapacity",
                "ErrorMessage": "There is no capacity.",
                "Lifecycle": lifecycle,
                "LaunchTemplateAndOverrides": {"Overrides": pool},
            }
            for pool in pools
        ]
        groups = [{"Lifecycle": lifecycle, "InstanceIds": ids}] if ids else []
        return {"FleetId": "fleet-1", "Errors": errors, "Instances": groups}

    def terminate_instances(self, **parameters: Any) -> dict[str, Any]:
        self.calls.append(("terminate_instances", parameters))
        ids = parameters["InstanceIds"]
        assert 1 <= len(ids) <= 1000
        self._take(len(ids), 20)
        if self.unknown_to_terminate & set(ids):
            raise refused("InvalidInstanceID.NotFound")
        for instance_id in ids:
            self.instances[instance_id].update(state="shutting-down", ended=self.now)
        return {}

    def mutating(self) -> list[str]:
        return [name for name, _ in self.calls if name != "describe_instances"]

    def fleets_asked(self) -> list[tuple[str, int]]:
        targets = [p["TargetCapacitySpecification"] for name, p in self.calls if name == "create_fleet"]
        return [(t["DefaultTargetCapacityType"], t["TotalTargetCapacity"]) for t in targets]


def wish(count: int, **changes: Any) -> Wish:
    given: dict[str, Any] = {
        "farm": "studio",
        "role": "render_node",
        "count": count,
        "launch_template": {"name": "studio-render-node", "version": "$Latest"},
        "instance_types": ["c7i.4xlarge", "c6i.4xlarge"],
        "subnet_ids": ["subnet-a", "subnet-b"],
    }
    return Wish(**{**given, **changes})


def fleet(ec2: FakeEC2, **changes: Any) -> Fleet:
    return Fleet(ec2, "studio", **{"wait_seconds": 300, "sleep": ec2.sleep, "clock": ec2.clock, **changes})


# --------------------------------------------------------------------------------------------------------------- wishes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"farm": " "}, "farm is empty"),
        ({"count": -1}, "0 or more"),
        ({"minimum_count": 6}, "between 0 and count"),
        ({"minimum_count": -1}, "between 0 and count"),
        ({"instance_types": []}, "name at least one"),
        ({"instance_types": ["a", "a"]}, "a type twice"),
        ({"subnet_ids": ["a", "a"]}, "a subnet twice"),
        ({"spot_percent": 101}, "between 0 and 100"),
        ({"launch_at_most": 0}, "1 or more"),
        ({"capacity_seconds": -1}, "0 or more"),
        ({"max_price": 0.0}, "above 0"),
        ({"max_price": 1.0, "spot": False}, "spot instances only"),
        ({"tags": {"renderfarm:farm": "x"}}, "may not set renderfarm:farm"),
        ({"tags": {"aws:x": "x"}}, "reserved by AWS"),
    ],
)
def test_impossible_wishes_are_refused_before_any_call(changes, words):
    ec2 = FakeEC2()
    with pytest.raises(FleetError, match=words):
        fleet(ec2).present(wish(**{"count": 5, **changes}), confirm_remove=False)
    assert ec2.calls == []


def test_tags_of_an_instance():
    assert fleets.instance_tags(wish(1, tags={"project": "film"})) == {
        "Name": "studio-render-node",
        "project": "film",
        "renderfarm:farm": "studio",
        "renderfarm:role": "render_node",
    }
    assert fleets.instance_tags(wish(1, tags={"Name": "mine"}))["Name"] == "mine"


# ------------------------------------------------------------------------------------------------------------- requests


def test_one_request_for_spot():
    request = fleets.fleet_request(wish(3, max_price=0.8), 3, "spot", "token")
    tags = [
        {"Key": "Name", "Value": "studio-render-node"},
        {"Key": "renderfarm:farm", "Value": "studio"},
        {"Key": "renderfarm:role", "Value": "render_node"},
    ]
    assert request == {
        "Type": "instant",
        "ClientToken": "token",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateName": "studio-render-node", "Version": "$Latest"},
                "Overrides": [
                    {"InstanceType": "c7i.4xlarge", "SubnetId": "subnet-a", "MaxPrice": "0.80000"},
                    {"InstanceType": "c7i.4xlarge", "SubnetId": "subnet-b", "MaxPrice": "0.80000"},
                    {"InstanceType": "c6i.4xlarge", "SubnetId": "subnet-a", "MaxPrice": "0.80000"},
                    {"InstanceType": "c6i.4xlarge", "SubnetId": "subnet-b", "MaxPrice": "0.80000"},
                ],
            }
        ],
        "TargetCapacitySpecification": {"TotalTargetCapacity": 3, "DefaultTargetCapacityType": "spot"},
        "TagSpecifications": [
            {"ResourceType": resource, "Tags": tags}
            for resource in ("fleet", "instance", "volume", "network-interface")
        ],
        "SpotOptions": {"AllocationStrategy": "price-capacity-optimized"},
    }


def test_one_request_for_on_demand():
    request = fleets.fleet_request(
        wish(3, max_price=0.8, subnet_ids=[], launch_template={"id": "lt-1"}), 3, "on-demand", "token"
    )
    (config,) = request["LaunchTemplateConfigs"]
    assert config["LaunchTemplateSpecification"] == {"LaunchTemplateId": "lt-1", "Version": "$Latest"}
    assert config["Overrides"] == [{"InstanceType": "c7i.4xlarge"}, {"InstanceType": "c6i.4xlarge"}]
    assert request["OnDemandOptions"] == {"AllocationStrategy": "lowest-price"}
    assert "SpotOptions" not in request


def test_requests_are_what_botocore_accepts():
    import boto3
    from botocore.stub import Stubber

    client = boto3.client("ec2", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stub:
        for lifecycle in ("spot", "on-demand"):
            request = fleets.fleet_request(wish(3, max_price=0.8), 3, lifecycle, "token")
            stub.add_response("create_fleet", {"FleetId": "fleet-1"}, request)
            client.create_fleet(**request)


def test_a_token_tells_launches_apart_and_repeats_alike():
    def token(known=("i-1", "i-2"), number=3, lifecycle="spot", attempt=0, now=6120.0, **changes):
        request = fleets.fleet_request(wish(5, **changes), number, lifecycle, "")
        return fleets.client_token(request, known, attempt, now)

    same = {token(), token(known=("i-2", "i-1")), token(now=6299.0)}
    assert len(same) == 1 and len(next(iter(same))) == 64
    others = [
        token(known=("i-1",)),
        token(number=2),
        token(lifecycle="on-demand"),
        token(attempt=1),
        token(now=6300.0),
        token(farm="other"),
        token(role="builder"),
        token(instance_types=["c7i.4xlarge"]),
        token(launch_template={"name": "other"}),
        token(tags={"a": "b"}),
        token(max_price=1.0),
    ]
    assert len({*same, *others}) == 12


@pytest.mark.parametrize(
    ("changes", "number", "on_demand", "lots"),
    [
        ({}, 10, 0, [(10, ("spot", "on-demand"))]),
        ({"on_demand_fallback": False}, 10, 3, [(10, ("spot",))]),
        ({"spot": False}, 10, 0, [(10, ("on-demand",))]),
        ({"spot_percent": 70}, 10, 0, [(3, ("on-demand",)), (7, ("spot", "on-demand"))]),
        ({"spot_percent": 70}, 10, 2, [(1, ("on-demand",)), (9, ("spot", "on-demand"))]),
        ({"spot_percent": 75}, 10, 0, [(2, ("on-demand",)), (8, ("spot", "on-demand"))]),
        ({"spot_percent": 0}, 4, 6, [(4, ("on-demand",))]),
    ],
)
def test_what_is_bought_how(changes, number, on_demand, lots):
    found = fleets.lots(wish(10, **changes), number, on_demand)
    assert [(lot.missing, lot.ways) for lot in found] == lots


def test_pools_that_are_exhausted():
    a, b = fleets.Pool("c7i.4xlarge", "subnet-a"), fleets.Pool("c6i.4xlarge", "subnet-a")

    def error(code, kind="", subnet=""):
        return {"code": code, "instance_type": kind, "subnet_id": subnet}

    assert fleets.exhausted([a, b], [error("InsufficientInstanceCapacity", "c7i.4xlarge", "subnet-a")]) == {a: True}
    assert fleets.exhausted([a, b], [error("VcpuLimitExceeded")]) == {a: False, b: False}
    assert fleets.exhausted([a, b], []) == {a: True, b: True}
    both = [error("SpotMaxPriceTooLow", "c6i.4xlarge"), error("InsufficientInstanceCapacity", "c6i.4xlarge")]
    assert fleets.exhausted([a, b], both) == {b: False}


# --------------------------------------------------------------------------------------------------------------- launch


def test_five_nodes_come_from_one_call():
    ec2 = FakeEC2(boot_seconds=20)
    outcome = fleet(ec2).present(wish(5), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 5)]
    assert outcome.changed and not outcome.failed
    assert len(outcome.launched) == len(outcome.instances) == 5
    assert outcome.instances[0] == {
        "instance_id": "i-00000000000000001",
        "name": "studio-render-node",
        "role": "render_node",
        "type": "c7i.4xlarge",
        "lifecycle": "spot",
        "zone": "eu-central-1a",
        "state": "running",
        "private_ip": "10.0.0.9",
        "public_ip": "",
        "mac": "0a:00:00:00:00:01",
        "launch_time": outcome.instances[0]["launch_time"],
    }
    assert outcome.msg == "Launched 5 of 5 instances of role render_node"


def test_the_right_number_needs_no_call_that_changes():
    ec2 = FakeEC2()
    ec2.add(5)
    outcome = fleet(ec2).present(wish(5), confirm_remove=True)
    assert not outcome.changed and ec2.mutating() == [] and len(ec2.calls) == 1
    assert outcome.msg == "5 instances of role render_node as wished"
    assert outcome.diff()["before"] == outcome.diff()["after"]


def test_only_what_is_missing_is_launched():
    ec2 = FakeEC2()
    ec2.add(3)
    ec2.add(1, state="pending")
    ec2.add(2, role="builder")
    ec2.add(9, farm="other")
    ec2.add(4, state="terminated")
    ec2.add(1, state="shutting-down")
    (stopped,) = ec2.add(1, state="stopped")
    outcome = fleet(ec2).present(wish(7), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 3)]
    assert len(outcome.instances) == 7
    assert [i["instance_id"] for i in outcome.stopped] == [stopped]


def test_2300_nodes_come_in_batches():
    ec2 = FakeEC2()
    outcome = fleet(ec2).present(wish(2300), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 1000), ("spot", 1000), ("spot", 300)]
    assert len(outcome.instances) == 2300
    assert len(ec2.calls) == 5


def test_what_spot_does_not_give_comes_on_demand():
    ec2 = FakeEC2(spot=2)
    outcome = fleet(ec2).present(wish(5), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 5), ("on-demand", 3)]
    assert not outcome.failed and outcome.shortfall == 0
    assert sorted(i["lifecycle"] for i in outcome.instances) == ["on-demand"] * 3 + ["spot"] * 2
    assert outcome.errors == [
        {
            "code": "InsufficientInstanceCapacity",
            "lifecycle": "spot",
            "message": "There is no capacity.",
            "remedy": outcome.errors[0]["remedy"],
            "count": 4,
            "instance_types": ["c7i.4xlarge", "c6i.4xlarge"],
            "zones": ["subnet-a", "subnet-b"],
        }
    ]
    assert "name more instance types" in outcome.errors[0]["remedy"]


def test_a_dry_batch_ends_the_way_at_once():
    ec2 = FakeEC2(spot=1500)
    fleet(ec2).present(wish(3000), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 1000), ("spot", 1000), ("on-demand", 1000), ("on-demand", 500)]


def test_without_fallback_a_shortfall_fails_and_keeps_what_came():
    ec2 = FakeEC2(spot=2)
    outcome = fleet(ec2).present(wish(5, on_demand_fallback=False), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 5)]
    assert outcome.failed and outcome.changed
    assert (len(outcome.launched), len(outcome.instances), outcome.shortfall) == (2, 2, 3)
    assert "Launched 2 of 5" in outcome.msg and "3 of 5 missing (on_demand_fallback is off)" in outcome.msg
    assert "InsufficientInstanceCapacity (spot: c7i.4xlarge, c6i.4xlarge in subnet-a, subnet-b)" in outcome.msg
    assert "Remedy: " in outcome.msg


def test_no_capacity_at_all_fails_with_both_reasons():
    outcome = fleet(FakeEC2(spot=0, on_demand=0)).present(wish(5), confirm_remove=False)
    assert outcome.failed and not outcome.changed and outcome.shortfall == 5
    assert [error["lifecycle"] for error in outcome.errors] == ["spot", "on-demand"]


def test_enough_is_what_minimum_count_says():
    ec2 = FakeEC2(spot=3, on_demand=0)
    outcome = fleet(ec2).present(wish(5, minimum_count=3), confirm_remove=False)
    assert not outcome.failed and outcome.shortfall == 2
    assert fleet(FakeEC2(spot=2, on_demand=0)).present(wish(5, minimum_count=3), confirm_remove=False).failed


def test_on_demand_alone():
    ec2 = FakeEC2()
    fleet(ec2).present(wish(2, spot=False), confirm_remove=False)
    assert ec2.fleets_asked() == [("on-demand", 2)]


@pytest.mark.parametrize("code", ["MaxSpotInstanceCountExceeded", "InsufficientInstanceCapacity", "SpotMaxPriceTooLow"])
def test_a_call_refused_for_lack_of_capacity_falls_back(code):
    ec2 = FakeEC2()
    ec2.refuse["spot"] = code
    outcome = fleet(ec2).present(wish(2), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 2), ("on-demand", 2)]
    assert not outcome.failed and outcome.errors[0]["code"] == code


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "InvalidLaunchTemplateName.NotFoundException"])
def test_other_refusals_end_it(code):
    ec2 = FakeEC2()
    ec2.refuse["spot"] = code
    with pytest.raises(ClientError):
        fleet(ec2).present(wish(2), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 2)]


def test_after_a_failure_half_way_it_is_known_what_was_launched():
    ec2 = FakeEC2(spot=2)
    ec2.refuse["on-demand"] = "UnauthorizedOperation"
    work = fleet(ec2)
    with pytest.raises(ClientError):
        work.present(wish(5), confirm_remove=False)
    assert len(work.outcome.launched) == 2 and work.outcome.changed


def test_a_repeat_after_a_lost_answer_does_not_double_the_farm():
    ec2 = FakeEC2()
    ec2.invisible_seconds = 30
    ec2.lose_answer = True
    with pytest.raises(TimeoutError):
        fleet(ec2).present(wish(5), confirm_remove=False)
    outcome = fleet(ec2).present(wish(5), confirm_remove=False)
    assert len(ec2.instances) == 5 and len(outcome.instances) == 5
    first, second = (p["ClientToken"] for name, p in ec2.calls if name == "create_fleet")
    assert first == second


def test_up_down_up_within_a_minute_launches_anew():
    ec2 = FakeEC2()
    for _ in range(3):
        assert len(fleet(ec2).present(wish(2), confirm_remove=False).instances) == 2
        fleet(ec2).absent(["render_node"], confirm_remove=True)
    assert len(ec2.instances) == 6


def test_it_waits_until_ec2_lists_and_runs_them():
    ec2 = FakeEC2(boot_seconds=40)
    ec2.invisible_seconds = 10
    begin = ec2.now
    outcome = fleet(ec2).present(wish(2), confirm_remove=False)
    assert [i["state"] for i in outcome.instances] == ["running"] * 2
    assert 40 <= ec2.now - begin <= 45


def test_without_waiting_they_only_have_to_be_listed():
    ec2 = FakeEC2(boot_seconds=40)
    ec2.invisible_seconds = 5
    outcome = fleet(ec2, wait_seconds=0).present(wish(2), confirm_remove=False)
    assert [i["state"] for i in outcome.instances] == ["pending"] * 2


@pytest.mark.parametrize(
    ("invisible", "boot", "words"), [(0, 500, "Not running after 300 s"), (500, 0, "does not list them")]
)
def test_the_wait_ends_with_a_message(invisible, boot, words):
    ec2 = FakeEC2(boot_seconds=boot)
    ec2.invisible_seconds = invisible
    outcome = fleet(ec2).present(wish(2), confirm_remove=False)
    assert outcome.failed and words in outcome.msg and len(outcome.launched) == 2


def test_instances_that_end_at_once_are_told():
    ec2 = FakeEC2()
    ec2.die_at_once = True
    outcome = fleet(ec2).present(wish(2), confirm_remove=False)
    assert outcome.failed and outcome.shortfall == 2 and "2 ended again at once" in outcome.msg


def test_a_check_launches_nothing_and_says_what_it_would():
    ec2 = FakeEC2()
    (one,) = ec2.add(1)
    outcome = fleet(ec2, check_mode=True).present(wish(3), confirm_remove=False)
    assert outcome.changed and ec2.mutating() == []
    assert outcome.msg == "Would launch 2 instances of role render_node"
    assert outcome.diff() == {"before": f"{one}\n", "after": f"{one}\n(to be launched)\n(to be launched)\n"}


def dry_pools(ec2: FakeEC2, seconds: float, *pools: tuple[str, str]) -> None:
    for pool in pools or itertools.product(["c7i.4xlarge", "c6i.4xlarge"], ["subnet-a", "subnet-b"]):
        ec2.dry[pool] = ec2.now + seconds


def test_a_dry_pool_is_asked_again_after_its_back_off_and_not_before():
    ec2 = FakeEC2()
    dry_pools(ec2, 200)
    begin = ec2.now
    wished = wish(5, on_demand_fallback=False, capacity_seconds=600)
    outcome = fleet(ec2).present(wished, confirm_remove=False)
    assert not outcome.failed and len(outcome.instances) == 5
    assert ec2.fleets_asked() == [("spot", 5)] * 3
    assert ec2.now - begin == 2 * fleets.BACKOFF_SECONDS


@pytest.mark.parametrize(("seconds", "tries"), [(0, 1), (179, 1), (400, 3)])
def test_the_time_for_dry_pools_is_bounded(seconds, tries):
    ec2 = FakeEC2()
    dry_pools(ec2, 10**6)
    begin = ec2.now
    wished = wish(5, on_demand_fallback=False, capacity_seconds=seconds)
    outcome = fleet(ec2).present(wished, confirm_remove=False)
    assert outcome.failed and outcome.shortfall == 5
    assert len(ec2.fleets_asked()) == tries and ec2.now - begin <= seconds
    assert [(e["code"], e["count"]) for e in outcome.errors] == [("InsufficientInstanceCapacity", 4)]


def test_fallback_does_not_wait_for_dry_spot_pools():
    ec2 = FakeEC2(spot=1)
    begin = ec2.now
    outcome = fleet(ec2).present(wish(5, capacity_seconds=600), confirm_remove=False)
    assert ec2.fleets_asked() == [("spot", 5), ("on-demand", 4)] and ec2.now == begin
    assert not outcome.failed


def test_only_open_pools_are_asked_for_the_rest():
    ec2 = FakeEC2()
    dry_pools(ec2, 100, ("c7i.4xlarge", "subnet-a"))
    real = ec2._launch

    def half(parameters):
        """The first launch gives only a part, and one pool says that it is dry."""
        ec2._launch = real
        ec2.capacity["spot"] = 2
        answer = real(parameters)
        ec2.capacity["spot"] = 10
        return {**answer, "Errors": answer["Errors"][:1]}

    ec2._launch = half
    outcome = fleet(ec2).present(wish(5), confirm_remove=False)
    first, second = (p["LaunchTemplateConfigs"][0]["Overrides"] for name, p in ec2.calls if name == "create_fleet")
    assert len(first) == 4 and len(second) == 3 and first[0] not in second
    assert len(outcome.instances) == 5


@pytest.mark.parametrize("code", ["MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "Unsupported"])
def test_what_waiting_does_not_change_is_not_waited_for(code):
    ec2 = FakeEC2()
    ec2.refuse["spot"] = code
    outcome = fleet(ec2).present(wish(2, on_demand_fallback=False, capacity_seconds=600), confirm_remove=False)
    assert outcome.failed and len(ec2.fleets_asked()) == 1


def test_a_part_is_on_demand_from_the_start():
    ec2 = FakeEC2()
    outcome = fleet(ec2).present(wish(10, spot_percent=75), confirm_remove=False)
    assert ec2.fleets_asked() == [("on-demand", 2), ("spot", 8)]
    assert len(outcome.instances) == 10
    outcome = fleet(ec2).present(wish(20, spot_percent=75), confirm_remove=False)
    assert ec2.fleets_asked()[2:] == [("on-demand", 3), ("spot", 7)]


def test_a_first_wave_is_no_failure():
    ec2 = FakeEC2()
    outcome = fleet(ec2).present(wish(100, launch_at_most=20), confirm_remove=False)
    assert not outcome.failed and len(outcome.launched) == 20
    assert outcome.postponed == 80 and outcome.shortfall == 0 and "80 more" in outcome.msg
    outcome = fleet(ec2).present(wish(100), confirm_remove=False)
    assert len(outcome.launched) == 80 and outcome.postponed == 0


def test_a_thousand_come_though_the_bucket_is_not_full():
    ec2 = FakeEC2()
    ec2.bucket = 900
    outcome = fleet(ec2).present(wish(1000), confirm_remove=False)
    assert len(outcome.instances) == 1000 and not outcome.failed
    asked = [number for _, number in ec2.fleets_asked()]
    assert asked[:3] == [1000, 500, 500] and len(asked) < 12


def test_a_thousand_go_though_the_bucket_is_not_full():
    ec2 = FakeEC2()
    ec2.add(1000)
    ec2.bucket = 300
    outcome = fleet(ec2).absent(["render_node"], confirm_remove=True)
    assert len(outcome.removed) == 1000 and len(set(outcome.removed)) == 1000
    assert ec2.mutating().count("terminate_instances") < 12


def test_throttling_without_end_is_told():
    ec2 = FakeEC2()
    ec2.refuse["spot"] = "RequestLimitExceeded"
    begin = ec2.now
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        fleet(ec2).present(wish(2), confirm_remove=False)
    assert 300 < ec2.now - begin < 400


def test_after_a_kill_instances_that_are_not_all_listed_yet_are_waited_for():
    ec2 = FakeEC2()
    ec2.lose_answer = True
    with pytest.raises(TimeoutError):
        fleet(ec2).present(wish(5), confirm_remove=False)
    seen = ec2.paginate
    late = list(ec2.instances)[3:]

    def paginate(**parameters):
        for page in seen(**parameters):
            if ec2.now < 1_800_000_102:
                page["Reservations"] = [r for r in page["Reservations"] if r["Instances"][0]["InstanceId"] not in late]
            yield page

    ec2.paginate = paginate
    outcome = fleet(ec2).present(wish(5), confirm_remove=False)
    assert len(ec2.instances) == 5 and len(outcome.instances) == 5 and not outcome.changed


def test_after_a_kill_at_the_end_of_a_token_nothing_doubles():
    ec2 = FakeEC2()
    ec2.now = 1_800_000_179.9
    ec2.invisible_seconds = 2.0
    ec2.lose_answer = True
    with pytest.raises(TimeoutError):
        fleet(ec2).present(wish(5), confirm_remove=False)
    ec2.now += 1
    fleet(ec2).present(wish(5), confirm_remove=False)
    assert len(ec2.instances) == 5


def test_after_a_kill_between_two_batches_nothing_doubles():
    ec2 = FakeEC2()
    real = ec2.create_fleet

    def second_is_lost(**parameters):
        ec2.lose_answer = len(ec2.fleets_asked()) == 1
        return real(**parameters)

    ec2.create_fleet = second_is_lost
    with pytest.raises(TimeoutError):
        fleet(ec2).present(wish(1500), confirm_remove=False)
    outcome = fleet(ec2).present(wish(1500), confirm_remove=False)
    assert len(ec2.instances) == len(outcome.instances) == 1500


def test_another_run_that_launched_more_is_noticed():
    ec2 = FakeEC2()
    real = ec2.create_fleet

    def meanwhile(**parameters):
        ec2.add(3)
        return real(**parameters)

    ec2.create_fleet = meanwhile
    outcome = fleet(ec2).present(wish(5), confirm_remove=False)
    assert len(outcome.surplus) == 3 and "another run" in outcome.msg


# --------------------------------------------------------------------------------------------------------------- remove


def test_without_confirmation_nothing_goes():
    ec2 = FakeEC2()
    ids = ec2.add(5)
    outcome = fleet(ec2).present(wish(3), confirm_remove=False)
    assert not outcome.changed and not outcome.failed and ec2.mutating() == []
    assert [i["instance_id"] for i in outcome.surplus] == ids[:2]
    assert len(outcome.instances) == 5
    assert "-e farm_remove=true" in outcome.msg and ids[0] in outcome.msg


@pytest.mark.parametrize(("rule", "gone"), [("oldest", [0, 1]), ("newest", [4, 3])])
def test_with_confirmation_the_right_ones_go(rule, gone):
    ec2 = FakeEC2(boot_seconds=30)
    ids = ec2.add(5)
    outcome = fleet(ec2).present(wish(3, remove=rule), confirm_remove=True)
    assert outcome.changed and outcome.removed == [ids[n] for n in gone]
    assert len(outcome.instances) == 3 and outcome.surplus == []
    assert ec2.mutating() == ["terminate_instances"]
    assert outcome.diff()["after"].split() == [i for i in ids if i not in outcome.removed]


def test_1500_go_in_two_batches():
    ec2 = FakeEC2()
    ec2.add(1500)
    outcome = fleet(ec2).present(wish(0, instance_types=[]), confirm_remove=True)
    assert len(outcome.removed) == 1500
    assert ec2.mutating() == ["terminate_instances"] * 2


def test_absent_takes_all_roles_and_stopped_ones():
    ec2 = FakeEC2()
    nodes, manager, stopped = ec2.add(2), ec2.add(1, role="manager"), ec2.add(1, state="stopped")
    ec2.add(1, role="builder")
    ec2.add(1, farm="other")
    outcome = fleet(ec2).absent(["render_node", "manager"], confirm_remove=True)
    assert sorted(outcome.removed) == sorted(nodes + manager + stopped)
    assert outcome.instances == []
    again = fleet(ec2).absent(["render_node", "manager"], confirm_remove=True)
    assert not again.changed and again.msg == "No instance of role render_node, manager"


def test_absent_needs_confirmation():
    ec2 = FakeEC2()
    ec2.add(2)
    outcome = fleet(ec2).absent(["render_node"], confirm_remove=False)
    assert not outcome.changed and len(outcome.surplus) == 2 and ec2.mutating() == []


def test_a_check_of_a_removal_removes_nothing():
    ec2 = FakeEC2()
    ids = ec2.add(2)
    outcome = fleet(ec2, check_mode=True).absent(["render_node"], confirm_remove=True)
    assert outcome.changed and outcome.removed == ids and ec2.mutating() == []
    assert outcome.diff()["after"] == ""


def test_a_removal_that_takes_too_long_is_told():
    ec2 = FakeEC2(boot_seconds=1000)
    ec2.add(1)
    outcome = fleet(ec2).absent(["render_node"], confirm_remove=True)
    assert outcome.failed and "Not terminated after 300 s" in outcome.msg


def test_half_an_answer_is_no_empty_farm():
    ec2 = FakeEC2()
    ec2.paginate = lambda **parameters: iter([{}])
    with pytest.raises(FleetError, match="no list of reservations"):
        fleet(ec2).present(wish(2), confirm_remove=False)
    assert ec2.mutating() == []


def test_idle_ones_go_first():
    ec2 = FakeEC2()
    ids = ec2.add(5)
    ec2.instances[ids[4]]["NetworkInterfaces"][0]["MacAddress"] = "0A:00:00:00:00:04"
    idle = [ids[2], "0a:00:00:00:00:04"]
    outcome = fleet(ec2).present(wish(2, idle=idle), confirm_remove=True)
    assert outcome.removed == [ids[2], ids[4], ids[0]]


def test_some_go_by_their_id_and_others_are_left_alone():
    ec2 = FakeEC2()
    nodes, manager = ec2.add(3), ec2.add(1, role="manager")
    outcome = fleet(ec2).absent(["render_node"], confirm_remove=True, instance_ids=[nodes[1], manager[0]])
    assert outcome.removed == [nodes[1]] and len(outcome.instances) == 2
    again = fleet(ec2).absent(["render_node"], confirm_remove=True, instance_ids=[nodes[1]])
    assert not again.changed and "any more" in again.msg
    assert not fleet(ec2).absent(["render_node"], confirm_remove=True, instance_ids=[]).changed


@pytest.mark.parametrize("vanishes", [False, True])
def test_an_id_that_ec2_does_not_know_everywhere_does_not_keep_the_others(vanishes):
    ec2 = FakeEC2()
    ids = ec2.add(3)
    ec2.unknown_to_terminate = {ids[1]}
    sleep = ec2.sleep

    def and_then(seconds):
        sleep(seconds)
        ec2.unknown_to_terminate = set()
        if vanishes:
            del ec2.instances[ids[1]]

    outcome = fleet(ec2, sleep=and_then).absent(["render_node"], confirm_remove=True)
    assert sorted(outcome.removed) == ids and not outcome.failed


def test_an_id_that_ec2_never_knows_is_an_error():
    ec2 = FakeEC2()
    ec2.unknown_to_terminate = set(ec2.add(3)[:1])
    with pytest.raises(ClientError, match="NotFound"):
        fleet(ec2).absent(["render_node"], confirm_remove=True)
