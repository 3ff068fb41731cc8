# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the actions have in common that speak to EC2 from ansible-playbook's own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.aws_errors import explain
from . import bake_guard


class Ec2Action(ActionBase):  # type: ignore[misc]
    """Checks the options, opens a session, and tells every error with its remedy."""

    OPTIONS: ClassVar[Mapping[str, Any]]
    """Argument specification; ``region`` is among them."""

    _supports_check_mode = False
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(dict(self.OPTIONS))
        try:
            return result | self.act(bake_guard.make_client(options["region"]), options)
        except AnsibleActionFail:
            raise
        except Exception as error:  # botocore's errors, files: all say what to do
            raise AnsibleActionFail(explain(error, doing=self.doing(options))) from error

    def act(self, ec2: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Do it; the task's result. Any exception becomes a failure that says what was being done."""
        raise NotImplementedError

    def doing(self, options: Mapping[str, Any]) -> str:
        """What completes "Could not ..."."""
        raise NotImplementedError
