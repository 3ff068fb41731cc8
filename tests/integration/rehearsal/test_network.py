"""What passes between studio, internet and VPC, and what does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]
REPOSITORY = Path(__file__).parents[3]
REFUSED = {"TimeoutError", "OSError"}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--"]
    done = subprocess.run(
        [*unshare, sys.executable, str(Path(__file__).with_name("network_scenario.py"))],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("who", "seen_as"),
    [
        ("controller_to_pc", "192.168.1.5"),
        ("controller_to_api", "198.18.1.2"),
        ("controller_to_manager_5986", "198.18.1.2"),
        ("manager_to_api", "198.18.20.1"),
        ("node_to_manager_445", "10.0.0.21"),
        ("other_subnet_to_manager_445", "10.0.0.140"),
        ("manager_to_node_3233", "10.0.0.10"),
        ("manager_to_other_subnet_3233", "10.0.0.10"),
        ("node_to_manager_with_check", "10.0.0.21"),
    ],
)
def test_passes_and_arrives_from(seen: dict[str, Any], who: str, seen_as: str) -> None:
    assert seen[who] == seen_as


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("controller_to_manager_445", "no security group allows it"),
        ("controller_to_private", "the internet carries no private addresses"),
        ("node_to_other_3233", "the rule names another group"),
        ("manager_to_node_5986", "no rule for the port"),
        ("manager_to_public_of_node", "a group does not match what comes by a public address"),
        ("node_to_api", "no public address"),
        ("other_to_api", "no route to an internet gateway"),
        ("pc_reaches_metadata", "metadata is for the machine itself"),
        ("public_after_unplug", "the address belongs to nobody any more"),
    ],
)
def test_does_not_pass_because(seen: dict[str, Any], who: str, why: str) -> None:
    assert seen[who] in REFUSED, why


def test_icmp_follows_its_rules(seen: dict[str, Any]) -> None:
    assert seen["node_pings_other"]
    assert seen["manager_pings_public_of_node"]


def test_a_gateway_forwards_only_without_source_destination_check(seen: dict[str, Any]) -> None:
    assert seen["node_to_studio_by_manager"]
    assert not seen["node_to_studio_with_check"]


def test_leaks_are_counted(seen: dict[str, Any]) -> None:
    assert seen["leaks"] == 1  # the one attempt at a private address through the home router


def test_nothing_stays_behind(seen: dict[str, Any]) -> None:
    assert not seen["namespace_after_unplug"]
    assert not seen["vpc_after_deletion"]
