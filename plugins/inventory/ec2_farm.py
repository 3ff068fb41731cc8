# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: ec2_farm
short_description: The machines of one render farm on EC2
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Lists the EC2 instances whose tag C(renderfarm:farm) is the name of the farm, from one or more regions of one or
    more accounts, all asked at the same time.
  - The configuration file ends in C(.ec2.yml), C(.ec2.yaml) or C(ec2_farm.yml).
  - A host is in one group by its role (tag C(renderfarm:role)), which are C(manager), C(render_nodes), C(remote_nodes)
    and C(builders), and in one group by each of the following. Groups without a host are there, too, where their names
    are known beforehand.
  - C(lifecycles) has the groups C(spot) and C(on_demand), by the way in which the instance is paid.
  - C(zones) has the groups C(zone_<zone>), C(types) has C(type_<instance type>), C(states) has C(state_<state>).
    Characters that Ansible does not allow in the name of a group become C(_), as in C(zone_eu_central_1a) and
    C(type_c7i_4xlarge).
  - A host is named like its tag C(Name), in which anything but letters, digits, C(_), C(.) and C(-) becomes C(-), and
    of which 100 characters are used (fewer where they take more than 230 bytes). Render nodes and remote nodes, which
    share a name, have their instance id appended, as in C(studio-render-node-i-0123456789abcdef0), however many there
    are. Of other machines that share a name, such as two managers by mistake, the one that was launched first has it
    alone and the others have their ids appended, so that no host is renamed because another one came. Without a name
    the id is the name.
  - "Host variables are C(ansible_host), C(farm_instance_id), C(farm_role), C(farm_mac), C(farm_private_ip),
    C(farm_public_ip) and C(farm_public_name) (empty when there is none), C(farm_lifecycle) (V(spot) or V(on-demand)),
    C(farm_account), C(farm_region), C(farm_zone), C(farm_type), C(farm_image), C(farm_launch_time) (ISO 8601, UTC),
    C(farm_state), C(farm_subnet), C(farm_vpc) and C(farm_tags) (a dictionary of all tags). How the machines are
    connected to (WinRM) is said in C(group_vars)."
  - The group C(all) gets C(farm_inventory_name) and C(farm_inventory_regions), so that a playbook can prove that this
    file and the settings in C(group_vars) mean the same farm.
  - Whatever goes wrong (no credentials, no permission, no network, half an answer, one region of several) is an error.
    There is never an inventory that is empty or incomplete because something failed. That needs
    C(any_unparsed_is_failed = true) in the section C([inventory]) of C(ansible.cfg), else ansible-core
    turns the error into a warning.
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: Says that this file is meant for this plugin.
    type: str
    required: true
    choices: [renderfarm.cloud.ec2_farm]
  farm:
    description:
      - Name of the farm, the value of the tag C(renderfarm:farm).
      - A plain text. Variables of C(group_vars) do not exist yet when an inventory is read, so a template is refused.
        It must agree with C(farm_name) in C(group_vars).
    type: str
    required: true
    env:
      - name: RENDERFARM_FARM
  regions:
    description:
      - Names of the regions to look into, not of zones.
      - The list must contain C(farm_region) of C(group_vars).
      - Machines in Local Zones and Wavelength Zones are found through the region that the zone belongs to.
    type: list
    elements: str
    required: true
  profiles:
    description:
      - Names of AWS profiles, one for each account that the farm has machines in. Each is asked about all O(regions).
      - Without it botocore looks for credentials in its usual places (C(AWS_PROFILE) among them).
    type: list
    elements: str
    default: []
    aliases: [profile]
  states:
    description:
      - Only instances in one of these states are hosts.
      - Of V(pending), V(running), V(stopping), V(stopped), V(shutting-down) and V(terminated).
    type: list
    elements: str
    default: [pending, running]
  address:
    description:
      - Which address becomes C(ansible_host).
      - V(tunnel) is right for who is at the studio's end of the tunnel, or in the cloud network. It is the private
        address; a builder, which lives without a tunnel, has its public one.
      - V(public) is right before the tunnel exists. Instances without a public address keep their private one.
      - V(private) is right where the cloud network is reached in another way, builders included.
      - C(farm_private_ip) and C(farm_public_ip) are there in either case.
    type: str
    choices: [tunnel, public, private]
    default: tunnel
  cache_seconds:
    description:
      - For how long what EC2 said is used again without asking EC2. It is kept in a file, and its age is told whenever
        the file is used. V(0) asks each time.
      - C(--flush-cache) and a refresh by the task C(meta) ask EC2 in any case.
    type: int
    default: 0
  cache_stale_seconds:
    description:
      - When EC2 cannot be read, a file of up to this age is used all the same, with a warning that tells its age and
        what is wrong with EC2. V(0) never does that; C(--flush-cache) and a refresh by the task C(meta) do not either.
      - What it lists may be gone meanwhile, and what was launched since is missing.
    type: int
    default: 0
  cache_folder:
    description:
      - Where the file is kept. Only its owner may be able to enter it (mode 0700), as which it is made.
      - When it cannot be written to, that is a warning, because EC2 has answered.
    type: path
    default: ~/.cache/renderfarm-inventory
  compose:
    description:
      - Variables to make, each by an expression over those of the host, C(inventory_hostname) and C(group_names) among
        them. A tag in it is a text, never a template.
      - Groups and variables of the description above need none, and cost next to nothing; each expression here is
        evaluated for each host.
  groups:
    description: Groups to make, each with an expression that says whether a host is in it.
  keyed_groups:
    description: Groups to make out of the values of an expression.
  strict:
    description: Whether an expression of O(compose), O(groups) or O(keyed_groups) that fails is an error.
    default: true
notes:
  - "The IAM permission C(ec2:DescribeInstances) on resource C(*) is all that it needs; see the examples."
  - C(AWS_ENDPOINT_URL) and C(AWS_ENDPOINT_URL_EC2) are honoured, as are the proxy settings and C(AWS_CA_BUNDLE).
  - Tags are never templates. What looks like one stays the text that it is.
  - Requests that EC2 throttles are repeated up to 8 times with growing pauses.
  - A server that takes a request and says nothing is waited for 15 seconds and asked again as often as that. With the
    pauses it is an error after less than four minutes.
requirements:
  - botocore
seealso:
  - module: renderfarm.cloud.ec2_fleet
"""

EXAMPLES = r"""
# inventory/farm.ec2.yml: all that is needed. Try it with
#   ansible-inventory -i inventory/farm.ec2.yml --graph
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions: [eu-central-1]

---
# A farm over two regions of two accounts. Stopped machines are shown, too.
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions:
  - eu-central-1
  - eu-west-1
profiles:
  - studio-farm
  - studio-overflow
states: [pending, running, stopping, stopped]

---
# Before the tunnel exists: reach the manager and the builder at their public addresses.
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions: [eu-central-1]
address: public

---
# What EC2 says is used for five minutes, and for a day while EC2 cannot be reached.
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions: [eu-central-1]
cache_seconds: 300
cache_stale_seconds: 86400

---
# Groups and variables of one's own, out of the tags.
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions: [eu-central-1]
compose:
  project: farm_tags['project'] | default('none')
groups:
  large: farm_type is search('(8|16)xlarge')
keyed_groups:
  - key: project
    prefix: project

# The least IAM policy (JSON):
#   {
#     "Version": "2012-10-17",
#     "Statement": [
#       {
#         "Sid": "ReadTheFarm",
#         "Effect": "Allow",
#         "Action": "ec2:DescribeInstances",
#         "Resource": "*"
#       }
#     ]
#   }
# DescribeInstances cannot be limited to instances with a tag. To limit it to the farm's regions, add
#   "Condition": {"StringEquals": {"aws:RequestedRegion": ["eu-central-1"]}}
"""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache as once_for_each
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

from ..plugin_utils import ec2_inventory, ec2_inventory_api, ec2_inventory_cache

FILE_ENDINGS = (".ec2.yml", ".ec2.yaml", "ec2_farm.yml", "ec2_farm.yaml")


class InventoryModule(BaseInventoryPlugin, Constructable):  # type: ignore[misc]  # ansible-core has no types
    """Reads the configuration, asks EC2 or the cache, adds what ``plugin_utils.ec2_inventory`` makes of the answer."""

    NAME = "renderfarm.cloud.ec2_farm"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(FILE_ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_settings(path)
        try:
            with _without_garbage_collection():
                farm = ec2_inventory.build(self._instances(cache), address=self.get_option("address"))
                self._add(farm)
        except (ec2_inventory_api.Unreadable, ec2_inventory_cache.UnsafeFolder) as error:
            raise AnsibleError(str(error)) from None  # ansible-core would tell the words of the cause once more
        self._add_constructed(farm)

    def _read_settings(self, path: str) -> None:
        """Load the options and refuse what cannot be meant. All problems are told at once."""
        config = self.loader.load_from_file(path, cache="none")
        if isinstance(config, Mapping):
            problems = ec2_inventory.option_problems(config, self.option_definitions)
            if problems:
                raise AnsibleParserError(f"{path}: {'; '.join(problems)}.")
        self._read_config_data(path)
        problems = ec2_inventory.setting_problems(
            **{name: self.get_option(name) for name in ("farm", "regions", "states", "profiles")}
        )
        if problems:
            raise AnsibleParserError(f"{path}: {'; '.join(problems)}.")

    def _instances(self, cache_allowed: bool) -> list[ec2_inventory.Instance]:
        """What EC2 says, or what it said if that is allowed and young enough."""
        # str(): the marks that ansible-core gives to a file's texts (trust, origin) stay with the file.
        question: dict[str, Any] = {"farm": str(self.get_option("farm"))}
        for name in ("regions", "profiles", "states"):
            question[name] = [str(word) for word in self.get_option(name)]
        young, stale = self.get_option("cache_seconds"), self.get_option("cache_stale_seconds")
        file = kept = None
        if young or stale:
            file = ec2_inventory_cache.file_for(self.get_option("cache_folder"), question, os.environ)
            kept = ec2_inventory_cache.read(file) if cache_allowed else None
        if kept and kept.age <= young:
            told = f"Farm '{question['farm']}' as EC2 described it {kept.age:.0f} s ago; --flush-cache asks EC2 again."
            self.display.display(told, stderr=True)
            return kept.instances
        try:
            clients = ec2_inventory_api.connect(question["profiles"], question["regions"])
            instances = ec2_inventory_api.fetch(clients, question["farm"], question["states"])
        except ec2_inventory_api.Unreadable as error:
            if not kept or kept.age > stale:
                raise
            self.display.warning(f"{error} Until then: the farm as EC2 described it {kept.age:.0f} s ago.")
            return kept.instances
        if file:
            try:
                ec2_inventory_cache.write(file, instances)
            except OSError as error:  # EC2 has answered in full, so this costs time and no hosts
                self.display.warning(
                    f"What EC2 said cannot be kept in {file.parent} ({error}), so it is asked each time. Remedy: "
                    "make room there, or name a folder in cache_folder that you can write to."
                )
        return instances

    def _add(self, farm: ec2_inventory.Farm) -> None:
        for warning in farm.warnings:
            self.display.warning(warning)
        inventory = self.inventory
        inventory.set_variable("all", "farm_inventory_name", self.get_option("farm"))
        inventory.set_variable("all", "farm_inventory_regions", self.get_option("regions"))
        for group in farm.groups:
            inventory.add_group(group)
        for host in farm.hosts:
            inventory.add_host(host.name)
            for group in host.groups:
                inventory.add_child(group, host.name)
            # Not by set_variable(), which copies each value to note where it is from, for half of all the time.
            inventory.hosts[host.name].vars.update(host.variables)
        # Last: the more ancestors a group has, the longer it takes to add a host to it.
        for parent, children in farm.parents.items():
            for child in children:
                inventory.add_child(parent, child)

    def _add_constructed(self, farm: ec2_inventory.Farm) -> None:
        """What the user's own expressions make, if there are any."""
        compose, groups, keyed_groups, strict = map(self.get_option, ("compose", "groups", "keyed_groups", "strict"))
        if not (compose or groups or keyed_groups):
            return
        _compile_once(self.templar)
        for name in (host.name for host in farm.hosts):
            # Asked again for each kind: they are the host's variables and groups as they are by then, and its name.
            variables = self.inventory.hosts[name].get_vars
            self._set_composite_vars(compose, variables(), name, strict=strict)
            self._add_host_to_composed_groups(groups, variables(), name, strict=strict, fetch_hostvars=False)
            self._add_host_to_keyed_groups(keyed_groups, variables(), name, strict=strict, fetch_hostvars=False)


def _compile_once(templar: Any) -> None:
    """Let a templar compile each expression once and not for each host again.

    ansible-core has no option for it, so this reaches into the templar. Without what it reaches for, expressions are
    compiled for each host, with the same outcome.
    """
    engine: Any = getattr(templar, "_engine", None)
    if hasattr(engine, "_compile_expression"):
        engine._compile_expression = once_for_each(engine._compile_expression)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Thousands of hosts that stay are made here, and no garbage that only the collector could find."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
