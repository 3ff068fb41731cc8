"""Writes how many CPU seconds each task took, of ansible-playbook and of its workers, modules and commands together.

Into the file that the environment names in ``CPU_OF_TASKS``, as a list of [action, name of the task, CPU seconds]; the
first entry is what went before the first task. What runs elsewhere (the simulated region, Windows) is not counted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: cpu_of_tasks
type: aggregate
short_description: CPU seconds of each task
description: Writes CPU seconds of each task into the file that CPU_OF_TASKS names.
"""


def spent() -> float:
    """User and system seconds of this process and of all its children that have ended."""
    multiprocessing.active_children()  # workers that have ended count only when somebody has asked for them
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cpu_of_tasks"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._path = Path(os.environ["CPU_OF_TASKS"])
        self._tasks: list[tuple[str, str, float]] = []
        self._now = ("start", "")
        self._before = 0.0

    def _next(self, action: str, name: str) -> None:
        after = spent()
        self._tasks.append((*self._now, after - self._before))
        self._now, self._before = (action, name), after

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._next(task.resolved_action or task.action, task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._next("end", "")
        self._path.write_text(json.dumps(self._tasks), encoding="utf-8")
