# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.aws_errors import explain
from ..plugin_utils import installers

OPTIONS = {
    "installers": {"type": "dict", "required": True},
    "bucket": {"type": "str", "default": ""},
    "farm": {"type": "str", "required": True},
    "region": {"type": "str", "required": True},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Puts the controller's own installers where machines of the farm can fetch them."""

    _supports_check_mode = False
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(OPTIONS)
        uploaded: list[str] = []
        local = [(name, source) for name, source in installers.flat(options["installers"]) if source.get("path")]
        if local:
            s3 = installers.client(options["region"])
        for name, source in local:
            try:
                if installers.upload(s3, source, options["bucket"], options["farm"]):
                    uploaded.append(name)
            except installers.InstallerError as error:
                raise AnsibleActionFail(f"{name}: {error}") from error
            except Exception as error:
                raise AnsibleActionFail(explain(error, doing=f"put {name} into {options['bucket']}")) from error
        return result | {"changed": bool(uploaded), "uploaded": uploaded}
