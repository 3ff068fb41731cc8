# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils import farmnode

# What can be asked for without touching backburner.xml.
_WITHOUT_MANAGER = ("routes", "null_routes", "forwarding")


class ActionModule(ActionBase):  # type: ignore[misc]
    """One run of ``farmnode converge`` on the machine."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(
            {
                "manager": {"type": "str"},
                "manager_port": {"type": "int", "default": 3234},
                "server_port": {"type": "int", "default": 3233},
                "network_mask": {"type": "str"},
                "server_name": {"type": "str"},
                "identity": {
                    "type": "dict",
                    "options": {
                        "mac": {"type": "str", "required": True},
                        "name": {"type": "str", "required": True},
                        "address": {"type": "str", "required": True},
                    },
                },
                "path": {"type": "str"},
                "routes": {
                    "type": "list",
                    "elements": "dict",
                    "options": {
                        "network": {"type": "str", "required": True},
                        "gateway": {"type": "str", "required": True},
                        "metric": {"type": "int", "default": 1},
                    },
                },
                "null_routes": {"type": "list", "elements": "str"},
                "forwarding": {"type": "bool"},
            },
            required_one_of=[["manager", *_WITHOUT_MANAGER]],
            required_by=dict.fromkeys(("network_mask", "server_name", "identity", "path"), "manager"),
        )
        if options["manager"] is None:
            options = {name: options[name] for name in _WITHOUT_MANAGER}
        said = farmnode.answer(self._converge(options, task_vars))
        if said.get("failed"):
            return result | {"changed": False} | said
        if self._task.diff:
            result["diff"] = farmnode.ansible_diff(said)
        return result | {name: value for name, value in said.items() if name != "diff"}

    def _converge(self, options: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        check = bool(self._task.check_mode)
        words = ["converge", *(["--check"] if check else []), *(["--diff"] if self._task.diff else [])]
        desired = {name: value for name, value in options.items() if value is not None}
        # win_command does nothing in check mode, but only the machine can say what would change there: farmnode is run
        # all the same and told by --check to change nothing.
        self._task.check_mode = False
        try:
            outcome: dict[str, Any] = self._execute_module(
                module_name="ansible.windows.win_command",
                module_args=farmnode.win_command(words, desired),
                task_vars=task_vars,
            )
            return outcome
        finally:
            self._task.check_mode = check
