# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

#: Roles whose machines the manager must list.
_RENDERING = ("render_node", "remote_node")


def farm_rows(hosts: Iterable[Mapping[str, Any]], servers: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """One row for each machine: what the inventory says of it, and the state in which the manager lists it."""
    states = {server["mac"]: server["state"] for server in servers}
    try:
        return [
            {
                # names that several machines share end with the instance, which has a column of its own
                "name": str(host["inventory_hostname"]).removesuffix(f"-{host['farm_instance_id']}"),
                "instance": host["farm_instance_id"],
                "role": host["farm_role"],
                "type": host["farm_type"],
                "lifecycle": host["farm_lifecycle"],
                "zone": host["farm_zone"],
                "state": host["farm_state"],
                "address": host["farm_private_ip"],
                "mac": host["farm_mac"],
                "backburner": states.get(host["farm_mac"], "not listed") if host["farm_role"] in _RENDERING else "",
            }
            for host in hosts
        ]
    except KeyError as error:
        raise AnsibleFilterError(
            f"farm_rows: a host has no variable {error}; is it from renderfarm.cloud.ec2_farm?"
        ) from error


class FilterModule:
    """Filters for the report about the farm."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"farm_rows": farm_rows}
