# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail

from ..plugin_utils import images
from ..plugin_utils.aws_action import Ec2Action


class ActionModule(Ec2Action):
    """Removes the farm's images that are too old and not in use."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "farm": {"type": "str", "required": True},
        "keep": {"type": "int", "required": True},
        "region": {"type": "str", "required": True},
    }
    _supports_check_mode = True

    def doing(self, options: Mapping[str, Any]) -> str:
        return f"keep the newest {options['keep']} images of {options['farm']}"

    def act(self, ec2: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        if options["keep"] < 1:
            raise AnsibleActionFail(f"keep is {options['keep']}: 1 or more, for example 3.")
        by_farm = [{"Name": f"tag:{images.TAG_FARM}", "Values": [options["farm"]]}]
        found = {image["ImageId"]: image for image in ec2.describe_images(Owners=["self"], Filters=by_farm)["Images"]}
        old, _ = images.surplus(found.values(), options["keep"], {})
        surplus, in_use = images.surplus(found.values(), options["keep"], images.users(ec2, old))
        removed: list[str] = []
        for image_id in surplus:
            removed += [f"image {image_id}"] if self._task.check_mode else images.remove(ec2, found[image_id])
        return {"changed": bool(removed), "removed": removed, "in_use": in_use}
