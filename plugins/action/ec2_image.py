# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

from ..plugin_utils import images
from ..plugin_utils.aws_action import Ec2Action


class ActionModule(Ec2Action):
    """Runs on the controller, because only an action can show how far the copy is while it waits."""

    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "instance_id": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "description": {"type": "str", "default": ""},
        "tags": {"type": "dict", "required": True},
        "region": {"type": "str", "required": True},
        "minutes": {"type": "int", "default": 60},
        "manifest": {"type": "dict"},
        "manifest_dir": {"type": "path"},
    }

    def doing(self, options: Mapping[str, Any]) -> str:
        return f"make an image of {options['instance_id']}"

    def act(self, ec2: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        try:
            images.stop(ec2, options["instance_id"])
            image_id = ec2.create_image(
                InstanceId=options["instance_id"],
                Name=options["name"],
                Description=options["description"],
                TagSpecifications=images.specifications(options["tags"]),
            )["ImageId"]
            image = images.wait(ec2, image_id, minutes=options["minutes"], say=Display().display)
        except images.ImageError as error:
            raise AnsibleActionFail(str(error)) from error
        if options["manifest"] is not None:
            keep_manifest(Path(options["manifest_dir"]), {**options["manifest"], "image": image_id})
        return {"changed": True, "image_id": image_id, "snapshots": images.snapshot_ids(image)}


def keep_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``<image>.json``, for its owner alone. OSError passes through."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{manifest['image']}.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")
