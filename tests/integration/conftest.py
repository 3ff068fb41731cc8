"""Tells the drills, which take minutes, from the tests that every change has to pass; ends in order when told to."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from rehearsal.session import end_orderly

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


def pytest_configure() -> None:
    """A signal ends the run as Ctrl-C does: the fixtures end their rehearsals."""
    end_orderly(_stop)


def _stop(number: int) -> NoReturn:
    pytest.exit(f"ended by signal {number}", returncode=128 + number)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(drill) for drill in DRILLS):
            item.add_marker(pytest.mark.drill)
