#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_fleet
short_description: Have so many machines of one role in a render farm on EC2
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Counts the pending and running EC2 instances that carry the farm's and the role's tag, and launches what is missing.
  - A launch is one call of C(CreateFleet) of type C(instant) for up to 1000 instances, over all given types and
    subnets. Spot instances come from the pools that EC2 finds cheap and lasting (C(price-capacity-optimized)).
    What spot does not give can come on-demand.
  - A repeat after a lost answer or a killed controller does not launch twice. What is there is counted by its tags, and
    the client token is made from the request, the known instances and the time in steps of three minutes.
  - A pool (type and subnet) without capacity is not asked again before O(capacity_backoff) has passed.
  - Too many instances are only reported, unless O(confirm_remove=true).
  - When the number is right, nothing but C(DescribeInstances) is called.
options:
  farm:
    description: Name of the farm, the value of the tag C(renderfarm:farm).
    type: str
    required: true
  role:
    description: Role of the machines, the value of the tag C(renderfarm:role).
    type: str
    choices: [manager, render_node, remote_node, builder]
    default: render_node
  roles:
    description:
      - With O(state=absent), all roles of which nothing may be left. Without it, O(role) alone.
    type: list
    elements: str
    choices: [manager, render_node, remote_node, builder]
  state:
    description:
      - V(present) has O(count) machines of O(role).
      - V(absent) has none of O(roles), not even stopped ones. It needs O(confirm_remove=true) to remove any.
    type: str
    choices: [present, absent]
    default: present
  count:
    description:
      - How many machines of O(role) there shall be. Required with O(state=present).
      - Pending and running ones count, stopped ones do not.
    type: int
  instance_ids:
    description: With O(state=absent), only these machines of O(roles) end.
    type: list
    elements: str
  launch_at_most:
    description:
      - Launch at most so many now. What is missing then is in RV(postponed) and no failure.
    type: int
  minimum_count:
    description:
      - With fewer machines than this after all tries the task fails. What was launched stays, named in the result.
      - Without it, all of O(count) must be there.
    type: int
  launch_template:
    description: The launch template. Required with O(state=present).
    type: dict
    suboptions:
      name:
        description: Name of the template. Either this or O(launch_template.id).
        type: str
      id:
        description: Id of the template.
        type: str
      version:
        description: Version of the template.
        type: str
        default: $Latest
  instance_types:
    description:
      - Instance types that will do. Required with O(state=present). Ten or more make spot capacity likely.
    type: list
    elements: str
    default: []
  subnet_ids:
    description:
      - Subnets to launch into, one per zone.
      - Leave it empty only when the launch template itself names a network interface with its subnet.
    type: list
    elements: str
    default: []
  spot:
    description: Launch spot instances.
    type: bool
    default: true
  spot_percent:
    description:
      - How much of O(count) may be spot, 0 to 100. The rest is on-demand from the start, rounded down.
    type: int
    default: 100
  on_demand_fallback:
    description: Launch on-demand what spot could not give.
    type: bool
    default: true
  capacity_timeout:
    description:
      - How long to ask pools without capacity again, in seconds. V(0) asks every pool once.
      - Quotas, prices and types that are not offered do not change by waiting and end it at once.
    type: int
    default: 0
  capacity_backoff:
    description: A pool without capacity is not asked again before so many seconds.
    type: int
    default: 180
  max_price:
    description:
      - The most to pay for one spot instance and hour, in USD. Without it the on-demand price is the limit.
    type: float
  tags:
    description:
      - More tags for the instances, their volumes and network interfaces, and the fleet.
      - C(renderfarm:farm) and C(renderfarm:role) are always set. C(Name) is C(<farm>-<role>), unless given here.
    type: dict
    default: {}
  idle:
    description:
      - Machines that render nothing now, by instance id or MAC address. When there are too many, they go before all
        others.
    type: list
    elements: str
    default: []
  remove:
    description: Which machines go first when there are too many.
    type: str
    choices: [oldest, newest]
    default: oldest
  confirm_remove:
    description:
      - Terminate the machines that are too many. Otherwise they are only named in RV(surplus), and nothing changes.
    type: bool
    default: false
  wait:
    description: Wait until launched machines are running and removed ones are terminated.
    type: bool
    default: true
  wait_timeout:
    description: How long to wait, in seconds.
    type: int
    default: 600
notes:
  - "The IAM permissions that it needs are C(ec2:DescribeInstances), C(ec2:CreateFleet), C(ec2:RunInstances),
    C(ec2:CreateTags), C(ec2:TerminateInstances), and C(iam:PassRole) when the launch template names an instance
    profile."
  - When EC2 throttles, smaller batches are asked for at the rate at which EC2 documents its limits to recover. After
    five minutes of refusals the task fails.
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Tells what would be launched or removed.
    support: full
  diff_mode:
    description: Shows the instance ids before and after.
    support: full
seealso:
  - plugin: renderfarm.cloud.ec2_farm
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Have 20 render nodes, spot where there is some
  renderfarm.cloud.ec2_fleet:
    farm: studio
    region: eu-central-1
    role: render_node
    count: 20
    launch_template:
      name: studio-render-node
    instance_types: [c7i.4xlarge, c7a.4xlarge, c6i.4xlarge, c6a.4xlarge, m7i.4xlarge]
    subnet_ids: [subnet-0123456789abcdef0, subnet-0123456789abcdef1]
  register: fleet

- name: Go down to 5 render nodes, the oldest leave first
  renderfarm.cloud.ec2_fleet:
    farm: studio
    region: eu-central-1
    count: 5
    launch_template:
      name: studio-render-node
    instance_types: [c7i.4xlarge]
    subnet_ids: [subnet-0123456789abcdef0]
    confirm_remove: true

- name: Be content with 15 of 20, and pay at most 0.80 USD per hour for each
  renderfarm.cloud.ec2_fleet:
    farm: studio
    region: eu-central-1
    count: 20
    minimum_count: 15
    max_price: 0.80
    on_demand_fallback: false
    launch_template:
      name: studio-render-node
    instance_types: [c7i.4xlarge, c7a.4xlarge, c6i.4xlarge]
    subnet_ids: [subnet-0123456789abcdef0]

- name: Terminate every machine of the farm
  renderfarm.cloud.ec2_fleet:
    farm: studio
    region: eu-central-1
    state: absent
    roles: [render_node, manager, builder]
    confirm_remove: true
"""

RETURN = r"""
msg:
  description: What was done, or why not, for a person.
  type: str
  returned: always
instances:
  description: The pending and running machines of the role after the run, oldest first.
  type: list
  elements: dict
  returned: always
  contains:
    instance_id:
      description: Id of the instance.
      type: str
    name:
      description: Its tag C(Name).
      type: str
    role:
      description: Its tag C(renderfarm:role).
      type: str
    type:
      description: Instance type.
      type: str
    lifecycle:
      description: V(spot) or V(on-demand).
      type: str
    zone:
      description: Availability zone.
      type: str
    state:
      description: State of the instance.
      type: str
    private_ip:
      description: Private address.
      type: str
    public_ip:
      description: Public address, empty when there is none.
      type: str
    mac:
      description: MAC address of the first network interface.
      type: str
    launch_time:
      description: When it was launched, ISO 8601 in UTC.
      type: str
stopped:
  description: Stopped and stopping machines of the role. They are not counted. Entries as in RV(instances).
  type: list
  elements: dict
  returned: always
launched:
  description: Ids of the instances that were launched.
  type: list
  elements: str
  returned: always
removed:
  description: Ids of the instances that were terminated, or would be in check mode.
  type: list
  elements: str
  returned: always
surplus:
  description:
    - Machines that are too many and stay for lack of O(confirm_remove), or because another run launched at the same
      time. Entries as in RV(instances).
  type: list
  elements: dict
  returned: always
shortfall:
  description: How many machines of O(count) are missing after all tries, those in RV(postponed) not counted.
  type: int
  returned: always
postponed:
  description: How many machines are still to be launched because of O(launch_at_most).
  type: int
  returned: always
errors:
  description: Why pools did not give what was asked, one entry for each error code and lifecycle.
  type: list
  elements: dict
  returned: always
  contains:
    code:
      description: Error code of EC2.
      type: str
      sample: InsufficientInstanceCapacity
    lifecycle:
      description: V(spot) or V(on-demand).
      type: str
    message:
      description: What EC2 says.
      type: str
    remedy:
      description: What helps, empty when unknown.
      type: str
    count:
      description: Number of pools (type and zone) with this error.
      type: int
    instance_types:
      description: Types of these pools.
      type: list
      elements: str
    zones:
      description: Zones or subnets of these pools.
      type: list
      elements: str
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.renderfarm.cloud.plugins.module_utils.aws_errors import explain
from ansible_collections.renderfarm.cloud.plugins.module_utils.fleet import (
    BACKOFF_SECONDS,
    ROLES,
    Fleet,
    FleetError,
    Outcome,
    Wish,
)

try:  # noqa: SIM105
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    pass  # AnsibleAWSModule says it with a remedy


def argument_spec() -> dict[str, dict[str, Any]]:
    """The module's options, without those for the connection to AWS."""
    return {
        "farm": {"type": "str", "required": True},
        "role": {"type": "str", "choices": list(ROLES), "default": "render_node"},
        "roles": {"type": "list", "elements": "str", "choices": list(ROLES)},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "count": {"type": "int"},
        "instance_ids": {"type": "list", "elements": "str"},
        "launch_at_most": {"type": "int"},
        "minimum_count": {"type": "int"},
        "launch_template": {
            "type": "dict",
            "options": {
                "name": {"type": "str"},
                "id": {"type": "str"},
                "version": {"type": "str", "default": "$Latest"},
            },
            "mutually_exclusive": [("name", "id")],
            "required_one_of": [("name", "id")],
        },
        "instance_types": {"type": "list", "elements": "str", "default": []},
        "subnet_ids": {"type": "list", "elements": "str", "default": []},
        "spot": {"type": "bool", "default": True},
        "spot_percent": {"type": "int", "default": 100},
        "on_demand_fallback": {"type": "bool", "default": True},
        "capacity_timeout": {"type": "int", "default": 0},
        "capacity_backoff": {"type": "int", "default": BACKOFF_SECONDS},
        "max_price": {"type": "float"},
        "tags": {"type": "dict", "default": {}},
        "idle": {"type": "list", "elements": "str", "default": []},
        "remove": {"type": "str", "choices": ["oldest", "newest"], "default": "oldest"},
        "confirm_remove": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 600},
    }


def wish_of(options: dict[str, Any]) -> Wish:
    """The options as a wish. Option values that were not given are None and left out."""
    return Wish(
        farm=options["farm"],
        role=options["role"],
        count=options["count"],
        minimum_count=options["minimum_count"],
        launch_template={key: value for key, value in options["launch_template"].items() if value is not None},
        instance_types=options["instance_types"],
        subnet_ids=options["subnet_ids"],
        spot=options["spot"],
        spot_percent=options["spot_percent"],
        on_demand_fallback=options["on_demand_fallback"],
        max_price=options["max_price"],
        launch_at_most=options["launch_at_most"],
        capacity_seconds=options["capacity_timeout"],
        backoff_seconds=options["capacity_backoff"],
        tags={str(key): str(value) for key, value in options["tags"].items()},
        remove=options["remove"],
        idle=options["idle"],
    )


def result(outcome: Outcome) -> dict[str, Any]:
    """What the module returns about a run, also about one that failed half-way."""
    return {
        "changed": outcome.changed,
        "msg": outcome.msg,
        "instances": outcome.instances,
        "stopped": outcome.stopped,
        "launched": outcome.launched,
        "removed": outcome.removed,
        "surplus": outcome.surplus,
        "shortfall": outcome.shortfall,
        "postponed": outcome.postponed,
        "errors": outcome.errors,
        "diff": outcome.diff(),
    }


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ("count", "launch_template", "instance_types"))],
        supports_check_mode=True,
    )
    options = module.params
    fleet = Fleet(
        module.client("ec2", config={"retries": {"mode": "standard", "max_attempts": 2}}),
        options["farm"],
        check_mode=module.check_mode,
        wait_seconds=options["wait_timeout"] if options["wait"] else 0,
    )
    try:
        if options["state"] == "present":
            outcome = fleet.present(wish_of(options), confirm_remove=options["confirm_remove"])
        else:
            roles = options["roles"] or [options["role"]]
            outcome = fleet.absent(
                roles, confirm_remove=options["confirm_remove"], instance_ids=options["instance_ids"]
            )
    except FleetError as error:
        module.fail_json(**{**result(fleet.outcome), "msg": str(error)})
    except (BotoCoreError, ClientError) as error:
        doing = f"have the wished machines in farm '{options['farm']}'"
        module.fail_json(**{**result(fleet.outcome), "msg": explain(error, doing=doing)})
    if outcome.failed:
        module.fail_json(**result(outcome))
    if outcome.surplus or outcome.shortfall:
        module.warn(outcome.msg)
    module.exit_json(**result(outcome))


if __name__ == "__main__":
    main()
