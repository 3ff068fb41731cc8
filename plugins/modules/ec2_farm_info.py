#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_farm_info
short_description: Tell how the machines of a farm are, what they said last and what they cost
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Lists the instances of a farm, also those that ended while EC2 still shows them (about an hour).
  - Reads from the console output what machines said last (C(docs/last-words.md)), which needs no access to the machine.
  - Tells what each has cost so far, by the second with a minute at least, where its price is known. Disks, addresses
    and traffic are not in it.
  - Nothing is changed.
options:
  farm:
    description: Name of the farm, the value of the tag C(renderfarm:farm).
    type: str
    required: true
  roles:
    description: Only machines of these roles, by the tag C(renderfarm:role). All when it is empty.
    type: list
    elements: str
    default: []
  listed:
    description:
      - Instances that Backburner's manager lists. Their consoles are read after all others, for most of them work.
    type: list
    elements: str
    default: []
  max_consoles:
    description:
      - How many consoles are read, one API call each, 0 to 1000. Those that ended come first, then those that the
        manager does not list, the youngest before the others, then those that it lists, the oldest before the others.
    type: int
    default: 50
  prices:
    description:
      - USD per hour by instance type, or by V(manager) and V(node) for types that are not named. Null means not known.
      - What EC2 asks now counts for spot instances; others have no price that EC2 tells.
    type: dict
    default: {}
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
notes:
  - The IAM permissions C(ec2:DescribeInstances), C(ec2:GetConsoleOutput) and C(ec2:DescribeSpotPriceHistory) are
    needed.
attributes:
  check_mode:
    description: Nothing is changed.
    support: full
"""

EXAMPLES = r"""
- name: See how the farm is
  renderfarm.cloud.ec2_farm_info:
    farm: studio
    region: eu-central-1
    prices:
      manager: 0.4224
  register: farm
"""

RETURN = r"""
instances:
  description: The machines, the oldest first.
  returned: always
  type: list
  elements: dict
  contains:
    instance_id:
      description: Id of the instance.
      type: str
    name:
      description: Tag C(Name).
      type: str
    role:
      description: Tag C(renderfarm:role).
      type: str
    type:
      description: Instance type.
      type: str
    zone:
      description: Availability Zone.
      type: str
    lifecycle:
      description: V(spot) or V(on-demand).
      type: str
    state:
      description: State of the instance.
      type: str
    launched:
      description: When it was launched (ISO 8601, UTC).
      type: str
    ended:
      description: When it ended, null when it lives or EC2 does not say.
      type: str
    reason:
      description: Why it ended, as EC2 says.
      type: str
    last_words:
      description: What it said last on its console, null when nothing was read or said.
      type: dict
    usd_per_hour:
      description: Its price, null when nobody knows.
      type: float
    cost_usd:
      description: What it has cost so far, null when the price or the time is not known.
      type: float
cost_usd:
  description: The sum over all machines whose cost is known.
  returned: always
  type: float
unknown_cost:
  description: Ids of those whose cost is not known.
  returned: always
  type: list
  elements: str
"""

import contextlib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

from ..module_utils import machines
from ..module_utils.aws_errors import explain

with contextlib.suppress(ImportError):  # AnsibleAWSModule says it with a remedy
    from botocore.exceptions import BotoCoreError, ClientError


def argument_spec() -> dict[str, dict[str, Any]]:
    return {
        "farm": {"type": "str", "required": True},
        "roles": {"type": "list", "elements": "str", "default": []},
        "listed": {"type": "list", "elements": "str", "default": []},
        "max_consoles": {"type": "int", "default": 50},
        "prices": {"type": "dict", "default": {}},
    }


def run(client: machines.Client, options: dict[str, Any], now: datetime) -> dict[str, Any]:
    """What the module returns. Raises ValueError and botocore's errors."""
    if not 0 <= options["max_consoles"] <= 1000:
        raise ValueError(f"max_consoles is a number from 0 to 1000, not {options['max_consoles']}")
    known = prices(options["prices"])
    filters = machines.of_farm(options["farm"])
    if options["roles"]:
        filters.append({"Name": f"tag:{machines.TAG_ROLE}", "Values": options["roles"]})
    found = machines.instances(client, filters)
    asked = most_telling(found, options["listed"])[: options["max_consoles"]]
    events = machines.last_events(client, [item.instance_id for item in asked])
    spot = machines.spot_prices(client, found, now)
    rows = machines.report(found, events, lambda item: machines.price(item, known, spot), now.timestamp())
    return {
        "instances": rows,
        "cost_usd": round(sum(row["cost_usd"] or 0.0 for row in rows), 4),
        "unknown_cost": [row["instance_id"] for row in rows if row["cost_usd"] is None],
    }


def most_telling(found: list[machines.Instance], listed: Collection[str]) -> list[machines.Instance]:
    """``found`` in the order in which their consoles are worth an API call."""

    def order(item: machines.Instance) -> tuple[int, float]:
        if item.state in machines.ENDED:
            return 0, -item.launched
        return (2, item.launched) if item.instance_id in listed else (1, -item.launched)

    return sorted(found, key=order)


def prices(given: dict[str, Any]) -> dict[str, float]:
    """The prices that are known, as numbers; ValueError names the one that is none."""
    given = {kind: amount for kind, amount in given.items() if amount is not None}
    for kind, amount in given.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            raise ValueError(f"prices: {kind} must be USD per hour, not {amount!r}")
    return {str(kind): float(amount) for kind, amount in given.items()}


def main() -> None:
    module = AnsibleAWSModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        client = module.client("ec2", config={"retries": {"mode": "standard", "max_attempts": 8}})
        result = run(client, module.params, datetime.now(UTC))
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    except (BotoCoreError, ClientError) as error:
        module.fail_json(msg=explain(error, doing=f"look at the machines of farm '{module.params['farm']}'"))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
