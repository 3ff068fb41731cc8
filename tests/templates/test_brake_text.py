"""What is said, and what becomes of the manager, when nodes did not register."""

from __future__ import annotations

from typing import Any

from tests.templates.render import value


def brake(variable: str, registered: int, *, new: bool = True, enough: int = 2, prices: Any = None) -> Any:
    """A variable of the brake after a run that launched two nodes."""
    nodes = [
        {"instance_id": f"i-{number}", "state": "idle" if number < registered else "failed"} for number in range(2)
    ]
    local = {"ec2_machine_new": new, "farm_check_prices": prices or {}, "ec2_fleet_launched": ["i-0", "i-1"]}
    settings = {
        "ec2_fleet_waited": {"registered": registered, "nodes": nodes, "msg": "The manager lists them."},
        "ec2_fleet_enough": enough,
        "farm_manager_type": "m7i.xlarge",
        "hostvars": {"localhost": local},
        "__ec2_fleet_verdict": {"failed": ["i-1"], "msg": "1 of 2 did not register", "stop": registered == 0},
    }
    return value("ec2_fleet", variable, settings)


def text(registered: int, **more: Any) -> str:
    return " ".join(str(brake("__ec2_fleet_brake_text", registered, **more)).split())


def test_what_still_costs_is_named_with_its_price_and_the_command_that_ends_it() -> None:
    said = text(1, prices={"m7i.xlarge": 0.3856})
    assert "1 nodes are registered; they stay and cost money, as does the manager with its disk and its public" in said
    assert "(about 0.39 USD per hour for its machine). End all of it: ansible-playbook farm-down.yml." in said
    assert "an unknown number of USD per hour" in text(1)


def test_new_manager_without_a_node_is_stopped_and_what_stays_is_named() -> None:
    assert brake("__ec2_fleet_manager_idle", 0)
    said = text(0)
    assert "the manager, which this run started, was stopped" in said
    assert "Its disk (about 0.08 USD per GiB and month) and its public address (about 3.65 USD per month) stay." in said
    assert "nodes are registered" not in said


def test_manager_with_a_node_or_from_before_goes_on() -> None:
    assert not brake("__ec2_fleet_manager_idle", 1)
    assert not brake("__ec2_fleet_manager_idle", 0, new=False)
    assert "0 nodes are registered; they stay and cost money, as does the manager" in text(0, new=False)
