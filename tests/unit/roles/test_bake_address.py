"""A builder never gets the manager's address, nor one that a machine of the farm has."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError

from tests.templates.render import value


def address(**settings: Any) -> str:
    plan = {
        "farm_cloud_network": "10.0.0.0/27",
        "farm_zones": ["eu-central-1a", "eu-central-1b"],
        "farm_manager_address": "10.0.0.10",
        "farm_check_addresses": [],
    }
    return str(value("ami_bake", "__ami_bake_address", {**plan, **settings}))


def test_builder_is_in_the_first_zone_and_never_the_manager() -> None:
    taken = [f"10.0.0.{number}" for number in range(4, 15) if number not in (10, 12)]
    assert address(farm_check_addresses=taken) == "10.0.0.12"


def test_full_subnet_is_told() -> None:
    with pytest.raises(AnsibleError, match=r"10\.0\.0\.0/28 has no free address"):
        address(farm_check_addresses=[f"10.0.0.{number}" for number in range(4, 15)])
