"""The settings of a node's watch, on their way into its user data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils.user_data import (
    UserDataError,
    farm_document,
    watch_limits,
)

from farmnode import farm

SETTINGS = {
    "farm_idle_minutes": 30,
    "farm_max_hours": "12",
    "farm_hung_minutes": 0,
    "farm_manager_gone_minutes": 15,
    "farm_watch": {},
}
FARM = {
    "farm_name": "studio", "farm_manager_address": "10.0.0.10", "farm_lan_network": "192.168.1.0/24",
    "farm_cloud_network": "10.0.0.0/24", "farm_tunnel_network": "10.8.0.0/24",
}  # fmt: skip


def test_settings_become_seconds() -> None:
    assert watch_limits(SETTINGS) == {"idle": 1800.0, "deadline": 43200.0, "hung": 0.0, "manager": 900.0}
    assert watch_limits({}) == {}


def test_seconds_go_before_settings() -> None:
    assert watch_limits(SETTINGS | {"farm_watch": {"idle": 8, "sample": 1}})["idle"] == 8.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("farm_idle_minutes", 0.5), ("farm_idle_minutes", 1441), ("farm_idle_minutes", -1), ("farm_idle_minutes", "x"),
        ("farm_max_hours", 721), ("farm_hung_minutes", 1441), ("farm_manager_gone_minutes", 0),
        ("farm_watch", {"idle": "soon"}), ("farm_watch", 7),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(UserDataError, match=name):
        watch_limits(SETTINGS | {name: value})


def test_the_node_understands_it() -> None:

    document = farm_document(FARM | SETTINGS | {"farm_watch": {"notice": 2}}, "render_node")
    told = farm.parse_user_data(f"<farm>{json.dumps(document)}</farm>".encode())
    assert told is not None
    assert (told.watch.idle, told.watch.deadline, told.watch.hung, told.watch.notice) == (1800, 43200, 0, 2)
    assert "watch" not in farm_document(FARM, "render_node")
