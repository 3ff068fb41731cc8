# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils import networks
from ..plugin_utils import image_contents as contents
from ..plugin_utils import installers, tables, user_data


def zone_subnets(cloud_network: str, zones: Sequence[str]) -> list[dict[str, str]]:
    """The cloud network divided for the zones."""
    try:
        divided = networks.zone_subnets(networks.parse_network(cloud_network), zones)
    except networks.NetworkError as error:
        raise AnsibleFilterError(f"zone_subnets: the cloud network {error}.") from error
    return [{"zone": str(zone), "network": str(network)} for zone, network in divided]


def free_addresses(subnet: str, taken: Sequence[str]) -> list[str]:
    """The addresses of a subnet that a machine may still get."""
    try:
        return [str(address) for address in networks.free_addresses(networks.parse_network(subnet), taken)]
    except ValueError as error:
        raise AnsibleFilterError(f"free_addresses: {error}.") from error


def network_problems(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the farm's networks."""
    if not isinstance(settings, Mapping):
        raise AnsibleFilterError(f"network_problems: needs a dictionary of settings, not {type(settings).__name__}.")
    return networks.network_problems(settings)


def text_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str | Mapping[str, Any]]) -> str:
    """A table of plain text."""
    try:
        return tables.text_table(rows, columns)
    except ValueError as error:
        raise AnsibleFilterError(f"text_table: {error}.") from error


def farm_user_data(
    settings: Mapping[str, Any], role: str, bootstrap: str | None = None, extra: Mapping[str, Any] | None = None
) -> str:
    """EC2 user data for a machine of the farm."""
    try:
        return user_data.farm_user_data(settings, role, bootstrap, extra)
    except user_data.UserDataError as error:
        raise AnsibleFilterError(f"farm_user_data: {error}.") from error


def image_contents(installers: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an image is made of."""
    return contents.image_contents(installers, settings)


def installer_url(source: Mapping[str, Any], bucket: str, region: str, farm: str) -> str:
    """Where a machine downloads an installer from."""
    try:
        return installers.download_url(source, bucket, region, farm)
    except Exception as error:  # botocore's have no common class with ours
        raise AnsibleFilterError(f"installer_url: {error}.") from error


class FilterModule:
    """Filters about the farm as a whole."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "farm_user_data": farm_user_data,
            "free_addresses": free_addresses,
            "image_contents": image_contents,
            "installer_url": installer_url,
            "network_problems": network_problems,
            "text_table": text_table,
            "zone_subnets": zone_subnets,
        }
