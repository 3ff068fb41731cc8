"""What is found before anything is launched: each check on facts that are given, and the facts from a fake AWS."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import preflight, preflight_facts, prices
from ansible_collections.renderfarm.cloud.plugins.module_utils.preflight import Facts, Finding, Route, Running, Wish
from botocore.exceptions import ClientError, NoCredentialsError

from tests import iam_policy

TYPES = ("c7i.4xlarge", "c6i.4xlarge")
WISH = Wish(
    purpose="up",
    region="eu-central-1",
    zones=("eu-central-1a", "eu-central-1b"),
    nodes=10,
    remote_nodes=0,
    node_types=TYPES,
    manager_type="m7i.xlarge",
    builder_type="m7i.xlarge",
    spot=True,
    spot_percent=100,
    max_price=None,
    on_demand_fallback=True,
    disk_gib=80,
    license_nodes=0,
    settings={
        "farm_lan_network": "192.168.1.0/24",
        "farm_cloud_network": "10.0.0.0/24",
        "farm_tunnel_network": "10.8.0.0/24",
        "farm_remote_network": "10.9.0.0/24",
        "farm_manager_address": "10.0.0.10",
        "farm_zones": ["eu-central-1a", "eu-central-1b"],
    },
    workstation="192.168.1.10",
)


def facts(**changes: Any) -> Facts:
    """An account in which nothing stands in the way."""
    known: dict[str, Any] = {
        "account": "123456789012",
        "caller": "arn:aws:iam::123456789012:user/farm",
        "permissions": {"ec2:CreateVpc": "allowed"},
        "quotas": {"spot": 1000.0, "on-demand": 100.0},
        "vcpus": {"c7i.4xlarge": 16, "c6i.4xlarge": 16, "m7i.xlarge": 4},
        "offered": frozenset((kind, zone) for kind in (*TYPES, "m7i.xlarge") for zone in WISH.zones),
        "running": [],
        "vpc_networks": [],
        "images": [{"image_id": "ami-1", "name": "studio-1", "created": "2026-11-01T00:00:00.000Z"}],
        "base_image": {"image_id": "ami-0", "name": "Windows_Server-2022", "sizes": [30]},
        "routes": [],
        "spot_prices": {(kind, zone): 0.9 for kind in TYPES for zone in WISH.zones},
        "on_demand_prices": {"m7i.xlarge": 0.4, "c7i.4xlarge": 1.5, "c6i.4xlarge": 1.6},
    }
    return Facts(**{**known, **changes})


def found(wish: Wish, known: Facts, severity: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in preflight.examine(wish, known) if finding.severity == severity}


def test_nothing_in_the_way():
    findings = preflight.examine(WISH, facts())
    assert {finding.severity for finding in findings} == {"ok"}
    assert not preflight.is_fatal(findings)
    assert all(not finding.remedy for finding in findings)


def test_every_finding_that_is_not_ok_has_a_remedy_and_all_come_at_once():
    bad = facts(
        permissions={"ec2:RunInstances": "denied"},
        quotas={"spot": 16.0, "on-demand": 0.0},
        offered=frozenset({("c7i.4xlarge", "eu-central-1a")}),
        images=[],
        routes=[Route(IPv4Network("10.0.0.128/25"), IPv4Address("192.168.1.1"), "eth0")],
        on_demand_prices={},
    )
    settings = {**WISH.settings, "farm_tunnel_network": "192.168.1.0/24"}
    findings = preflight.examine(replace(WISH, license_nodes=3, settings=settings), bad)
    fatal = {finding.check for finding in findings if finding.severity == "fatal"}
    assert fatal >= {"permissions", "quota spot", "quota on-demand", "zones", "types", "image", "routes", "licences"}
    assert "networks" in fatal
    assert all(finding.remedy for finding in findings if finding.severity != "ok")
    report = preflight.report(findings)
    assert report.startswith("fatal")
    assert report.index("licences") < report.index("credentials")


def test_credentials_alone_are_told_when_nobody_may_ask():
    findings = preflight.examine(WISH, Facts(credentials_problem="Could not ask AWS. Remedy: log in.", routes=[]))
    assert [(f.check, f.remedy) for f in findings if f.severity == "fatal"] == [("credentials", "log in.")]


@pytest.mark.parametrize(
    ("spot", "on_demand", "fallback", "severity"),
    [
        (160, 4, True, {"ok"}),
        (159, 4, False, {"fatal"}),
        (96, 68, True, {"warning"}),  # 64 vCPUs of 160 on-demand, beside the manager's 4
        (96, 67, True, {"fatal"}),
        (96, 68, False, {"fatal"}),
    ],
)
def test_spot_quota_with_and_without_fallback(spot, on_demand, fallback, severity):
    known = facts(quotas={"spot": float(spot), "on-demand": float(on_demand)})
    checks = preflight.quotas(replace(WISH, on_demand_fallback=fallback), known)
    assert {finding.severity for finding in checks if finding.check == "quota spot"} == severity


def test_machines_that_run_count_against_the_quota_and_are_not_launched_again():
    nodes = [Running("c7i.4xlarge", "spot", "render_node")] * 10
    known = facts(
        running=[*nodes, Running("m7i.xlarge", "on-demand", "manager")], quotas={"spot": 160.0, "on-demand": 4.0}
    )
    assert preflight.quotas(WISH, known) == []  # nothing is missing
    more = preflight.quotas(replace(WISH, nodes=11), known)
    assert [(finding.check, finding.severity) for finding in more] == [("quota spot", "fatal")]
    assert "--desired-value 176" in more[0].remedy


@pytest.mark.parametrize(("on_demand", "severity"), [(68, "ok"), (67, "fatal")])
def test_what_may_not_be_spot_counts_as_on_demand_from_the_start(on_demand, severity):
    """Of 8 render nodes and 3 remote nodes 3 + 1 are on-demand: 4 * 16 and the manager's 4."""
    wish = replace(WISH, nodes=8, remote_nodes=3, spot_percent=60)
    known = facts(quotas={"spot": 112.0, "on-demand": float(on_demand)})
    checks = {finding.check: finding for finding in preflight.quotas(wish, known)}
    assert checks["quota on-demand"].severity == severity
    assert checks["quota spot"].text == "112 vCPUs wished, 0 in use, 112 allowed"


def test_machines_of_an_unknown_size_are_named_and_not_taken_for_none():
    known = facts(running=[Running("m5.xlarge", "on-demand", "")])
    assert "m5.xlarge" in found(WISH, known, "warning")["quota"].text


@pytest.mark.parametrize(
    ("kind", "standard"),
    [("c7i.4xlarge", True), ("m5.large", True), ("im4gn.large", True), ("g5.xlarge", False), ("p4d.24xlarge", False),
     ("inf2.xlarge", False), ("mac2.metal", False), ("hpc7a.96xlarge", False),
     ("trn1.2xlarge", False), ("x2idn.16xlarge", False)],
)  # fmt: skip
def test_families_of_the_standard_quotas(kind, standard):
    assert preflight.is_standard(kind) is standard


def test_type_that_does_not_exist():
    known = facts()
    known.vcpus = {"c7i.4xlarge": 16, "m7i.xlarge": 4}
    assert "c6i.4xlarge" in found(WISH, known, "fatal")["types"].text


def test_some_types_missing_is_a_warning_all_missing_is_fatal():
    rest = facts().offered - {("c6i.4xlarge", zone) for zone in WISH.zones}
    assert "c6i.4xlarge" in found(WISH, facts(offered=rest), "warning")["types"].text
    none = rest - {("c7i.4xlarge", zone) for zone in WISH.zones}
    assert "types" in found(WISH, facts(offered=none), "fatal")


@pytest.mark.parametrize(
    ("network", "gateway", "device", "fatal"),
    [
        ("10.0.0.0/24", "192.168.1.10", "eth0", False),  # the farm's own, through the workstation
        ("10.0.0.0/24", "192.168.1.1", "eth0", True),
        ("10.0.0.64/26", "0.0.0.0", "docker0", True),
        ("10.0.0.0/8", "192.168.1.1", "eth0", False),  # wider: the farm's route wins
        # the controller is the workstation: the farm's tunnel and what is behind it
        ("10.8.0.0/24", "0.0.0.0", "tun0", False),
        ("10.8.0.1/32", "0.0.0.0", "ovpn-farm", False),
        ("10.0.0.0/24", "10.8.0.2", "tun0", False),
        ("10.9.0.0/24", "10.8.0.2", "tun0", False),
        # the tunnel of a company
        ("10.0.0.0/24", "10.200.0.1", "tun0", True),
        ("10.0.0.0/24", "0.0.0.0", "tun0", True),
        ("10.8.0.0/24", "0.0.0.0", "eth1", True),
        ("172.17.0.0/16", "0.0.0.0", "docker0", False),
    ],
)
def test_routes_of_the_controller(network, gateway, device, fatal):
    route = Route(IPv4Network(network), IPv4Address(gateway), device)
    assert ("routes" in found(WISH, facts(routes=[route]), "fatal")) is fatal


def test_routes_of_proc():
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000000A\t0A01A8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert preflight.parse_routes(text) == [Route(IPv4Network("10.0.0.0/24"), IPv4Address("192.168.1.10"), "eth0")]


def test_vpc_with_another_network():
    assert "networks" in found(WISH, facts(vpc_networks=["10.1.0.0/24"]), "fatal")
    assert "networks" not in found(WISH, facts(vpc_networks=["10.0.0.0/24"]), "fatal")


@pytest.mark.parametrize(("licences", "fatal"), [(0, False), (9, True), (10, False)])
def test_licences(licences, fatal):
    assert ("licences" in found(replace(WISH, license_nodes=licences), facts(), "fatal")) is fatal


def test_remote_nodes_need_licences_and_quota_too():
    few = replace(WISH, nodes=4, remote_nodes=3, license_nodes=6)
    assert "at most 6" in found(few, facts(), "fatal")["licences"].remedy
    assert "licences" in found(replace(few, license_nodes=7), facts(), "ok")
    assert found(few, facts(), "ok")["quota spot"].text.startswith(f"{7 * 16} vCPUs wished")
    up = [preflight.Running("c7i.4xlarge", "spot", role) for role in ("render_node", "remote_node", "remote_node")]
    assert found(few, facts(running=up), "ok")["quota spot"].text.startswith(f"{4 * 16} vCPUs wished")


def test_image_is_needed_for_up_and_made_by_a_bake():
    assert "image" in found(WISH, facts(images=[]), "fatal")
    assert "image" not in found(replace(WISH, purpose="bake"), facts(images=[]), "fatal")
    small = found(replace(WISH, purpose="bake", disk_gib=20), facts(), "fatal")["image"]
    assert "30" in small.remedy


def test_price_of_an_hour():
    text = found(WISH, facts(), "ok")["price"].text
    disks = 11 * 80 * prices.GP3_PER_GIB_MONTH / prices.HOURS_PER_MONTH
    assert text.startswith(f"{0.4 + 10 * 0.9 + disks + prices.PUBLIC_IPV4_PER_HOUR:.2f} USD per hour")
    assert f"{(160 + 4) * 0.046:.2f} Windows" in text
    assert "price" in found(WISH, facts(spot_prices={}), "warning")


def test_price_of_remote_nodes_has_their_public_addresses():
    text = found(replace(WISH, nodes=8, remote_nodes=2), facts(), "ok")["price"].text
    disks = 11 * 80 * prices.GP3_PER_GIB_MONTH / prices.HOURS_PER_MONTH
    assert text.startswith(f"{0.4 + 10 * 0.9 + disks + 3 * prices.PUBLIC_IPV4_PER_HOUR:.2f} USD per hour")
    assert "10 nodes spot" in text
    assert f"3 public addresses {3 * prices.PUBLIC_IPV4_PER_HOUR:.3f}" in text


@pytest.mark.parametrize(("fallback", "said"), [(True, True), (False, False)])
def test_price_names_what_a_node_costs_that_spot_cannot_give(fallback, said):
    text = found(replace(WISH, on_demand_fallback=fallback), facts(), "ok")["price"].text
    assert ("on-demand up to 1.60, where spot is short" in text) is said


def test_price_knows_what_may_not_be_spot():
    text = found(replace(WISH, spot_percent=50), facts(), "ok")["price"].text
    disks = 11 * 80 * prices.GP3_PER_GIB_MONTH / prices.HOURS_PER_MONTH
    rest = 0.4 + 5 * 0.9 + disks + prices.PUBLIC_IPV4_PER_HOUR
    assert text.startswith(f"{rest + 5 * 1.5:.2f} to {rest + 5 * 1.6:.2f} USD per hour")
    assert "5 nodes spot 0.90 each (on-demand up to 1.60" in text and "5 nodes on-demand 1.50 to 1.60 each" in text


POOLS = {
    ("c7i.4xlarge", "eu-central-1a"): 0.5,
    ("c6i.4xlarge", "eu-central-1b"): 0.9,
    ("c6i.4xlarge", "eu-west-1a"): 0.1,
}


@pytest.mark.parametrize(
    ("limit", "fallback", "severity", "said"),
    [
        (0.5, False, "ok", "1 of 2 spot pools"),
        (0.49, False, "fatal", "less than 0.5000"),
        (0.49, True, "warning", "10 spot nodes would be bought on-demand, at up to 1.60 each"),
    ],
)
def test_maximum_below_every_spot_price(limit, fallback, severity, said):
    wish = replace(WISH, max_price=limit, on_demand_fallback=fallback)
    assert said in found(wish, facts(spot_prices=POOLS), severity)["spot price"].text


def test_maximum_is_of_no_concern_where_no_spot_node_is_launched():
    low = replace(WISH, max_price=0.01, on_demand_fallback=False)
    there = [Running("c7i.4xlarge", "spot", "render_node")] * 10
    for wish, changes in (
        (low, {"running": there}),
        (replace(low, spot=False), {}),
        (replace(low, spot_percent=0), {}),
        (replace(low, purpose="bake"), {}),
        (low, {"spot_prices": {}}),
    ):
        checks = {finding.check for finding in preflight.examine(wish, facts(**changes))}
        assert "spot price" not in checks


def test_price_with_a_maximum_is_that_of_the_pools_below_it():
    def text(limit: float) -> str:
        return found(replace(WISH, max_price=limit), facts(spot_prices=POOLS), "ok")["price"].text

    assert "10 nodes spot 0.50 each" in text(0.6)
    assert "10 nodes on-demand 1.50 to 1.60 each" in text(0.4)


def test_quota_with_a_maximum_that_leaves_on_demand_only():
    known = facts(spot_prices=POOLS, quotas={"spot": 0.0, "on-demand": 163.0})
    assert found(replace(WISH, max_price=0.4), known, "fatal").keys() == {"quota on-demand"}


def test_on_demand_price_from_the_price_list():
    def product(price: str, unit: str = "Hrs") -> str:
        dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
        return json.dumps({"terms": {"OnDemand": {"A": {"priceDimensions": {"B": dimension}}}}})

    assert prices.on_demand_price([product("0.3680000000")]) == 0.368
    assert prices.on_demand_price([product("0.0000000000"), product("1.0", "Quantity")]) is None
    assert prices.on_demand_price([]) is None
    assert [prices.price_region(name) for name in ("eu-west-3", "ap-east-1", "us-west-2", "sa-east-1")] == [
        "eu-central-1", "ap-south-1", "us-east-1", "us-east-1",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- the facts


def refused(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "No."}}, operation)


class FakeClient:
    """Answers what it was told; dry runs end as EC2 ends them."""

    def __init__(self, answers: dict[str, Any], denied: set[str] = frozenset()) -> None:
        self.answers, self.denied = answers, denied
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, method: str) -> Any:
        operation = "".join(word.capitalize() for word in method.split("_"))

        def call(**parameters: Any) -> Any:
            self.calls.append((operation, parameters))
            if operation in self.denied:
                raise refused("UnauthorizedOperation", operation)
            if parameters.get("DryRun"):
                raise refused("DryRunOperation", operation)
            answer = self.answers.get(operation)
            if isinstance(answer, Exception):
                raise answer
            assert answer is not None, f"{operation} is not answered"
            return answer(**parameters) if callable(answer) else answer

        return call

    def get_paginator(self, method: str) -> Any:
        class Paginator:
            def paginate(inner, **parameters: Any) -> list[Any]:
                parameters.pop("PaginationConfig", None)
                return [getattr(self, method)(**parameters)]

        return Paginator()


def kinds_of(size: int) -> Any:
    """DescribeInstanceTypes of a Region in which each type has ``size`` vCPUs: it answers for the types asked for."""

    def answer(Filters: list[dict[str, Any]]) -> dict[str, Any]:
        [wanted] = Filters
        return {"InstanceTypes": [{"InstanceType": k, "VCpuInfo": {"DefaultVCpus": size}} for k in wanted["Values"]]}

    return answer


IMAGE = {
    "ImageId": "ami-1", "Name": "studio-1", "CreationDate": "2026-11-01T00:00:00.000Z", "State": "available",
    "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 80, "SnapshotId": "snap-1"}}],
    "Tags": [{"Key": "renderfarm:farm", "Value": "studio"}],
}  # fmt: skip


def aws(denied: set[str] = frozenset(), **changes: Any) -> dict[str, FakeClient]:
    ec2: dict[str, Any] = {
        "DescribeInstances": {"Reservations": []},
        "DescribeInstanceTypes": kinds_of(16),
        "DescribeInstanceTypeOfferings": {
            "InstanceTypeOfferings": [{"InstanceType": "c7i.4xlarge", "Location": "eu-central-1a"}]
        },
        "DescribeVpcs": {"Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/24"}]},
        "DescribeSubnets": {"Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1"}]},
        "DescribeSecurityGroups": {
            "SecurityGroups": [{"GroupId": "sg-2", "VpcId": "vpc-2"}, {"GroupId": "sg-1", "VpcId": "vpc-1"}]
        },
        "DescribeRouteTables": {"RouteTables": []},
        "DescribeLaunchTemplates": {"LaunchTemplates": []},
        "DescribeImages": {"Images": [IMAGE]},
        "DescribeSpotPriceHistory": {
            "SpotPriceHistory": [
                {"InstanceType": "c7i.4xlarge", "AvailabilityZone": "eu-central-1a", "SpotPrice": "0.51"}
            ]
        },
        **changes,
    }
    quota = refused("NoSuchResourceException", "GetServiceQuota")
    default = {"Quota": {"Value": 5.0}}
    return {
        "ec2": FakeClient(ec2, denied),
        "sts": FakeClient(
            {"GetCallerIdentity": {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:user/f"}}
        ),
        "ssm": FakeClient({"GetParameter": {"Parameter": {"Value": "ami-0"}}}),
        "service-quotas": FakeClient({"GetServiceQuota": quota, "GetAwsDefaultServiceQuota": default}),
        "pricing": FakeClient({"GetProducts": {"PriceList": []}}, denied),
    }


def collect(clients: dict[str, FakeClient]) -> Facts:
    return preflight_facts.collect(clients, WISH, "studio", "/aws/service/x")


def test_facts_from_aws():
    known = collect(aws())
    assert known.quotas == {"spot": 5.0, "on-demand": 5.0}  # no applied value: the default of AWS
    assert known.spot_prices == {("c7i.4xlarge", "eu-central-1a"): 0.51}
    assert known.images is not None and known.images[0]["snapshots"] == ["snap-1"]
    assert known.permissions["ec2:CreateVpc"] == "allowed"
    assert known.unknown == {}


def test_addresses_are_those_in_the_farms_own_network():
    machines = [
        {"InstanceType": "m5.large", "VpcId": vpc, "PrivateIpAddress": address}
        for vpc, address in (("vpc-1", "10.0.0.7"), ("vpc-2", "10.0.0.8"))
    ]
    assert collect(aws(DescribeInstances={"Reservations": [{"Instances": machines}]})).addresses == ["10.0.0.7"]


def running(kind: str, farm: str = "", identifier: str = "i-1") -> dict[str, Any]:
    """An instance as DescribeInstances shows it; without ``farm`` it belongs to somebody else in the account."""
    own = [{"Key": "renderfarm:farm", "Value": farm}] if farm else []
    return {"InstanceId": identifier, "InstanceType": kind, "Tags": own}


def test_other_machines_of_the_account_count_too():
    """Also of types that the farm does not know: 16 for the manager, 16 for the other's m5.4xlarge, 31 allowed."""
    clients = aws(DescribeInstances={"Reservations": [{"Instances": [running("m5.4xlarge"), running("g5.xlarge")]}]})
    known = collect(clients)
    known.quotas = {"spot": 1000.0, "on-demand": 31.0}
    assert found(WISH, known, "fatal")["quota on-demand"].text == "16 vCPUs wished, 16 in use, 31 allowed"
    asked = [given["Filters"][0]["Values"] for name, given in clients["ec2"].calls if name == "DescribeInstanceTypes"]
    assert ["g5.xlarge", "m5.4xlarge"] in asked and len(asked) == 2


def test_types_are_asked_for_once_when_nothing_else_runs():
    clients = aws(DescribeInstances={"Reservations": [{"Instances": [running(TYPES[0], "studio")]}]})
    collect(clients)
    assert [name for name, _ in clients["ec2"].calls].count("DescribeInstanceTypes") == 1


def test_dry_runs_leave_the_machines_of_another_farm_alone():
    """A policy that names the farm refuses them for another farm's machine, and that says nothing about the own one."""
    other, own = running(TYPES[0], "studio2", "i-2"), running(TYPES[0], "studio", "i-1")
    assert (
        "ec2:TerminateInstances"
        not in collect(aws(DescribeInstances={"Reservations": [{"Instances": [other]}]})).permissions
    )
    clients = aws(DescribeInstances={"Reservations": [{"Instances": [other, own]}]})
    collect(clients)
    assert dict(clients["ec2"].calls)["TerminateInstances"]["InstanceIds"] == ["i-1"]


def test_dry_runs_name_only_what_the_farm_has():
    clients = aws()
    tried = set(collect(clients).permissions)
    assert {"ec2:CreateSubnet", "ec2:RunInstances", "ec2:AllocateAddress"} <= tried
    assert not {"ec2:TerminateInstances", "ec2:CreateFleet", "ec2:CreateRoute"} & tried
    changing = [
        name for name, given in clients["ec2"].calls if not name.startswith("Describe") and not given.get("DryRun")
    ]
    assert changing == []
    # EC2 would take the VPC's default group otherwise; a group of another VPC it would refuse.
    given = dict(clients["ec2"].calls)
    assert given["RunInstances"]["SecurityGroupIds"] == ["sg-1"]
    assert given["CreateNetworkInterface"]["Groups"] == ["sg-1"]


TEMPLATES = {"LaunchTemplates": [{"LaunchTemplateName": "studio-render-node"}]}


def test_the_launch_is_tried_as_soon_as_there_is_a_template():
    """With the request that the module ec2_fleet sends, in the farm's own subnet."""
    before = collect(aws())
    assert "ec2:CreateFleet" in before.untried and "ec2:CreateFleet" not in before.permissions
    assert "ec2:CreateFleet" in found(WISH, before, "ok")["permissions"].text
    clients = aws(DescribeLaunchTemplates=TEMPLATES)
    known = collect(clients)
    assert known.permissions["ec2:CreateFleet"] == known.permissions["ec2:DeleteLaunchTemplate"] == "allowed"
    assert "ec2:CreateFleet" not in known.untried and "ec2:TerminateInstances" in known.untried
    given = dict(clients["ec2"].calls)["CreateFleet"]
    [configuration] = given["LaunchTemplateConfigs"]
    assert configuration["LaunchTemplateSpecification"]["LaunchTemplateName"] == "studio-render-node"
    assert configuration["Overrides"] == [{"InstanceType": TYPES[0], "SubnetId": "subnet-1"}]
    assert given["Type"] == "instant" and given["DryRun"] and "ClientToken" not in given


def test_what_ends_a_farm_is_tried_on_one_that_stands():
    machine = {**running(TYPES[0], "studio"), "NetworkInterfaces": [{"NetworkInterfaceId": "eni-1"}]}
    clients = aws(
        denied={"DeleteNetworkInterface"},
        DescribeInstances={"Reservations": [{"Instances": [machine]}]},
        DescribeLaunchTemplates=TEMPLATES,
    )
    known = collect(clients)
    assert known.permissions["ec2:TerminateInstances"] == "allowed"
    assert known.permissions["ec2:DeleteNetworkInterface"] == "denied"
    assert dict(clients["ec2"].calls)["ModifyNetworkInterfaceAttribute"]["NetworkInterfaceId"] == "eni-1"


@pytest.mark.parametrize(
    ("purpose", "tried", "left_out"),
    [
        ("bake", "ec2:DeregisterImage", "ec2:AllocateAddress"),
        ("up", "ec2:AllocateAddress", "ec2:DeregisterImage"),
        ("check", "ec2:AllocateAddress", None),
        ("check", "ec2:DeregisterImage", None),
    ],
)
def test_only_what_is_needed_is_tried(purpose, tried, left_out):
    known = preflight_facts.collect(aws(), replace(WISH, purpose=purpose), "studio", "/aws/service/x")
    assert tried in known.permissions
    assert left_out not in known.permissions


def test_every_dry_run_is_in_the_policy():
    assert {probe.action for probe in preflight_facts.PROBES} <= iam_policy.allowed()
    assert {probe.action for probe in preflight_facts.PROBES} >= preflight_facts.BAKE_ONLY | preflight_facts.UP_ONLY


@pytest.mark.parametrize("action", ["CreateVpc", "RunInstances", "DescribeVpcs", "DescribeVolumes"])
def test_missing_right_is_named(action):
    known = collect(aws(denied={action}))
    assert [name for name, outcome in known.permissions.items() if outcome == "denied"] == [f"ec2:{action}"]
    assert f"ec2:{action}" in found(WISH, known, "fatal")["permissions"].text


def test_missing_price_is_a_warning():
    known = collect(aws(denied={"GetProducts"}))
    assert "denied" not in known.permissions.values()
    assert "price" in found(WISH, known, "warning")


def test_no_credentials():
    clients = aws()
    clients["sts"].answers["GetCallerIdentity"] = NoCredentialsError()
    with pytest.raises(preflight_facts.CredentialsError, match="AWS_PROFILE"):
        collect(clients)
    assert clients["ec2"].calls == []


def test_what_cannot_be_found_out_is_told():
    known = collect(aws(DescribeInstanceTypes=refused("InternalError", "DescribeInstanceTypes")))
    assert "InternalError" in known.unknown["instance types"]
    assert "instance types" in found(WISH, known, "warning")
