#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_preflight
short_description: Find out whether a render farm can come up, and what it will cost, before anything is launched
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Asks AWS at the same time about credentials, rights (by dry runs), vCPU quotas, offered types, the farm's network,
    its image and prices, reads the controller's routes, and returns all findings at once.
  - Changes nothing, and does not fail because of a finding; RV(fatal) tells.
options:
  purpose:
    description:
      - V(bake) checks what an image needs, V(up) what the farm needs, V(check) both.
    type: str
    choices: [bake, up, check]
    default: check
  zones:
    description: Availability zones, the manager's first.
    type: list
    elements: str
    required: true
  nodes:
    description: How many render nodes there shall be.
    type: int
    required: true
  remote_nodes:
    description: How many remote nodes there shall be beside them.
    type: int
    default: 0
  node_types:
    description: Instance types of the nodes.
    type: list
    elements: str
    required: true
  manager_type:
    description: Instance type of the manager.
    type: str
    required: true
  builder_type:
    description: Instance type of the builder.
    type: str
    required: true
  spot:
    description: The nodes are spot instances.
    type: bool
    default: true
  spot_percent:
    description: How much of the nodes may be spot, 0 to 100. The rest is on-demand.
    type: int
    default: 100
  max_price:
    description: The most to pay for a spot node and hour in USD. V(0) means the on-demand price.
    type: float
    default: 0
  on_demand_fallback:
    description: What spot cannot give is bought on-demand.
    type: bool
    default: true
  disk_gb:
    description: Size of a machine's disk in GiB.
    type: int
    required: true
  license_nodes:
    description: Nodes for which there are licences. V(0) does not count them.
    type: int
    default: 0
  base_image:
    description: SSM parameter that names the stock image.
    type: str
    required: true
  networks:
    description:
      - C(farm_lan_network), C(farm_cloud_network), C(farm_tunnel_network), C(farm_remote_network) and
        C(farm_manager_address).
    type: dict
    required: true
  workstation:
    description: Address of the studio's end of the tunnel. Routes of the controller over it are the farm's own.
    type: str
    default: ""
notes:
  - Rights are known for what can be tried. An action on a resource of the farm is tried once the farm has one.
  - The prices of us-east-1 stand for volumes and addresses in every Region.
extends_documentation_fragment:
  - renderfarm.cloud.farm
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Find out what stands in the way of 20 nodes
  renderfarm.cloud.ec2_preflight:
    farm: studio
    region: eu-central-1
    purpose: up
    zones: [eu-central-1a]
    nodes: 20
    node_types: [c7i.4xlarge, c6i.4xlarge]
    manager_type: m7i.xlarge
    builder_type: m7i.xlarge
    disk_gb: 80
    base_image: /aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base
    networks:
      farm_lan_network: 192.168.1.0/24
      farm_cloud_network: 10.0.0.0/24
      farm_tunnel_network: 10.8.0.0/24
      farm_manager_address: 10.0.0.10
  register: preflight
"""

RETURN = r"""
findings:
  description: One entry for each finding, in the order of the checks.
  type: list
  elements: dict
  returned: always
  contains:
    check:
      description: What was checked.
      type: str
    severity:
      description: V(fatal), V(warning) or V(ok).
      type: str
    text:
      description: What was found.
      type: str
    remedy:
      description: What helps. Empty when all is well.
      type: str
fatal:
  description: Whether a finding is fatal.
  type: bool
  returned: always
report:
  description: All findings as a table of text.
  type: str
  returned: always
untried:
  description: IAM actions that could not be tried, because the farm has nothing yet to try them on.
  type: list
  elements: str
  returned: always
stock_image:
  description: Id of the stock image, empty when it is not known.
  type: str
  returned: always
prices:
  description: On-demand prices in USD per hour by instance type, as far as they are known.
  type: dict
  returned: always
addresses:
  description: Private addresses of the machines that run in the farm's network.
  type: list
  elements: str
  returned: always
images:
  description: The farm's available images, newest first.
  type: list
  elements: dict
  returned: always
  contains:
    image_id:
      description: Id of the image.
      type: str
    name:
      description: Its name.
      type: str
    created:
      description: When it was made.
      type: str
    sizes:
      description: Sizes of its disks in GiB.
      type: list
      elements: int
    snapshots:
      description: Its snapshots.
      type: list
      elements: str
    tags:
      description: Its tags.
      type: dict
"""

from pathlib import Path
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.renderfarm.cloud.plugins.module_utils import preflight, preflight_facts
from ansible_collections.renderfarm.cloud.plugins.module_utils.prices import price_region

ROUTES = Path("/proc/net/route")


def argument_spec() -> dict[str, dict[str, Any]]:
    """The module's options, without those for the connection to AWS."""
    return {
        "farm": {"type": "str", "required": True},
        "purpose": {"type": "str", "choices": ["bake", "up", "check"], "default": "check"},
        "zones": {"type": "list", "elements": "str", "required": True},
        "nodes": {"type": "int", "required": True},
        "remote_nodes": {"type": "int", "default": 0},
        "node_types": {"type": "list", "elements": "str", "required": True},
        "manager_type": {"type": "str", "required": True},
        "builder_type": {"type": "str", "required": True},
        "spot": {"type": "bool", "default": True},
        "spot_percent": {"type": "int", "default": 100},
        "max_price": {"type": "float", "default": 0},
        "on_demand_fallback": {"type": "bool", "default": True},
        "disk_gb": {"type": "int", "required": True},
        "license_nodes": {"type": "int", "default": 0},
        "base_image": {"type": "str", "required": True},
        "networks": {"type": "dict", "required": True},
        "workstation": {"type": "str", "default": ""},
    }


def wish_of(options: dict[str, Any], region: str) -> preflight.Wish:
    return preflight.Wish(
        purpose=options["purpose"],
        region=region,
        zones=tuple(options["zones"]),
        nodes=options["nodes"],
        remote_nodes=options["remote_nodes"],
        node_types=tuple(options["node_types"]),
        manager_type=options["manager_type"],
        builder_type=options["builder_type"],
        spot=options["spot"],
        spot_percent=options["spot_percent"],
        max_price=options["max_price"] or None,
        on_demand_fallback=options["on_demand_fallback"],
        disk_gib=options["disk_gb"],
        license_nodes=options["license_nodes"],
        settings={**options["networks"], "farm_zones": options["zones"]},
        workstation=options["workstation"],
    )


def clients(module: Any) -> dict[str, Any]:
    """All clients, made one after the other: making them is not safe in threads, using them is."""
    config = {"retries": {"mode": "standard", "max_attempts": 4}, "connect_timeout": 10, "read_timeout": 30}
    regions = {"pricing": {"region": price_region(module.region)}}
    return {
        service: module.client(service, config=config, **regions.get(service, {}))
        for service in ("sts", "ec2", "ssm", "service-quotas", "pricing")
    }


def result(findings: list[preflight.Finding], facts: preflight.Facts) -> dict[str, Any]:
    return {
        "changed": False,
        "findings": [finding.as_dict() for finding in findings],
        "fatal": preflight.is_fatal(findings),
        "report": preflight.report(findings),
        "untried": list(facts.untried),
        "stock_image": str((facts.base_image or {}).get("image_id", "")),
        "addresses": list(facts.addresses),
        "images": list(facts.images or []),
        "prices": {kind: price for kind, price in (facts.on_demand_prices or {}).items() if price is not None},
    }


def main() -> None:
    module = AnsibleAWSModule(argument_spec=argument_spec(), supports_check_mode=True)
    options = module.params
    wish = wish_of(options, str(module.region))
    facts = preflight.Facts()
    try:
        facts = preflight_facts.collect(clients(module), wish, options["farm"], options["base_image"])
    except preflight_facts.CredentialsError as error:
        facts.credentials_problem = str(error)
    if ROUTES.exists():
        facts.routes = preflight.parse_routes(ROUTES.read_text())
    module.exit_json(**result(preflight.examine(wish, facts), facts))


if __name__ == "__main__":
    main()
