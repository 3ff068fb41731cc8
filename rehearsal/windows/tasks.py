"""The task scheduler: definitions as the module win_scheduled_task makes them, and their runs."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rehearsal.windows import commandline
from rehearsal.windows.errors import NoStandIn, WindowsError

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

BOOT = "boot"
REGISTRATION = "registration"
# Properties of a new task (reference: Microsoft, Task Scheduler, TaskSettings; version 1.2 as NewTask makes it).
DEFAULT_SETTINGS: dict[str, Any] = {
    "AllowDemandStart": True,
    "AllowHardTerminate": True,
    "Compatibility": 2,
    "DeleteExpiredTaskAfter": "",
    "DisallowStartIfOnBatteries": True,
    "ExecutionTimeLimit": "PT72H",
    "Enabled": True,
    "Hidden": False,
    "MultipleInstances": 2,
    "Priority": 7,
    "RestartCount": 0,
    "RestartInterval": "",
    "RunOnlyIfIdle": False,
    "RunOnlyIfNetworkAvailable": False,
    "StartWhenAvailable": False,
    "StopIfGoingOnBatteries": True,
    "WakeToRun": False,
}
_DURATION = re.compile(
    r"^P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?$"
)


def seconds(duration: str) -> float:
    """Seconds of an XML duration such as PT1H30M (years and months are not used); ValueError for anything else."""
    match = _DURATION.match(duration)
    if match is None or duration in ("P", "PT"):
        raise ValueError(duration)
    factors = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
    return sum(float(value) * factors[name] for name, value in match.groupdict(default="0").items())


class Tasks:
    """Scheduled tasks by path (``\\folder\\name``), compared without regard to case.

    A definition is ``{"actions": [{path, arguments, working_directory}], "triggers": [{type, …}], "principal":
    {user_sid, group_sid, LogonType, RunLevel, DisplayName}, "settings": {…}, "registration": {…}}``.  Triggers of type
    boot and registration fire, with their repetition (``interval``, for ever); others are kept and never fire.
    """

    def __init__(self, host: WindowsHost, state: dict[str, Any], changed: Callable[[], None]) -> None:
        self._host = host
        self._state = state
        self._changed = changed
        self.running: dict[str, asyncio.Task[None]] = {}
        self._repeating: dict[str, list[asyncio.Task[None]]] = {}
        self.last_results: dict[str, int] = {}
        self._booting: set[str] = set()
        self.booted = asyncio.Event()
        """Each task that starts with the machine has ended the first of its actions."""

    def paths(self) -> list[str]:
        """Paths of all tasks."""
        return list(self._state)

    def _key(self, path: str) -> str | None:
        return next((known for known in self._state if known.lower() == path.lower()), None)

    def get(self, path: str) -> dict[str, Any] | None:
        """A copy of a task's definition, or None."""
        key = self._key(path)
        return None if key is None else copy.deepcopy(self._state[key])

    def register(self, path: str, definition: dict[str, Any]) -> None:
        """Make or replace a task; one with a trigger of type registration runs."""
        self._state[self._key(path) or path] = copy.deepcopy(definition)
        self._changed()
        self._end_repetition(path)
        for trigger in definition["triggers"] if self._host.powered else []:
            if trigger["type"] == REGISTRATION and trigger.get("enabled", True):
                self._fire(path, trigger)

    def delete(self, path: str) -> None:
        """Delete a task; KeyError when there is none."""
        key = self._key(path)
        if key is None:
            raise KeyError(path)
        del self._state[key]
        self._changed()
        self._end_repetition(key)

    def start_at_boot(self) -> None:
        """Start the enabled tasks with a boot trigger, each after the delay of its trigger."""
        self._repeating.clear()  # they ended with the power
        self._booting.clear()
        self.booted.clear()
        for path in list(self._state):
            definition = self._state[path]
            for trigger in definition["triggers"]:
                if trigger["type"] != BOOT:
                    self._host.log(f"rehearsal: trigger {trigger['type']} of task {path} never fires")
                elif definition["settings"]["Enabled"] and trigger.get("enabled", True):
                    self._booting.add(path)
                    self._fire(path, trigger)
        if not self._booting:
            self.booted.set()

    def _acted(self, path: str) -> None:
        self._booting.discard(path)
        if not self._booting:
            self.booted.set()

    def _fire(self, path: str, trigger: dict[str, Any]) -> None:
        delay = seconds(trigger["delay"]) if trigger.get("delay") else 0
        self.start(path, delay)
        repetition = trigger.get("repetition") or {}
        if repetition.get("duration"):
            self._host.log(f"rehearsal: task {path} never repeats: a repetition that ends is not modelled")
        elif repetition.get("interval"):
            interval = seconds(repetition["interval"])
            repeat = self._host.later(delay, lambda: self._repeat(path, interval), f"task {path}")
            self._repeating.setdefault(path.lower(), []).append(repeat)

    async def _repeat(self, path: str, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            self.start(path)

    def _end_repetition(self, path: str) -> None:
        for repeat in self._repeating.pop(path.lower(), []):
            repeat.cancel()

    def start(self, path: str, delay: float = 0) -> None:
        """Run a task in ``delay`` seconds; a second instance of a running one is not started (as by default)."""
        if path in self.running and not self.running[path].done():
            self._host.log(f"task {path} runs already: not started again")
            return
        self.running[path] = self._host.later(delay, lambda: self._run(path), f"task {path}")

    async def _run(self, path: str) -> None:
        definition = self.get(path)
        if definition is None:
            return
        settings = definition["settings"]
        limit = settings["ExecutionTimeLimit"]
        timeout = seconds(limit) if limit and limit != "PT0S" else None
        for attempt in range(int(settings["RestartCount"]) + 1):
            if attempt:
                await asyncio.sleep(seconds(settings["RestartInterval"] or "PT1M"))
            self._host.log(f"task {path} starts")
            try:
                result = await asyncio.wait_for(self._actions(path, definition), timeout)
            except TimeoutError:
                self._host.log(f"task {path} was ended after its time limit {limit}")
                result = 0x41306  # SCHED_S_TASK_TERMINATED
            self.last_results[path] = result
            self._host.log(f"task {path} ended with {result}")
            if result == 0 or result == 0x41306:
                return

    async def _actions(self, path: str, definition: dict[str, Any]) -> int:
        user = self._user(definition)
        environment = self._host.environment(user)
        rc = 0
        for action in definition["actions"]:
            program = commandline.expand(action["path"], environment).strip('"')
            arguments = commandline.split("x " + commandline.expand(action.get("arguments") or "", environment))[1:]
            cwd = commandline.expand(action.get("working_directory") or r"C:\Windows\System32", environment)
            try:
                outcome = await self._host.run([program, *arguments], cwd=cwd, user=user)
            except (WindowsError, NoStandIn) as error:
                self._host.log(f"task {path}: {program}: {error}")
                return getattr(error, "code", 1)
            finally:
                self._acted(path)
            for text in (outcome.stdout, outcome.stderr):
                if text.strip():
                    self._host.log(f"task {path}: {text.decode('utf-8', errors='replace').rstrip()}")
            rc = outcome.rc
        return rc

    def _user(self, definition: dict[str, Any]) -> str:
        sid = definition["principal"].get("user_sid")
        if sid is None or sid in ("S-1-5-18", "S-1-5-19", "S-1-5-20"):
            return "SYSTEM"
        return self._host.accounts.name(sid).rpartition("\\")[2]
