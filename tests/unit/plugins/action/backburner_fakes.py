"""Running an action plugin with recorded answers of the machine."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase


class Recorder:
    """Stands for ``_execute_module``: gives the recorded result and keeps what was asked, and under which task."""

    def __init__(self, plugin: ActionBase, result: dict[str, Any]) -> None:
        self.plugin, self.result = plugin, result
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **call: Any) -> dict[str, Any]:
        self.calls.append(call | {"check_mode": self.plugin._task.check_mode})
        if "raises" in self.result:
            raise self.result["raises"]
        return self.result


def action(
    module: Any, options: dict[str, Any], result: dict[str, Any], *, check: bool = False, diff: bool = False
) -> Any:
    """The plugin of ``module``, ready to run."""
    task = MagicMock(Task)
    task.async_val = 0
    task.args = options
    task.check_mode, task.diff, task.delegate_to, task.no_log = check, diff, None, False
    connection = MagicMock()
    connection._shell.tmpdir = None
    plugin = module.ActionModule(task, connection, MagicMock(), MagicMock(), MagicMock(), MagicMock())
    plugin._execute_module = Recorder(plugin, result)
    return plugin
