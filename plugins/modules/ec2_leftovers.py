#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_leftovers
short_description: Tell everything that a render farm holds on AWS and what it costs
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Lists, in all O(regions), whatever carries the farm's tag or hangs on something that does. These are instances,
    volumes, snapshots, images, Fast Launch and its snapshots, public addresses, network interfaces, launch templates,
    key pairs, networks with their parts, and log groups below C(/renderfarm/<farm>).
  - What cannot be listed is in RV(unreadable), and then RV(nothing_left) is never true.
  - Nothing is changed.
notes:
  - "The IAM permissions that it needs are C(ec2:Describe*) of what it lists and C(logs:DescribeLogGroups); with
    O(bucket) C(s3:ListBucket) and C(s3:ListBucketMultipartUploads), too."
  - Prices are those of us-east-1. Other Regions cost up to a quarter more. Snapshots are billed for changed blocks
    only, so that their price is the most that they can cost.
options:
  bucket:
    description:
      - S3 bucket through which the controller's installers went. What is below C(renderfarm/FARM/) there counts, too.
    type: str
    default: ""
extends_documentation_fragment:
  - renderfarm.cloud.farm
  - renderfarm.cloud.farm.regions
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Nothing is changed.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: renderfarm.cloud.ec2_destroy
"""

EXAMPLES = r"""
- name: See what is left of the farm
  renderfarm.cloud.ec2_leftovers:
    farm: studio
    region: eu-central-1
    regions: [eu-central-1, eu-west-1]
  register: left
"""

RETURN = r"""
msg:
  description: What is left, in one sentence.
  type: str
  returned: always
things:
  description: Everything that there is.
  type: list
  elements: dict
  returned: always
  contains:
    kind:
      description: What it is.
      type: str
      sample: volume
    id:
      description: Its id.
      type: str
    name:
      description: Its tag C(Name).
      type: str
    detail:
      description: Size, state, and what else tells it apart.
      type: str
    region:
      description: Where it is.
      type: str
    usd_per_month:
      description: What it costs if it stays; null for an instance whose price the price list did not tell.
      type: float
unreadable:
  description: What could not be listed.
  type: list
  elements: dict
  returned: always
  contains:
    kind:
      description: What could not be listed.
      type: str
    region:
      description: Where.
      type: str
    reason:
      description: Why, and what helps.
      type: str
usd_per_month:
  description: The sum of all known prices.
  type: float
  returned: always
nothing_left:
  description: Whether EC2 says that there is nothing at all.
  type: bool
  returned: always
nothing_billed:
  description: Whether EC2 says that there is nothing that costs money.
  type: bool
  returned: always
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.renderfarm.cloud.plugins.module_utils import clients, holdings


def argument_spec() -> dict[str, dict[str, Any]]:
    """The module's options, without those for the connection to AWS."""
    return {
        "farm": {"type": "str", "required": True},
        "bucket": {"type": "str", "default": ""},
        "regions": {"type": "list", "elements": "str"},
    }


def result(found: list[holdings.Thing], unreadable: list[holdings.Unreadable], regions: list[str]) -> dict[str, Any]:
    """What the module returns."""
    names = ("kind", "id", "name", "detail", "region")
    return {
        "changed": False,
        "msg": holdings.verdict(found, unreadable, regions),
        "things": [
            {
                **{name: getattr(thing, name) for name in names},
                "usd_per_month": None if thing.usd_per_month is None else round(thing.usd_per_month, 2),
            }
            for thing in found
        ],
        "unreadable": [{"kind": u.kind, "region": u.region, "reason": u.reason} for u in unreadable],
        "usd_per_month": round(holdings.total(found), 2),
        "nothing_left": not found and not unreadable,
        "nothing_billed": not holdings.billed(found) and not unreadable,
    }


def main() -> None:
    module = AnsibleAWSModule(argument_spec=argument_spec(), supports_check_mode=True)
    regions = clients.regions(module)
    found: list[holdings.Thing] = []
    unreadable: list[holdings.Unreadable] = []
    for region in regions:
        there, hidden = holdings.survey(
            clients.of_region(module, region), module.params["farm"], region, clients.bucket(module, region)
        )
        found += there
        unreadable += hidden
    module.exit_json(**result(found, unreadable, regions))


if __name__ == "__main__":
    main()
