# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.aws_errors import explain
from ..plugin_utils import bake_guard, images

OPTIONS = {
    "farm": {"type": "str", "required": True},
    "keep": {"type": "int", "required": True},
    "region": {"type": "str", "required": True},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Removes the farm's images that are too old and not in use."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(OPTIONS)
        if options["keep"] < 1:
            raise AnsibleActionFail(f"keep is {options['keep']}: 1 or more, for example 3.")
        removed: list[str] = []
        try:
            ec2 = bake_guard.make_client(options["region"])
            by_farm = [{"Name": f"tag:{images.TAG_FARM}", "Values": [options["farm"]]}]
            found = {
                image["ImageId"]: image for image in ec2.describe_images(Owners=["self"], Filters=by_farm)["Images"]
            }
            old, _ = images.surplus(found.values(), options["keep"], {})
            surplus, in_use = images.surplus(found.values(), options["keep"], images.users(ec2, old))
            for image_id in surplus:
                removed += [f"image {image_id}"] if self._task.check_mode else images.remove(ec2, found[image_id])
        except Exception as error:
            raise AnsibleActionFail(
                explain(error, doing=f"keep the newest {options['keep']} images of {options['farm']}")
            ) from error
        return result | {"changed": bool(removed), "removed": removed, "in_use": in_use}
