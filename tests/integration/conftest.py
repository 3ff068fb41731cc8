"""Tells the drills, which take minutes, from the tests that every change has to pass."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
DRILLS = [
    HERE / name
    for name in (
        "vpn",
        "test_bake_drills.py",
        "test_fleet_drills.py",
        "test_fleet_whole.py",
        "test_lan_pc.py",
        "test_link.py",
        "test_link_whole.py",
        "test_linux_workstation.py",
        "test_node_drills.py",
        "test_pki.py",
        "test_vpn_revoke.py",
        "test_watch_drills.py",
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(drill) for drill in DRILLS):
            item.add_marker(pytest.mark.drill)
