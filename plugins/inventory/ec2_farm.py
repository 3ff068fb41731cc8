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
  - Lists the EC2 instances whose tag C(renderfarm:farm) is the name of the farm, from one or more regions.
  - The configuration file ends in C(.ec2.yml), C(.ec2.yaml) or C(ec2_farm.yml).
  - Groups that are always there are C(manager), C(render_nodes), C(remote_nodes) and C(builders), by the tag
    C(renderfarm:role), and C(spot) and C(on_demand), by the way in which the instance is paid.
    C(zone_<zone>), C(type_<instance type>) and C(state_<state>) are there when they have a host; characters that
    Ansible does not allow in the name of a group become C(_), as in C(zone_eu_central_1a) and C(type_c7i_4xlarge).
  - A host is named like its tag C(Name), in which anything but letters, digits, C(_), C(.) and C(-) becomes C(-).
    Where two instances share a name, each gets its instance id appended; without a name the id is the name.
  - "Host variables are C(ansible_host), C(farm_instance_id), C(farm_role), C(farm_mac), C(farm_private_ip),
    C(farm_public_ip) and C(farm_public_name) (empty when there is none), C(farm_lifecycle) (V(spot) or
    V(on-demand)), C(farm_region), C(farm_zone), C(farm_type), C(farm_image), C(farm_launch_time) (ISO 8601, UTC),
    C(farm_state), C(farm_subnet), C(farm_vpc) and C(farm_tags) (a dictionary of all tags)."
  - The group C(all) gets C(farm_inventory_name) and C(farm_inventory_regions), so that a playbook can prove that this
    file and the settings in C(group_vars) mean the same farm.
  - Whatever goes wrong (no credentials, no permission, no network, half an answer, one region of several) is an error.
    There is never an inventory that is empty or incomplete because something failed. That needs
    C(any_unparsed_is_failed = true) in the section C([inventory]) of C(ansible.cfg), else ansible-core
    turns the error into a warning.
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
      - Names of the regions to look into, not of zones. All are asked at the same time.
      - The list must contain C(farm_region) of C(group_vars).
    type: list
    elements: str
    required: true
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
      - V(private) is right when the tunnel into the cloud network is up.
      - V(public) is right before that. Instances without a public address keep their private one.
      - C(farm_private_ip) and C(farm_public_ip) are there in either case.
    type: str
    choices: [private, public]
    default: private
  public_roles:
    description:
      - Machines of these roles have their public address in C(ansible_host), whatever O(address) says.
      - Right for V(builder), which exists without a tunnel.
      - Of V(manager), V(render_node), V(remote_node) and V(builder).
    type: list
    elements: str
    default: []
  profile:
    description:
      - Name of an AWS profile. Without it botocore looks for credentials in its usual places.
    type: str
    env:
      - name: AWS_PROFILE
notes:
  - "The IAM permission C(ec2:DescribeInstances) on resource C(*) is all that it needs; see the examples."
  - C(AWS_ENDPOINT_URL) and C(AWS_ENDPOINT_URL_EC2) are honoured, as are the proxy settings and C(AWS_CA_BUNDLE).
  - Tags are never templates. What looks like one stays the text that it is.
  - Requests that EC2 throttles are repeated up to 8 times with growing pauses.
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
# A farm over two regions, with its own AWS profile. Stopped machines are shown, too.
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions:
  - eu-central-1
  - eu-west-1
states: [pending, running, stopping, stopped]
profile: studio-farm

---
# Before the tunnel exists: reach the manager and the builder at their public addresses.
plugin: renderfarm.cloud.ec2_farm
farm: studio
regions: [eu-central-1]
address: public

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
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

from ..module_utils.aws_errors import explain
from ..plugin_utils import ec2_inventory

try:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
except ImportError as missing:
    BOTOCORE_MISSING: ImportError | None = missing
else:
    BOTOCORE_MISSING = None

FILE_ENDINGS = (".ec2.yml", ".ec2.yaml", "ec2_farm.yml", "ec2_farm.yaml")


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]  # ansible-core has no types
    """Reads the configuration, asks EC2, adds what ``plugin_utils.ec2_inventory`` makes of the answer."""

    NAME = "renderfarm.cloud.ec2_farm"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(FILE_ENDINGS)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        if BOTOCORE_MISSING is not None:
            raise AnsibleError(
                f"{self.NAME} needs botocore in the Python that runs Ansible: {BOTOCORE_MISSING}. "
                "Remedy: pip install boto3."
            )
        self._read_settings(path)
        farm, states = str(self.get_option("farm")), [str(state) for state in self.get_option("states")]
        doing = "make clients for EC2"
        try:
            clients = make_clients([str(region) for region in self.get_option("regions")], self.get_option("profile"))
            doing = f"list the instances of farm '{farm}'"
            instances = ec2_inventory.fetch(clients, farm, states)
            self._add(
                ec2_inventory.build(
                    instances, address=self.get_option("address"), public_roles=self.get_option("public_roles")
                )
            )
        except (BotoCoreError, ClientError, ResponseParserError, ec2_inventory.IncompleteAnswer) as error:
            where = f" in region {error.region}" if hasattr(error, "region") else ""
            raise AnsibleError(explain(error, doing=doing + where)) from error

    def _read_settings(self, path: str) -> None:
        """Load the options and refuse what cannot be meant. All problems are told at once."""
        config = self.loader.load_from_file(path, cache="none")
        if isinstance(config, Mapping):
            problems = ec2_inventory.unknown_options(config, self.option_definitions)
            if problems:
                raise AnsibleParserError(f"{path}: {'; '.join(problems)}.")
        self._read_config_data(path)
        problems = ec2_inventory.region_problems(self.get_option("regions"))
        problems += [
            f"'{state}' in 'states' is no state of an instance: use {', '.join(ec2_inventory.STATES)}"
            for state in self.get_option("states")
            if state not in ec2_inventory.STATES
        ]
        problems += [
            f"'{role}' in 'public_roles' is no role: use {', '.join(ec2_inventory.ROLE_GROUPS)}"
            for role in self.get_option("public_roles")
            if role not in ec2_inventory.ROLE_GROUPS
        ]
        if not self.get_option("states"):
            problems.append("'states' is empty: leave it out or name one, for example states: [running]")
        farm = str(self.get_option("farm"))
        if not farm.strip():
            problems.append("'farm' is empty: name the farm, for example farm: studio")
        if "{{" in farm:
            problems.append(
                f"'farm' is the template {farm}, but variables do not exist yet when an inventory is read: "
                "write the name itself, or leave 'farm' out and set the environment variable RENDERFARM_FARM"
            )
        if problems:
            raise AnsibleParserError(f"{path}: {'; '.join(problems)}.")

    def _add(self, farm: ec2_inventory.Farm) -> None:
        for warning in farm.warnings:
            self.display.warning(warning)
        self.inventory.set_variable("all", "farm_inventory_name", str(self.get_option("farm")))
        self.inventory.set_variable("all", "farm_inventory_regions", [str(r) for r in self.get_option("regions")])
        for group in farm.groups:
            self.inventory.add_group(group)
        for host in farm.hosts:
            self.inventory.add_host(host.name)
            for group in host.groups:
                self.inventory.add_group(group)
                self.inventory.add_child(group, host.name)
            for name, value in host.variables.items():
                self.inventory.set_variable(host.name, name, value)


def make_clients(regions: list[str], profile: str | None) -> dict[str, ec2_inventory.Client]:
    """One EC2 client per region out of one session, so that credentials and the model of EC2 are loaded once.

    Sessions are not safe to share between threads, clients are: all clients are made here, in one thread.
    """
    session = botocore.session.Session(profile=profile or None)
    config = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
    return {region: session.create_client("ec2", region_name=region, config=config) for region in regions}
