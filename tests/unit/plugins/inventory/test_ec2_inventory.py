"""Which settings are meant, and what hosts a farm's instances are: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import ec2_inventory as ec2
from hypothesis import given
from hypothesis import strategies as st


def instance(number: int = 1, *, tags: Mapping[str, str] | None = None, **changes: Any) -> ec2.Instance:
    """A render node of the farm ``studio``."""
    return ec2.Instance(
        instance_id=f"i-{number:017x}",
        state="running",
        tags={"Name": "studio-render-node", ec2.TAG_FARM: "studio", ec2.TAG_ROLE: "render_node", **(tags or {})},
        region="eu-central-1",
        account="123456789012",
        zone="eu-central-1a",
        lifecycle="",
        type="c7i.4xlarge",
        image="ami-1",
        launch_time="2026-10-14T08:00:00Z",
        mac=f"0a:00:00:00:00:{number % 256:02x}",
        private_ip=f"10.0.0.{number % 250}",
        public_ip="",
        public_name="",
        subnet="subnet-1",
        vpc="vpc-1",
    )._replace(**changes)


def machine(number: int = 1, *, tags: Mapping[str, str] | None = None, **changes: Any) -> ec2.Instance:
    """A manager, of which a farm has one."""
    return instance(number, tags={ec2.TAG_ROLE: "manager", **(tags or {})}, **changes)


# ------------------------------------------------------------------------------------------------------ configuration


def problems(**changes: Any) -> str:
    settings = {"farm": "studio", "regions": ["eu-central-1"], "states": ["running"], "profiles": []}
    return "; ".join(ec2.setting_problems(**{**settings, **changes}))


OPTIONS: Mapping[str, Mapping[str, Any]] = {
    **{name: {} for name in ("plugin", "farm", "regions", "states", "address")},
    "profiles": {"aliases": ["profile"]},
}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("regoins", "did you mean 'regions'?"),
        ("farm_name", "did you mean 'farm'?"),
        ("state", "did you mean 'states'?"),
        ("zzz", "use address, farm, plugin, profile, profiles, regions, states"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest_one(key, hint):
    assert ec2.option_problems([key, "farm", "profile"], OPTIONS) == [f"unknown option '{key}': {hint}"]


def test_two_names_of_one_option_are_one_too_many():
    assert ec2.option_problems(["profile", "profiles"], OPTIONS) == [
        "'profile' is another name of 'profiles': leave one out"
    ]


@pytest.mark.parametrize(
    "regions", [["eu-central-1"], ["us-gov-west-1", "eu-central-1"], ["ap-southeast-3", "il-central-1", "mx-central-1"]]
)
def test_regions_pass(regions):
    assert problems(regions=regions) == ""


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        ([], "empty"),
        (["eu-central-1a"], "is a zone: its region is eu-central-1"),
        (["us-west-2-lax-1a"], "is a zone: its region is us-west-2"),
        (["us-east-1-wl1-bos-wlz-1"], "is a zone: its region is us-east-1"),
        (["Frankfurt"], "not the name of a region"),
        ([7], "not the name of a region"),
        (["eu-west-1", "eu-west-1"], "named twice"),
        (["http://evil/#"], "not the name of a region"),
    ],
)
def test_what_is_no_region_is_refused(regions, words):
    assert words in problems(regions=regions)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"states": ["runing"]}, "'runing' in 'states' is no state of an instance: did you mean 'running'?"),
        ({"states": ["gone"]}, "use pending, running"),
        ({"states": []}, "'states' is empty"),
        ({"profiles": ["a", "a"]}, "'a' is named twice in 'profiles'"),
        ({"farm": " "}, "'farm' is empty"),
        ({"farm": "{{ farm_name }}"}, "variables do not exist yet"),
    ],
)
def test_settings_that_cannot_be_meant(changes, words):
    assert words in problems(**changes)


def test_all_problems_are_told_at_once():
    assert problems(farm="", regions=[], states=["runing"]).count(";") == 2


# ---------------------------------------------------------------------------------------------------------- host names


def names(*instances: ec2.Instance) -> list[str]:
    by_id = ec2.host_names(instances)
    return [by_id[one.instance_id] for one in instances]


def test_a_name_of_its_own_is_kept():
    assert names(machine(1, tags={"Name": "studio-manager"})) == ["studio-manager"]


@pytest.mark.parametrize("role", ["render_node", "remote_node"])
@pytest.mark.parametrize("number", [1, 2])
def test_nodes_have_their_ids_in_their_names_however_many_there_are(role, number):
    nodes = [instance(n, tags={ec2.TAG_ROLE: role}) for n in range(number)]
    assert names(*nodes) == [f"studio-render-node-{node.instance_id}" for node in nodes]


def later(number: int, **changes: Any) -> ec2.Instance:
    """A manager with the name of every other one, launched after those with smaller numbers."""
    return machine(number, **{"launch_time": f"2026-10-14T08:00:{number:02d}Z", "tags": {"Name": "pc"}, **changes})


def test_of_a_shared_name_only_what_was_launched_first_has_it_alone():
    three, one, two = (later(n) for n in (3, 1, 2))
    assert names(three, one, two) == [f"pc-{three.instance_id}", "pc", f"pc-{two.instance_id}"]


def test_what_was_launched_in_the_same_second_is_told_apart_by_its_id():
    one, two = (later(n, launch_time="2026-10-14T08:00:00Z") for n in (1, 2))
    assert names(two, one) == [f"pc-{two.instance_id}", "pc"]


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_what_is_gone_leaves_its_name_to_what_lives(state):
    one, two = later(1, state=state), later(2)
    assert names(one, two) == [f"pc-{one.instance_id}", "pc"]


@given(st.data())
def test_no_host_is_renamed_by_what_comes_and_hosts_never_meet(data):
    """Whatever the tags are, ids of other instances in names among them."""
    ids = [instance(n).instance_id for n in range(6)]
    texts = st.sampled_from(["pc", "pc-" + ids[0], ids[1], "zone_x", "spot", "a b", "a/b", "{{ x }}", ""])
    roles = st.sampled_from([*ec2.ROLE_GROUPS, "else"])
    listed = [
        later(n, instance_id=one, tags={"Name": data.draw(texts), ec2.TAG_ROLE: data.draw(roles)})
        for n, one in enumerate(ids)
    ]
    all_names = names(*listed)
    assert len(set(all_names)) == len(listed)
    there = data.draw(st.integers(0, len(listed)))
    assert names(*listed[:there]) == all_names[:there]


@pytest.mark.parametrize("name", ["", "   ", "///", "\n", "{{}}", "..", "-"])
def test_without_a_usable_name_the_instance_id_is_the_name(name):
    assert names(instance(1, tags={"Name": name})) == [instance(1).instance_id]


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "127.0.0.1", "all", "ungrouped", "manager", "spot", "zones"),
        *("zone_eu_central_1a", "type_c7i_4xlarge", "state_running"),
        *("i-0123456789abcdef0", "studio-i-0123456789abcdef0"),
    ],
)
def test_names_that_mean_something_else_get_the_instance_id(name):
    one = machine(1, tags={"Name": name})
    assert names(one) == [f"{name}-{one.instance_id}"]


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
        ("ü" * 256, "ü" * 100),
        ("渲染" * 128, "渲染" * 38),
        ("a" + "渲染" * 128, "a" + "渲染" * 38),
        ("𠀀" * 64, "𠀀" * 57),
    ],
)
def test_a_host_name_is_neither_pattern_nor_path_nor_template(name, clean):
    assert ec2.clean_name(name) == clean


def test_two_instances_stay_two_hosts_whatever_they_are_called():
    one, two = (machine(n, tags={"Name": "a"}) for n in (1, 2))
    three = machine(3, tags={"Name": f"a-{one.instance_id}"})
    four = machine(4, tags={"Name": one.instance_id})
    assert len(set(names(one, two, three, four))) == 4


def test_names_that_become_equal_by_cleaning_or_cutting_are_shared_names():
    one, two = machine(1, tags={"Name": "a b"}), machine(2, tags={"Name": "a/b"})
    assert names(one, two) == ["a-b", f"a-b-{two.instance_id}"]
    assert len(set(names(*(machine(n, tags={"Name": "x" * 255 + str(n)}) for n in (1, 2))))) == 2


@given(st.text(min_size=1, max_size=256))
def test_a_file_of_host_vars_can_be_named_like_any_host(name):
    one, two = (instance(n, tags={"Name": name + str(n)}) for n in (1, 2))
    assert len(set(names(one, two))) == 2
    assert all(len(f"{host}.yaml".encode()) <= 255 for host in names(one, two))


# -------------------------------------------------------------------------------------------------- variables, groups


def test_all_variables_of_a_node():
    variables = ec2.host_variables(instance(7, lifecycle="spot"), address="tunnel")
    assert variables == {
        "ansible_host": "10.0.0.7",
        "farm_account": "123456789012",
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
    ("address", "role", "public", "expected"),
    [
        ("tunnel", "manager", "198.51.100.9", "10.0.0.1"),
        ("tunnel", "render_node", "", "10.0.0.1"),
        ("tunnel", "builder", "198.51.100.9", "198.51.100.9"),
        ("tunnel", "builder", "", "10.0.0.1"),
        ("public", "manager", "198.51.100.9", "198.51.100.9"),
        ("public", "manager", "", "10.0.0.1"),
        ("private", "builder", "198.51.100.9", "10.0.0.1"),
    ],
)
def test_address_choice(address, role, public, expected):
    variables = ec2.host_variables(instance(1, tags={ec2.TAG_ROLE: role}, public_ip=public), address=address)
    assert variables["ansible_host"] == expected
    assert (variables["farm_private_ip"], variables["farm_public_ip"]) == ("10.0.0.1", public)


def only_host(one: ec2.Instance) -> ec2.Host:
    (host,) = ec2.build([one], address="tunnel").hosts
    return host


def test_a_terminated_instance_has_no_address():
    gone = instance(1, state="terminated", private_ip="", zone="", type="")
    assert "ansible_host" not in only_host(gone).variables
    assert only_host(gone).groups == ("render_nodes", "on_demand", "state_terminated")


@pytest.mark.parametrize(
    ("role", "group"),
    [("manager", "manager"), ("render_node", "render_nodes"), ("remote_node", "remote_nodes"), ("builder", "builders")],
)
def test_groups(role, group):
    host = only_host(instance(1, tags={ec2.TAG_ROLE: role}, lifecycle="spot"))
    assert host.groups == (group, "spot", "zone_eu_central_1a", "type_c7i_4xlarge", "state_running")


def test_groups_are_children_of_what_they_tell():
    farm = ec2.build([instance(1), instance(2, type="m7i.xlarge", state="stopped")], address="tunnel")
    assert farm.parents == {
        "lifecycles": ("spot", "on_demand"),
        "zones": ("zone_eu_central_1a",),
        "types": ("type_c7i_4xlarge", "type_m7i_xlarge"),
        "states": ("state_running", "state_stopped"),
    }
    assert {"manager", "render_nodes", "remote_nodes", "builders", *farm.parents} <= set(farm.groups)


@pytest.mark.parametrize(
    ("zone", "region"), [("us-west-2-lax-1a", "us-west-2"), ("us-east-1-wl1-bos-wlz-1", "us-east-1")]
)
def test_zones_of_any_kind_keep_the_region_that_was_asked(zone, region):
    host = only_host(instance(1, zone=zone, region=region))
    assert host.variables["farm_region"] == region
    assert "zone_" + zone.replace("-", "_") in host.groups


@pytest.mark.parametrize("role", ["all", "manager\n", "{{ 7*7 }}", "", "x" * 256, "render_nodes"])
def test_an_unknown_role_makes_no_group_but_a_warning(role):
    farm = ec2.build([instance(n, tags={ec2.TAG_ROLE: role}) for n in range(1, 6)], address="tunnel")
    assert farm.hosts[0].groups == ("on_demand", "zone_eu_central_1a", "type_c7i_4xlarge", "state_running")
    assert len(farm.warnings) == 1 and "i-00000000000000001" in farm.warnings[0] and "\n" not in farm.warnings[0]


def test_hosts_come_in_the_order_of_their_names():
    farm = ec2.build([machine(n, tags={"Name": name}) for n, name in enumerate("cab", 1)], address="tunnel")
    assert [host.name for host in farm.hosts] == ["a", "b", "c"]


def test_an_instance_that_is_listed_twice_is_one_host():
    assert len(ec2.build([instance(1), instance(2), instance(1)], address="tunnel").hosts) == 2


def test_an_empty_farm_has_its_groups():
    farm = ec2.build([], address="tunnel")
    assert farm.hosts == () and {"manager", "spot", "zones"} <= set(farm.groups)
