"""From DescribeInstances to hosts, groups and variables: pure functions and paging."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import ec2_inventory as ec2
from botocore.parsers import ResponseParserError


def instance(number: int = 1, *, tags: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """An instance as botocore gives it, with the tag of farm ``studio``."""
    name = {"Name": "studio-render-node", ec2.TAG_FARM: "studio", ec2.TAG_ROLE: "render_node"}
    return {
        "InstanceId": f"i-{number:017x}",
        "State": {"Code": 16, "Name": "running"},
        "InstanceType": "c7i.4xlarge",
        "ImageId": "ami-1",
        "LaunchTime": datetime(2026, 10, 14, 8, 0, 0, tzinfo=UTC),
        "Placement": {"AvailabilityZone": "eu-central-1a"},
        "PrivateIpAddress": f"10.0.0.{number % 250}",
        "SubnetId": "subnet-1",
        "VpcId": "vpc-1",
        "NetworkInterfaces": [{"MacAddress": f"0a:00:00:00:00:{number % 256:02x}", "Attachment": {"DeviceIndex": 0}}],
        "Tags": [{"Key": key, "Value": value} for key, value in {**name, **(tags or {})}.items()],
        "Region": "eu-central-1",
        **changes,
    }


class FakeClient:
    """Answers DescribeInstances with given pages; remembers what was asked and by which thread."""

    def __init__(self, *pages: Any) -> None:
        self.pages = pages
        self.asked: list[dict[str, Any]] = []
        self.thread: int | None = None

    def get_paginator(self, operation_name: str) -> FakeClient:
        assert operation_name == "describe_instances"
        return self

    def paginate(self, **parameters: Any):
        self.asked.append(parameters)
        self.thread = threading.get_ident()
        for page in self.pages:
            if isinstance(page, Exception):
                raise page
            yield page


def page(*instances: dict[str, Any]) -> dict[str, Any]:
    return {"Reservations": [{"Instances": list(instances)}]}


# ------------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("regoins", "did you mean 'regions'?"),
        ("farm_name", "did you mean 'farm'?"),
        ("state", "did you mean 'states'?"),
        ("keyed_groups", "options are address, farm, plugin, profile, public_roles, regions, states"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest_one(key, hint):
    known = ["plugin", "farm", "regions", "states", "address", "public_roles", "profile"]
    assert ec2.unknown_options([key, "farm"], known) == [f"unknown option '{key}': {hint}"]


@pytest.mark.parametrize(
    "regions", [["eu-central-1"], ["us-gov-west-1", "eu-central-1"], ["ap-southeast-3", "il-central-1", "mx-central-1"]]
)
def test_regions_pass(regions):
    assert ec2.region_problems(regions) == []


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ([], "empty"),
        (["eu-central-1a"], "is a zone: its region is eu-central-1"),
        (["us-west-2-lax-1a"], "is a zone: its region is us-west-2"),
        (["Frankfurt"], "not the name of a region"),
        ([7], "not the name of a region"),
        (["eu-west-1", "eu-west-1"], "named twice"),
        (["http://evil/#"], "not the name of a region"),
    ],
)
def test_what_is_no_region_is_refused(regions, words):
    assert words in " ".join(ec2.region_problems(regions))


def test_wildcards_in_the_name_of_a_farm_mean_themselves():
    assert ec2.request("a*b?\\", ["running"])["Filters"][0]["Values"] == ["a\\*b\\?\\\\"]


# ------------------------------------------------------------------------------------------------------------ fetching


def test_each_region_is_asked_once_with_filters_and_large_pages():
    clients = {
        "eu-central-1": FakeClient(page(instance(1)), page(instance(2))),
        "eu-west-1": FakeClient(page(instance(3))),
    }
    found = ec2.fetch(clients, "studio", ["pending", "running"])
    assert [(i["InstanceId"][-1], i["Region"]) for i in found] == [
        ("1", "eu-central-1"),
        ("2", "eu-central-1"),
        ("3", "eu-west-1"),
    ]
    for client in clients.values():
        assert client.asked == [
            {
                "Filters": [
                    {"Name": "tag:renderfarm:farm", "Values": ["studio"]},
                    {"Name": "instance-state-name", "Values": ["pending", "running"]},
                ],
                "PaginationConfig": {"PageSize": 1000},
            }
        ]
        assert client.thread != threading.get_ident()


def test_instances_of_other_farms_never_appear():
    stranger = instance(2, tags={ec2.TAG_FARM: "studio2"})
    naked = {**instance(3), "Tags": []}
    assert len(ec2.fetch({"r": FakeClient(page(instance(1), stranger, naked))}, "studio", ["running"])) == 1


@pytest.mark.parametrize("failure", [ResponseParserError("cut off"), RuntimeError("second page lost")])
def test_one_failing_region_fails_all_and_is_named(failure):
    clients = {"eu-central-1": FakeClient(page(instance(1))), "eu-west-1": FakeClient(page(instance(2)), failure)}
    with pytest.raises(type(failure)) as caught:
        ec2.fetch(clients, "studio", ["running"])
    assert caught.value.region == "eu-west-1"


@pytest.mark.parametrize("pages", [[], [{}], [{"ResponseMetadata": {}}], [page(instance(1)), {}]])
def test_half_an_answer_is_an_error(pages):
    with pytest.raises(ec2.IncompleteAnswer):
        ec2.fetch({"r": FakeClient(*pages)}, "studio", ["running"])


def test_an_empty_farm_is_no_error():
    assert ec2.fetch({"r": FakeClient({"Reservations": []})}, "studio", ["running"]) == []
    assert ec2.build([], address="private").hosts == ()


# ---------------------------------------------------------------------------------------------------------- host names


def names(*instances: dict[str, Any]) -> list[str]:
    return list(ec2.host_names(instances, taken=["manager"]).values())


def test_a_name_of_its_own_is_kept():
    assert names(instance(1, tags={"Name": "studio-manager"})) == ["studio-manager"]


def test_shared_names_get_the_instance_id():
    one, two = instance(1), instance(2)
    assert names(one, two) == [f"studio-render-node-{i['InstanceId']}" for i in (one, two)]


@pytest.mark.parametrize("name", ["", "   ", "///", "\n", "{{}}", "..", "-"])
def test_without_a_usable_name_the_instance_id_is_the_name(name):
    one = instance(1, tags={"Name": name})
    assert names(one) == [one["InstanceId"]]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "all", "ungrouped", "manager", "i-0123456789abcdef0"])
def test_names_that_mean_something_else_get_the_instance_id(name):
    one = instance(1, tags={"Name": name})
    assert names(one) == [f"{name}-{one['InstanceId']}"]


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("my node", "my-node"),
        ("a\nb", "a-b"),
        ("{{ lookup('pipe','id') }}", "lookup-pipe-id"),
        ("web[1:9]", "web-1-9"),
        ("!all", "all"),
        ("../../etc/passwd", "etc-passwd"),
        ("a,b:c", "a-b-c"),
        ("Knoten-Ä", "Knoten-Ä"),
        ("узел", "узел"),
    ],
)
def test_a_host_name_is_neither_pattern_nor_path_nor_template(name, clean):
    assert ec2.clean_name(name) == clean


def test_two_instances_stay_two_hosts_whatever_they_are_called():
    one, two, three = (instance(n) for n in (1, 2, 3))
    one["Tags"] = two["Tags"] = [{"Key": "Name", "Value": "a"}]
    three["Tags"] = [{"Key": "Name", "Value": f"a-{one['InstanceId']}"}]
    four = instance(4, tags={"Name": one["InstanceId"]})
    found = names(one, two, three, four)
    assert len(set(found)) == 4


def test_names_that_become_equal_by_cleaning_are_shared_names():
    found = names(instance(1, tags={"Name": "a b"}), instance(2, tags={"Name": "a/b"}))
    assert len(set(found)) == 2 and all(name.startswith("a-b-i-") for name in found)


# -------------------------------------------------------------------------------------------------- variables, groups


def test_all_variables_of_a_node():
    variables = ec2.host_variables(instance(7, InstanceLifecycle="spot"), address="private")
    assert variables == {
        "ansible_host": "10.0.0.7",
        "farm_instance_id": "i-00000000000000007",
        "farm_role": "render_node",
        "farm_mac": "0a:00:00:00:00:07",
        "farm_private_ip": "10.0.0.7",
        "farm_public_ip": "",
        "farm_public_name": "",
        "farm_lifecycle": "spot",
        "farm_region": "eu-central-1",
        "farm_zone": "eu-central-1a",
        "farm_type": "c7i.4xlarge",
        "farm_image": "ami-1",
        "farm_launch_time": "2026-10-14T08:00:00Z",
        "farm_state": "running",
        "farm_subnet": "subnet-1",
        "farm_vpc": "vpc-1",
        "farm_tags": {"Name": "studio-render-node", "renderfarm:farm": "studio", "renderfarm:role": "render_node"},
    }


@pytest.mark.parametrize(
    ("address", "public", "expected"),
    [
        ("private", None, "10.0.0.1"),
        ("private", "198.51.100.9", "10.0.0.1"),
        ("public", "198.51.100.9", "198.51.100.9"),
        ("public", None, "10.0.0.1"),
    ],
)
def test_address_choice(address, public, expected):
    name = "ec2-198-51-100-9.eu-central-1.compute.amazonaws.com" if public else ""
    changes = {"PublicIpAddress": public, "PublicDnsName": name} if public else {}
    variables = ec2.host_variables(instance(1, **changes), address=address)
    assert variables["ansible_host"] == expected
    assert (variables["farm_private_ip"], variables["farm_public_ip"]) == ("10.0.0.1", public or "")
    assert variables["farm_public_name"] == name


@pytest.mark.parametrize(("role", "public"), [("builder", True), ("manager", False)])
def test_some_roles_are_reached_at_their_public_address(role, public):
    machine = instance(1, tags={ec2.TAG_ROLE: role}, PublicIpAddress="198.51.100.9")
    variables = ec2.host_variables(machine, address="private", public_roles=["builder"])
    assert variables["ansible_host"] == variables["farm_public_ip" if public else "farm_private_ip"]


def test_a_terminated_instance_has_neither_address_nor_interfaces():
    bare = {"InstanceId": "i-1", "State": {"Name": "terminated"}, "Region": "eu-central-1"}
    variables = ec2.host_variables(bare, address="private")
    assert "ansible_host" not in variables
    assert variables["farm_mac"] == variables["farm_zone"] == variables["farm_launch_time"] == ""
    assert ec2.host_groups(variables) == ("on_demand", "state_terminated")


def test_the_mac_is_that_of_the_first_interface():
    second = {"MacAddress": "0a:ff", "Attachment": {"DeviceIndex": 1}}
    first = {"MacAddress": "0a:01", "Attachment": {"DeviceIndex": 0}}
    assert ec2.host_variables(instance(1, NetworkInterfaces=[second, first]), address="private")["farm_mac"] == "0a:01"


def test_launch_time_is_told_in_utc():
    berlin = datetime(2026, 10, 14, 10, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    assert (
        ec2.host_variables(instance(1, LaunchTime=berlin), address="private")["farm_launch_time"]
        == "2026-10-14T08:00:00Z"
    )


@pytest.mark.parametrize(
    ("role", "group"),
    [("manager", "manager"), ("render_node", "render_nodes"), ("remote_node", "remote_nodes"), ("builder", "builders")],
)
def test_groups(role, group):
    variables = ec2.host_variables(instance(1, tags={ec2.TAG_ROLE: role}, InstanceLifecycle="spot"), address="private")
    assert ec2.host_groups(variables) == (group, "spot", "zone_eu_central_1a", "type_c7i_4xlarge", "state_running")


def test_zones_of_any_kind_keep_the_region_of_the_client():
    local = instance(1, Placement={"AvailabilityZone": "us-west-2-lax-1a"}, Region="us-west-2")
    variables = ec2.host_variables(local, address="private")
    assert variables["farm_region"] == "us-west-2"
    assert "zone_us_west_2_lax_1a" in ec2.host_groups(variables)


@pytest.mark.parametrize("role", ["all", "manager\n", "{{ 7*7 }}", "", "x" * 256, "render_nodes"])
def test_an_unknown_role_makes_no_group_but_a_warning(role):
    farm = ec2.build([instance(1, tags={ec2.TAG_ROLE: role})], address="private")
    assert farm.hosts[0].groups == ("on_demand", "zone_eu_central_1a", "type_c7i_4xlarge", "state_running")
    assert len(farm.warnings) == 1 and "i-00000000000000001" in farm.warnings[0] and "\n" not in farm.warnings[0]


def test_hosts_come_in_the_order_of_their_names():
    found = ec2.build([instance(n, tags={"Name": name}) for n, name in enumerate("cab", 1)], address="private")
    assert [host.name for host in found.hosts] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "broken", [{"InstanceId": "i-1"}, {"State": {"Name": "running"}}, {"InstanceId": "i-1", "State": {}}]
)
def test_an_instance_without_id_or_state_is_half_an_answer(broken):
    with pytest.raises(ec2.IncompleteAnswer):
        ec2.build([{**broken, "Region": "r"}], address="private")
