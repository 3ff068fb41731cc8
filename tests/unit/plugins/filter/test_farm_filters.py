"""The filters: user data, tables, and errors as Ansible shows them."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.renderfarm.cloud.plugins.filter import farm

SETTINGS = {
    "farm_name": "studio",
    "farm_manager_address": "10.0.0.10",
    "farm_lan_network": "192.168.1.0/24",
    "farm_cloud_network": "10.0.0.0/24",
    "farm_tunnel_network": "10.8.0.0/24",
}


def test_free_addresses():
    assert farm.free_addresses("10.0.0.0/28", ["10.0.0.10", "10.9.0.4"])[:2] == ["10.0.0.4", "10.0.0.5"]
    with pytest.raises(AnsibleFilterError, match=r"free_addresses: 10\.0\.0\.0/28 has no free address"):
        farm.free_addresses("10.0.0.0/28", [f"10.0.0.{number}" for number in range(16)])
    with pytest.raises(AnsibleFilterError, match="nonsense"):
        farm.free_addresses("10.0.0.0/28", ["nonsense"])


def test_zone_subnets():
    assert farm.zone_subnets("10.0.0.0/24", ["a", "b"]) == [
        {"zone": "a", "network": "10.0.0.0/25"},
        {"zone": "b", "network": "10.0.0.128/25"},
    ]
    with pytest.raises(AnsibleFilterError, match="zone_subnets: the cloud network is '10"):
        farm.zone_subnets("10.0.0.1/24", ["a"])


def test_network_problems_needs_a_dictionary():
    assert farm.network_problems({**SETTINGS, "farm_zones": ["a"]}) == []
    with pytest.raises(AnsibleFilterError, match="not list"):
        farm.network_problems(["x"])


# ------------------------------------------------------------------------------------------------------------ user data


def document(text: str) -> dict:
    return json.loads(text.rpartition("<farm>")[2].removesuffix("</farm>\n"))


def test_user_data_of_a_node_is_one_line():
    text = farm.farm_user_data(SETTINGS, "render_node")
    assert text == (
        '<farm>{"version":1,"farm":"studio","role":"render_node","manager":"10.0.0.10","networks":'
        '{"lan":"192.168.1.0/24","cloud":"10.0.0.0/24","tunnel":"10.8.0.0/24"}}</farm>\n'
    )


def test_user_data_with_bootstrap_and_more_facts():
    text = farm.farm_user_data(SETTINGS, "manager", "\nWrite-Host 'hi'\n", {"deadline": "2026-10-14T20:00:00Z"})
    assert text.startswith("<powershell>\nWrite-Host 'hi'\n</powershell>\n<farm>{")
    assert document(text)["role"] == "manager"
    assert document(text)["deadline"] == "2026-10-14T20:00:00Z"


def test_only_a_remote_node_is_told_of_its_own_network():
    text = farm.farm_user_data({**SETTINGS, "farm_remote_network": "10.9.0.0/24"}, "remote_node")
    assert document(text)["networks"]["remote"] == "10.9.0.0/24"
    assert (
        "remote"
        not in document(farm.farm_user_data({**SETTINGS, "farm_remote_network": ""}, "render_node"))["networks"]
    )


def test_no_value_can_end_the_tag():
    text = farm.farm_user_data({**SETTINGS, "farm_name": "</farm><powershell>evil"}, "render_node")
    assert text.count("<") == 2
    assert document(text)["farm"] == "</farm><powershell>evil"


@pytest.mark.parametrize(
    ("settings", "arguments", "words"),
    [
        (SETTINGS, ("boss",), "role is 'boss': roles are manager"),
        ({**SETTINGS, "farm_name": ""}, ("manager",), "farm_name must be set"),
        ({}, ("manager",), "farm_name, farm_manager_address, farm_lan_network"),
        (SETTINGS, ("manager", "a </powershell> b"), "contains </powershell>"),
        (SETTINGS, ("manager", None, {"role": "builder"}), "may not replace role"),
        (SETTINGS, ("manager", "x" * 16384), "bytes, but EC2 takes 16384"),
        (SETTINGS, ("manager", "ä" * 8200), "bytes, but EC2 takes 16384"),
    ],
)
def test_user_data_that_would_not_work_is_refused(settings, arguments, words):
    with pytest.raises(AnsibleFilterError, match=words):
        farm.farm_user_data(settings, *arguments)


def test_the_limit_itself_is_allowed():
    room = 16384 - len(farm.farm_user_data(SETTINGS, "manager", "x").encode()) + 1
    assert len(farm.farm_user_data(SETTINGS, "manager", "x" * room).encode()) == 16384


# --------------------------------------------------------------------------------------------------------------- tables


def test_a_table():
    rows = [
        {"name": "manager", "seconds": 7, "ok": True, "groups": ["a", "b"]},
        {"name": "n", "seconds": 123, "ok": False, "groups": []},
        {"name": None},
    ]
    columns = ["name", {"key": "seconds", "title": "time (s)", "align": "right"}, "ok", "groups"]
    assert farm.text_table(rows, columns).splitlines() == [
        "name     time (s)  ok   groups",
        "-------  --------  ---  ------",
        "manager         7  yes  a, b",
        "n             123  no   -",
        "-               -  -    -",
    ]


def test_an_empty_table_has_its_headings():
    assert farm.text_table([], ["name", "state"]) == "name  state\n----  -----"


def test_wide_and_unprintable_characters_keep_the_lines_straight():
    rows = [{"a": "日本", "b": "x"}, {"a": "e\u0301", "b": "y\nz\x1b[31m"}]
    assert farm.text_table(rows, ["a", "b"]).splitlines()[2:] == ["日本  x", "e\u0301     y z [31m"]


@pytest.mark.parametrize("column", [{"title": "x"}, {"key": "x", "width": 3}, {"key": "x", "align": "middle"}])
def test_columns_that_cannot_be_understood(column):
    with pytest.raises(AnsibleFilterError, match="text_table"):
        farm.text_table([], [column])
