# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..module_utils.aws_errors import explain
from ..plugin_utils import images
from ..plugin_utils.aws_action import Ec2Action


class ActionModule(Ec2Action):
    """Turns Fast Launch on. Whatever goes wrong is a warning: the image is whole, its first boots are only slower."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "image_id": {"type": "str", "required": True},
        "snapshots": {"type": "int", "required": True},
        "launch_template": {"type": "str", "default": ""},
        "region": {"type": "str", "required": True},
    }

    def doing(self, options: Mapping[str, Any]) -> str:
        return f"have EC2 prepare first boots of {options['image_id']}"

    def act(self, ec2: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        image_id, wished = options["image_id"], options["snapshots"]
        warnings: list[str] = []
        try:
            found = images.fast_launch(ec2, image_id)
            if reason := images.fast_launch_failure(found):
                warnings.append(_remedy(image_id, f"the last time it ended {found['State']}: {reason}", "Tried again."))
            elif images.prepared(found) == wished:
                return {"changed": False, "state": found["State"]}
            images.enable_fast_launch(ec2, image_id, wished, options["launch_template"])
            found = images.fast_launch(ec2, image_id)
        except Exception as error:  # botocore's have no common class
            return {
                "changed": False,
                "state": "",
                "warnings": [_remedy(image_id, explain(error, doing=self.doing(options)))],
            }
        if reason := images.fast_launch_failure(found):
            warnings = [_remedy(image_id, f"it ended {found['State']}: {reason}")]
        return {"changed": True, "state": found.get("State", ""), "warnings": warnings}


def _remedy(image_id: str, problem: str, then: str = "") -> str:
    return (
        f"The image {image_id} is good, but Fast Launch does not prepare its first boots: {problem} {then} "
        "Remedy: run bake-ami.yml again. EC2 needs a default VPC, or ami_bake_fast_launch_template names a launch "
        f"template. See: aws ec2 describe-fast-launch-images --image-ids {image_id}"
    )
