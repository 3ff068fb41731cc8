# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventory plugin ec2_farm knows: from DescribeInstances to hosts, groups and variables.

Everything here works on plain dictionaries; only ``fetch`` talks, and to a client that the caller hands in.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

TAG_FARM = "renderfarm:farm"
TAG_ROLE = "renderfarm:role"

# role tag -> group
ROLE_GROUPS: Mapping[str, str] = {
    "manager": "manager",
    "render_node": "render_nodes",
    "remote_node": "remote_nodes",
    "builder": "builders",
}
LIFECYCLE_GROUPS: Mapping[str, str] = {"spot": "spot", "on-demand": "on_demand"}
STATES = ("pending", "running", "stopping", "stopped", "shutting-down", "terminated")

# The most that DescribeInstances gives in one answer (EC2 API Reference, DescribeInstances, MaxResults).
PAGE_SIZE = 1000

# Names that mean something else to Ansible: the implicit localhost (ansible.constants.LOCALHOST) and the base groups.
_RESERVED_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "all", "ungrouped", "_meta"})
_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")
_ZONE_SUFFIX = re.compile(r"([a-z]{2,}(?:-[a-z]+)+-[0-9]+)(-.+)?[a-z]")


class IncompleteAnswer(Exception):
    """EC2's answer lacks something that every answer has, so it cannot be trusted to name all hosts."""


class Paginator(Protocol):
    """The part of botocore's paginator that is used here."""

    def paginate(self, **parameters: Any) -> Iterable[Mapping[str, Any]]: ...


class Client(Protocol):
    """The part of botocore's EC2 client that is used here."""

    def get_paginator(self, operation_name: str) -> Paginator: ...


@dataclass(frozen=True)
class Host:
    """One host of the inventory, ready to be added. ``groups`` are in the order in which they are shown."""

    name: str
    groups: tuple[str, ...]
    variables: Mapping[str, Any]


@dataclass(frozen=True)
class Farm:
    """All hosts of a farm, the groups that exist even when empty, and what the user should know."""

    hosts: tuple[Host, ...]
    groups: tuple[str, ...] = (*ROLE_GROUPS.values(), *LIFECYCLE_GROUPS.values())
    warnings: tuple[str, ...] = field(default=())


# ------------------------------------------------------------------------------------------------------ configuration


def unknown_options(config: Iterable[str], known: Iterable[str]) -> list[str]:
    """A sentence for each key of a configuration file that is not an option, with the nearest one that is."""
    names = sorted(set(known))
    problems = []
    for key in config:
        if key in names:
            continue
        near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"options are {', '.join(names)}"
        problems.append(f"unknown option '{key}': {hint}")
    return problems


def region_problems(regions: Sequence[Any]) -> list[str]:
    """A sentence for each entry that cannot be a region: no text, a zone, a region named twice, an empty list."""
    if not regions:
        return ["'regions' is empty: name at least one, for example regions: [eu-central-1]"]
    problems = []
    for region in regions:
        if isinstance(region, str) and _REGION.fullmatch(region):
            continue
        zone = _ZONE_SUFFIX.fullmatch(region) if isinstance(region, str) else None
        if zone:
            problems.append(f"'{region}' in 'regions' is a zone: its region is {zone.group(1)}")
        else:
            problems.append(f"'{region}' in 'regions' is not the name of a region (example: eu-central-1)")
    problems += [f"'{region}' is named twice in 'regions'" for region, n in Counter(map(str, regions)).items() if n > 1]
    return problems


def request(farm: str, states: Sequence[str]) -> dict[str, Any]:
    """The parameters of DescribeInstances that let only this farm's instances in these states through."""
    return {
        "Filters": [
            # Filter values know the wildcards * and ?, a backslash takes their meaning away (EC2 User Guide,
            # "List and filter using the CLI and API").
            {"Name": f"tag:{TAG_FARM}", "Values": [re.sub(r"([\\*?])", r"\\\1", farm)]},
            {"Name": "instance-state-name", "Values": list(states)},
        ],
        "PaginationConfig": {"PageSize": PAGE_SIZE},
    }


# ------------------------------------------------------------------------------------------------------------ fetching


def fetch(clients: Mapping[str, Client], farm: str, states: Sequence[str]) -> list[dict[str, Any]]:
    """All instances of the farm over all regions, in the order of the regions; each gets a key ``Region``.

    The region is the client's: a zone's name does not always begin with it and a letter (Local Zones).
    The first region that fails ends it all with its exception, which carries the region as ``region``.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(clients)))) as pool:
        answers = [(region, pool.submit(_fetch_region, client, farm, states)) for region, client in clients.items()]
        instances = []
        for region, answer in answers:
            try:
                found = answer.result()
            except Exception as error:
                error.region = region  # type: ignore[attr-defined]
                raise
            instances += [{**instance, "Region": region} for instance in found]
        return instances


def _fetch_region(client: Client, farm: str, states: Sequence[str]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    pages = 0
    for page in client.get_paginator("describe_instances").paginate(**request(farm, states)):
        pages += 1
        if "Reservations" not in page:
            raise IncompleteAnswer("an answer to DescribeInstances holds no list of reservations")
        for reservation in page["Reservations"]:
            found += reservation.get("Instances", [])
    if not pages:
        raise IncompleteAnswer("DescribeInstances gave no answer")
    # Filtered by EC2 already; said again because a host of another farm in this inventory would be a disaster.
    return [instance for instance in found if tags_of(instance).get(TAG_FARM) == farm]


# ---------------------------------------------------------------------------------------------- instances -> inventory


def tags_of(instance: Mapping[str, Any]) -> dict[str, str]:
    """An instance's tags as a dictionary."""
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in instance.get("Tags", ())}


def safe_group(prefix: str, value: str) -> str:
    """A group name that Ansible accepts: ``zone_eu_central_1a``, ``type_c7i_4xlarge``."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', value)}"


def clean_name(text: str) -> str:
    """A host name out of a Name tag: letters, digits, ``_``, ``.`` and ``-``; anything else becomes one ``-``.

    So it can be neither a pattern (``web[1:9]``, ``!manager``) nor a path, nor more than one line.
    """
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")


def host_names(instances: Sequence[Mapping[str, Any]], taken: Iterable[str] = ()) -> dict[str, str]:
    """Instance id -> host name: the Name tag, with the instance id where two share it, else the instance id.

    ``taken`` are names that no host may have, such as those of groups.
    """
    reserved = {*_RESERVED_NAMES, *taken}
    wished = {instance["InstanceId"]: clean_name(tags_of(instance).get("Name", "")) for instance in instances}
    shared = {name for name, number in Counter(wished.values()).items() if number > 1}

    def choose(instance_id: str, name: str) -> str:
        if not name or name == instance_id:
            return instance_id
        if name in shared or name in reserved or _INSTANCE_ID.fullmatch(name):
            return f"{name}-{instance_id}"
        return name

    names = {instance_id: choose(instance_id, name) for instance_id, name in wished.items()}
    # Somebody may have named an instance like another one with its id: then the id alone tells them apart.
    again = {name for name, number in Counter(names.values()).items() if number > 1}
    return {instance_id: instance_id if name in again else name for instance_id, name in names.items()}


def host_variables(instance: Mapping[str, Any], *, address: str, public_roles: Sequence[str] = ()) -> dict[str, Any]:
    """The variables of one host.

    ``address``: ``private``, or ``public`` where the instance has a public one; ``public_roles``: always ``public``.
    """
    tags = tags_of(instance)
    private = str(instance.get("PrivateIpAddress") or "")
    public = str(instance.get("PublicIpAddress") or "")
    variables: dict[str, Any] = {
        "farm_instance_id": str(instance["InstanceId"]),
        "farm_role": tags.get(TAG_ROLE, ""),
        "farm_mac": _primary_mac(instance),
        "farm_private_ip": private,
        "farm_public_ip": public,
        "farm_public_name": str(instance.get("PublicDnsName") or ""),
        "farm_lifecycle": str(instance.get("InstanceLifecycle") or "on-demand"),
        "farm_region": str(instance["Region"]),
        "farm_zone": str(instance.get("Placement", {}).get("AvailabilityZone") or ""),
        "farm_type": str(instance.get("InstanceType") or ""),
        "farm_image": str(instance.get("ImageId") or ""),
        "farm_launch_time": _utc(instance.get("LaunchTime")),
        "farm_state": str(instance["State"]["Name"]),
        "farm_subnet": str(instance.get("SubnetId") or ""),
        "farm_vpc": str(instance.get("VpcId") or ""),
        "farm_tags": tags,
    }
    wants_public = address == "public" or variables["farm_role"] in public_roles
    reachable = public or private if wants_public else private
    if reachable:
        variables["ansible_host"] = reachable
    return variables


def host_groups(variables: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups that a host with these variables belongs to. An unknown role gives none."""
    groups = [ROLE_GROUPS[variables["farm_role"]]] if variables["farm_role"] in ROLE_GROUPS else []
    groups.append(LIFECYCLE_GROUPS.get(variables["farm_lifecycle"], "on_demand"))
    for prefix, value in (("zone", "farm_zone"), ("type", "farm_type"), ("state", "farm_state")):
        if variables[value]:
            groups.append(safe_group(prefix, variables[value]))
    return tuple(groups)


def build(instances: Sequence[Mapping[str, Any]], *, address: str, public_roles: Sequence[str] = ()) -> Farm:
    """The whole inventory out of what ``fetch`` found, ordered by host name.

    Raises IncompleteAnswer when an instance lacks what every instance has.
    """
    for instance in instances:
        if not instance.get("InstanceId") or not instance.get("State", {}).get("Name"):
            raise IncompleteAnswer("an instance in the answer to DescribeInstances has no id or no state")
    described = {
        instance["InstanceId"]: host_variables(instance, address=address, public_roles=public_roles)
        for instance in instances
    }
    grouped = {instance_id: host_groups(variables) for instance_id, variables in described.items()}
    groups = {*Farm(()).groups, *(group for names in grouped.values() for group in names)}
    names = host_names(instances, taken=groups)
    hosts = sorted(
        (Host(names[instance_id], grouped[instance_id], variables) for instance_id, variables in described.items()),
        key=lambda host: host.name,
    )
    warnings = [
        f"instance {host.variables['farm_instance_id']} has the unknown role {host.variables['farm_role']!r} in its "
        f"tag {TAG_ROLE}; roles are {', '.join(ROLE_GROUPS)}"
        for host in hosts
        if host.variables["farm_role"] not in ROLE_GROUPS
    ]
    return Farm(tuple(hosts), warnings=tuple(warnings))


def _primary_mac(instance: Mapping[str, Any]) -> str:
    """The MAC of the network interface with device index 0, as EC2 writes it (``0a:1b:2c:3d:4e:5f``)."""
    for interface in instance.get("NetworkInterfaces", ()):
        if interface.get("Attachment", {}).get("DeviceIndex", 0) == 0:
            return str(interface.get("MacAddress") or "")
    return ""


def _utc(moment: Any) -> str:
    """ISO 8601 in UTC without fractions: ``2026-10-14T08:00:00Z``."""
    if isinstance(moment, datetime):
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(moment or "")
