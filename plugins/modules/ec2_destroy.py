#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_destroy
short_description: Delete everything that a render farm holds on AWS
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Deletes whatever M(renderfarm.cloud.ec2_leftovers) lists, in the order in which it can go. Images go with their
    snapshots, networks with their parts.
  - What is gone already is no failure, so that it can be run again after it was interrupted.
  - This cannot be undone. Frames, jobs and images that are only there are lost.
options:
  confirm:
    description: The name of the farm once more. With any other value nothing is deleted and the task fails.
    type: str
    required: true
  bucket:
    description:
      - S3 bucket through which the controller's installers went. What is below C(renderfarm/FARM/) there goes, too.
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
    description: Tells what would be deleted.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: renderfarm.cloud.ec2_leftovers
"""

EXAMPLES = r"""
- name: Delete the farm for good
  renderfarm.cloud.ec2_destroy:
    farm: studio
    confirm: studio
    region: eu-central-1
"""

RETURN = r"""
msg:
  description: What was deleted, or why not.
  type: str
  returned: always
deleted:
  description: What was deleted, or would be in check mode, in this order.
  type: list
  elements: str
  returned: always
  sample: ["volume vol-0123456789abcdef0 (eu-central-1)"]
"""

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.renderfarm.cloud.plugins.module_utils import clients, holdings


def argument_spec() -> dict[str, dict[str, Any]]:
    """The module's options, without those for the connection to AWS."""
    return {
        "farm": {"type": "str", "required": True},
        "confirm": {"type": "str", "required": True},
        "bucket": {"type": "str", "default": ""},
        "regions": {"type": "list", "elements": "str"},
    }


def main() -> None:
    module = AnsibleAWSModule(argument_spec=argument_spec(), supports_check_mode=True)
    farm, regions = module.params["farm"], clients.regions(module)
    deleted: list[str] = []
    if not farm or module.params["confirm"] != farm:
        module.fail_json(
            msg=f"Deleted nothing: confirm is '{module.params['confirm']}', the farm is '{farm}'.", deleted=deleted
        )
    for region in regions:
        destroyer = holdings.Destroyer(
            clients.of_region(module, region), farm, region, bucket=clients.bucket(module, region)
        )
        try:
            gone = destroyer.planned() if module.check_mode else destroyer.run()
        except holdings.DestroyError as error:
            deleted += holdings.names(destroyer.deleted)
            module.fail_json(msg=str(error), deleted=deleted, changed=bool(deleted))
        deleted += holdings.names(gone)
    verb = "Would delete" if module.check_mode else "Deleted"
    msg = f"{verb} {len(deleted)} things of farm {farm}" if deleted else f"There is nothing of farm {farm}"
    module.exit_json(changed=bool(deleted), msg=msg, deleted=deleted)


if __name__ == "__main__":
    main()
