# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

from ansible.plugins.action import ActionBase

from ..plugin_utils import farmnode

_KNOCK: Final = 5.0
"""Seconds in which a machine must accept a TCP connection: Linux sends a lost first packet again after 1 and 3 s.
The WinRM client itself would wait for its read timeout, 70 s."""


class ActionModule(ActionBase):  # type: ignore[misc]
    """One run of ``farmnode probe``: on Windows the installed one, elsewhere one that is sent along."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _, options = self.validate_argument_spec(
            {"probes": {"type": "list", "elements": "dict", "required": True}, "python": {"type": "path"}}
        )
        if not options["probes"]:
            return result | {"changed": False, "results": [], "asked_at": time.time()}
        if self._connection.transport == "winrm" and (silence := self._knock()) is not None:
            return result | farmnode.answer({"unreachable": True, "msg": silence})
        check = self._task.check_mode
        # win_command and command do nothing in check mode; asking changes nothing.
        self._task.check_mode = False
        began = time.time()
        try:
            windows = getattr(self._connection._shell, "_IS_WINDOWS", False) is True
            outcome = (self._windows if windows else self._linux)(options, task_vars or {})
        finally:
            self._task.check_mode = check
        # 'changed' of the command means nothing; the time is what the machines' clocks are held against.
        return result | {"changed": False, "asked_at": (began + time.time()) / 2} | farmnode.answer(outcome)

    def _knock(self) -> str | None:
        """Why nobody listens where the connection leads; None when somebody does."""
        address, port = self._connection.get_option("remote_addr"), int(self._connection.get_option("port"))
        try:
            socket.create_connection((address, port), timeout=_KNOCK).close()
        except OSError as error:
            return f"WinRM at {address} port {port} cannot be reached: {error.strerror or error}"
        return None

    def _windows(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        outcome: dict[str, Any] = self._execute_module(
            module_name="ansible.windows.win_command",
            module_args=farmnode.win_command(["probe"], options["probes"]),
            task_vars=task_vars,
        )
        return outcome

    def _linux(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        folder = self._make_tmp_path()
        try:
            archive = self._connection._shell.join_path(folder, "farmnode.zip")
            self._transfer_data(archive, farmnode.archive())
            own = task_vars.get("ansible_playbook_python") if self._connection.transport == "local" else None
            python = options["python"] or own or "python3"
            words = [python, "-I", archive, "probe", "--system", "linux"]
            outcome: dict[str, Any] = self._execute_module(
                module_name="ansible.builtin.command",
                module_args={"argv": words, "stdin": json.dumps(options["probes"])},
                task_vars=task_vars,
            )
            return outcome
        finally:
            self._remove_tmp_path(folder)
