# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventory plugin ec2_farm knows: which settings are meant, and what hosts a farm's instances are.

Pure functions. ``ec2_inventory_api`` asks EC2, ``ec2_inventory_cache`` keeps the answer.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

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
_GONE = frozenset({"shutting-down", "terminated"})

# Groups of groups, so that a graph shows the machines by role first, and every other order in a branch of its own.
PARENT_LIFECYCLES, PARENT_ZONES, PARENT_TYPES, PARENT_STATES = "lifecycles", "zones", "types", "states"

# Roles of which a farm has many: their names always end in the instance id, so that none changes with the others.
_NUMEROUS = frozenset({"render_node", "remote_node"})
# Roles that no tunnel reaches.
_OUTSIDE = frozenset({"builder"})

# What the groups begin with that are named like what is in them.
_ZONE_GROUP, _TYPE_GROUP, _STATE_GROUP = "zone", "type", "state"

# Names that mean something else to Ansible: the implicit localhost (ansible.constants.LOCALHOST), the base groups, and
# the groups that are made here.
_RESERVED_NAMES = frozenset(
    {"localhost", "127.0.0.1", "::1", "all", "ungrouped", "_meta"}
    | {PARENT_LIFECYCLES, PARENT_ZONES, PARENT_TYPES, PARENT_STATES}
    | {*ROLE_GROUPS.values(), *LIFECYCLE_GROUPS.values()}
)
# A file of host_vars is named like its host, in at most 255 bytes: 20 are kept free for an instance id behind the name,
# 5 for ".yaml".
_MOST_CHARACTERS, _MOST_BYTES = 100, 230

# What ends like the name of another instance's host, or begins like a group.
_MEANS_ELSE = re.compile(rf"\bi-[0-9a-f]+$|^(?:{_ZONE_GROUP}|{_TYPE_GROUP}|{_STATE_GROUP})_")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")
# Availability Zone eu-central-1a, Local Zone us-west-2-lax-1a, Wavelength Zone us-east-1-wl1-bos-wlz-1
# (Amazon EC2 User Guide, "Regions and Zones").
_ZONE = re.compile(r"([a-z]{2,}(?:-[a-z]+)+-[0-9]+)(?:[a-z]|-[a-z]+-[0-9]+[a-z]|-wl[0-9]+-[a-z]+-wlz-[0-9]+)")


class Instance(NamedTuple):
    """What is used of an instance, as EC2 writes it; empty where EC2 says nothing.

    ``region`` is the one that was asked: a zone's name does not always begin with it and a letter (Local Zones).
    """

    instance_id: str
    state: str
    tags: Mapping[str, str]
    region: str
    account: str
    zone: str
    lifecycle: str
    type: str
    image: str
    launch_time: str
    mac: str
    private_ip: str
    public_ip: str
    public_name: str
    subnet: str
    vpc: str


class Host(NamedTuple):
    """One host of the inventory, ready to be added. ``groups`` are in the order in which they are shown."""

    name: str
    groups: tuple[str, ...]
    variables: dict[str, Any]


@dataclass(frozen=True)
class Farm:
    """All hosts of a farm, its groups (also empty ones), groups of groups, and what the user should know."""

    hosts: tuple[Host, ...]
    groups: tuple[str, ...]
    parents: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...] = field(default=())


# ------------------------------------------------------------------------------------------------------ configuration


def option_problems(config: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each key of a configuration file that is no option (with the nearest one that is) or one too many.

    ``options`` are the options' definitions, of which ``aliases`` are used.
    """
    aliases = {alias: name for name, option in options.items() for alias in option.get("aliases", ())}
    known = sorted({*options, *aliases})
    keys = [str(key) for key in config]
    problems = [f"unknown option '{key}': {did_you_mean(key, known)}" for key in keys if key not in known]
    return problems + [
        f"'{alias}' is another name of '{name}': leave one out"
        for alias, name in aliases.items()
        if alias in keys and name in keys
    ]


def setting_problems(*, farm: str, regions: Sequence[Any], states: Sequence[Any], profiles: Sequence[Any]) -> list[str]:
    """A sentence for each setting that cannot be meant, with what to write instead."""
    problems = _region_problems(regions)
    problems += [
        f"'{state}' in 'states' is no state of an instance: {did_you_mean(state, STATES)}"
        for state in states
        if state not in STATES
    ]
    if not states:
        problems.append("'states' is empty: leave it out or name one, for example states: [running]")
    problems += [f"'{profile}' is named twice in 'profiles'" for profile, n in Counter(profiles).items() if n > 1]
    if not farm.strip():
        problems.append("'farm' is empty: name the farm, for example farm: studio")
    if "{{" in farm:
        problems.append(
            f"'farm' is the template {farm}, but variables do not exist yet when an inventory is read: "
            "write the name itself, or leave 'farm' out and set the environment variable RENDERFARM_FARM"
        )
    return problems


def _region_problems(regions: Sequence[Any]) -> list[str]:
    if not regions:
        return ["'regions' is empty: name at least one, for example regions: [eu-central-1]"]
    problems = []
    for region in regions:
        if isinstance(region, str) and _REGION.fullmatch(region):
            continue
        zone = _ZONE.fullmatch(region) if isinstance(region, str) else None
        if zone:
            problems.append(f"'{region}' in 'regions' is a zone: its region is {zone.group(1)}")
        else:
            problems.append(f"'{region}' in 'regions' is not the name of a region (example: eu-central-1)")
    return problems + [
        f"'{region}' is named twice in 'regions'" for region, n in Counter(map(str, regions)).items() if n > 1
    ]


def did_you_mean(word: Any, known: Sequence[str]) -> str:
    """A question with what is nearest to a word that is not known, or all that is known when nothing is near."""
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"use {', '.join(known)}"


# ---------------------------------------------------------------------------------------------- instances -> inventory


@cache
def safe_group(prefix: str, value: str) -> str:
    """A group name that Ansible accepts: ``zone_eu_central_1a``, ``type_c7i_4xlarge``."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', value)}"


def clean_name(text: str) -> str:
    """A host name out of a Name tag: letters, digits, ``_``, ``.`` and ``-``; anything else becomes one ``-``.

    So it can be neither a pattern (``web[1:9]``, ``!manager``) nor a path, nor more than one line. A longer
    name than files may have is cut between two characters.
    """
    name = re.sub(r"[^\w.-]+", "-", text).strip("-.")[:_MOST_CHARACTERS]
    return name.encode()[:_MOST_BYTES].decode(errors="ignore")


def host_names(instances: Iterable[Instance]) -> dict[str, str]:
    """Instance id -> host name: the Name tag, with the instance id where it would not be one machine's alone.

    No host gets another name because one came beside it: nodes have their ids in their
    names from the first on, and of other machines that share a name the one that was launched first has it alone. What
    ends in an instance id is the name of that instance only, so no two hosts can meet in one name.
    """
    owned = set(_RESERVED_NAMES)
    names = {}
    for one in sorted(instances, key=_seniority):
        name = clean_name(one.tags.get("Name", ""))
        if not name or name == one.instance_id:
            name = one.instance_id
        elif one.tags.get(TAG_ROLE) in _NUMEROUS or name in owned or _MEANS_ELSE.search(name):
            name = f"{name}-{one.instance_id}"
        else:
            owned.add(name)
        names[one.instance_id] = name
    return names


def _seniority(instance: Instance) -> tuple[bool, str, str]:
    """Sorts the machine that has been there longest first, and those that are gone last."""
    return instance.state in _GONE, instance.launch_time, instance.instance_id


def host_variables(instance: Instance, *, address: str) -> dict[str, Any]:
    """The variables of one host.

    ``address``: ``tunnel`` (the private address, except for roles that no tunnel reaches), ``public`` (where the
    instance has one, else private) or ``private``.
    """
    tags = instance.tags
    role = tags.get(TAG_ROLE, "")
    private, public = instance.private_ip, instance.public_ip
    wants_public = address == "public" or (address == "tunnel" and role in _OUTSIDE)
    reachable = public or private if wants_public else private
    variables: dict[str, Any] = {"ansible_host": reachable} if reachable else {}
    variables |= {
        "farm_account": instance.account,
        "farm_image": instance.image,
        "farm_instance_id": instance.instance_id,
        "farm_launch_time": instance.launch_time,
        "farm_lifecycle": instance.lifecycle or "on-demand",
        "farm_mac": instance.mac,
        "farm_private_ip": private,
        "farm_public_ip": public,
        "farm_public_name": instance.public_name,
        "farm_region": instance.region,
        "farm_role": role,
        "farm_state": instance.state,
        "farm_subnet": instance.subnet,
        "farm_tags": tags,
        "farm_type": instance.type,
        "farm_vpc": instance.vpc,
        "farm_zone": instance.zone,
    }
    return variables


def _groups(instance: Instance) -> dict[str, str]:
    """The groups of one instance, by what they are children of; empty where it is in none of that kind."""
    return {
        "": ROLE_GROUPS.get(instance.tags.get(TAG_ROLE, ""), ""),
        PARENT_LIFECYCLES: LIFECYCLE_GROUPS.get(instance.lifecycle, "on_demand"),
        PARENT_ZONES: safe_group(_ZONE_GROUP, instance.zone) if instance.zone else "",
        PARENT_TYPES: safe_group(_TYPE_GROUP, instance.type) if instance.type else "",
        PARENT_STATES: safe_group(_STATE_GROUP, instance.state),
    }


def build(instances: Iterable[Instance], *, address: str) -> Farm:
    """The whole inventory, ordered by host name. An instance that is listed twice is one host."""
    listed = {instance.instance_id: instance for instance in instances}
    grouped = {instance_id: _groups(instance) for instance_id, instance in listed.items()}
    parents = {
        PARENT_LIFECYCLES: tuple(LIFECYCLE_GROUPS.values()),
        **{
            parent: tuple(sorted({groups[parent] for groups in grouped.values()} - {""}))
            for parent in (PARENT_ZONES, PARENT_TYPES, PARENT_STATES)
        },
    }
    groups = (*ROLE_GROUPS.values(), *parents, *(child for children in parents.values() for child in children))
    names = host_names(listed.values())
    hosts = tuple(
        Host(
            names[instance_id],
            tuple(filter(None, grouped[instance_id].values())),
            host_variables(instance, address=address),
        )
        for instance_id, instance in sorted(listed.items(), key=lambda item: names[item[0]])
    )
    return Farm(hosts, groups, parents, _role_warnings(listed.values()))


def _role_warnings(instances: Iterable[Instance]) -> tuple[str, ...]:
    """A sentence for each role that is none, with the instances that have it."""
    unknown: dict[str, list[str]] = {}
    for instance in instances:
        role = instance.tags.get(TAG_ROLE, "")
        if role not in ROLE_GROUPS:
            unknown.setdefault(role, []).append(instance.instance_id)
    return tuple(
        f"unknown role {role!r} in the tag {TAG_ROLE} of {', '.join(ids[:3])}{' …' if len(ids) > 3 else ''}; "
        f"roles are {', '.join(ROLE_GROUPS)}"
        for role, ids in unknown.items()
    )
