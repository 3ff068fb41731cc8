# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.aws_errors import explain
from ..plugin_utils import bake_guard, images

OPTIONS = {
    "instance_id": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "description": {"type": "str", "default": ""},
    "tags": {"type": "dict", "required": True},
    "region": {"type": "str", "required": True},
    "minutes": {"type": "int", "default": 60},
    "fast_launch": {"type": "int", "default": 0},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller, because only an action can show how far the copy is while it waits."""

    _supports_check_mode = False
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(OPTIONS)
        ec2 = bake_guard.make_client(options["region"])
        display = Display()
        try:
            images.stop(ec2, options["instance_id"])
            image_id = ec2.create_image(
                InstanceId=options["instance_id"],
                Name=options["name"],
                Description=options["description"],
                TagSpecifications=images.specifications(options["tags"]),
            )["ImageId"]
            image = images.wait(ec2, image_id, minutes=options["minutes"], say=display.display)
            if options["fast_launch"]:
                images.enable_fast_launch(ec2, image_id, options["fast_launch"])
        except images.ImageError as error:
            raise AnsibleActionFail(str(error)) from error
        except Exception as error:
            raise AnsibleActionFail(explain(error, doing=f"make an image of {options['instance_id']}")) from error
        return result | {"changed": True, "image_id": image_id, "snapshots": images.snapshot_ids(image)}
