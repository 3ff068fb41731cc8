# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils import farmnode


class ActionModule(ActionBase):  # type: ignore[misc]
    """One run of ``farmnode servers`` on the manager."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(
            {
                "expect": {"type": "list", "elements": "str", "default": []},
                "jobs": {"type": "bool", "default": False},
            }
        )
        try:
            expected = [farmnode.normal_mac(mac) for mac in options["expect"]]
        except ValueError as error:
            raise AnsibleActionFail(f"expect: {error}") from error
        said = farmnode.answer(self._servers(["servers", *(["--jobs"] if options["jobs"] else [])], task_vars))
        servers = said.get("servers", [])
        there = farmnode.registered(servers)
        # The same keys also after a failure, so that a loop with 'until' can ask again.
        result |= {
            "changed": False,
            "servers": servers,
            "registered": len(there),
            "missing": [mac for mac in expected if mac not in there],
        }
        return result | {name: value for name, value in said.items() if name != "servers"}

    def _servers(self, words: list[str], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        check = self._task.check_mode
        # win_command does nothing in check mode; asking changes nothing.
        self._task.check_mode = False
        try:
            outcome: dict[str, Any] = self._execute_module(
                module_name="ansible.windows.win_command",
                module_args=farmnode.win_command(words),
                task_vars=task_vars,
            )
            return outcome
        finally:
            self._task.check_mode = check
