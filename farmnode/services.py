r"""The Backburner services, through ``sc.exe``.

Names and defaults: 3ds Max Help, "Starting Backburner as a service" (``net start backburner_srv_200``).
Errors are Win32 error codes (System Error Codes): 1056 already running, 1060 no such service, 1061 starting or
stopping, 1062 not started.
"""

from __future__ import annotations

import re
from typing import Final

from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.programs import Completed, Programs

SERVER: Final = "BACKBURNER_SRV_200"
MANAGER: Final = "BACKBURNER_MGR_200"

STOPPED: Final = 1
RUNNING: Final = 4
_STATES: Final = {
    1: "stopped", 2: "starting", 3: "stopping", 4: "running", 5: "continuing", 6: "pausing", 7: "paused",
}  # fmt: skip
_DEMAND_START: Final = 3

_ALREADY_RUNNING: Final = 1056
_NO_SUCH_SERVICE: Final = 1060
#: Of a service that is starting or stopping already (ControlService, ERROR_SERVICE_CANNOT_ACCEPT_CTRL).
_UNDER_WAY: Final = 1061
_NOT_STARTED: Final = 1062

#: ``        STATE              : 4  RUNNING``; the label is translated, its place is not.
_NUMBER = re.compile(r"^[ \t]+\S[^:\n]*:[ \t]+([0-9a-fA-F]+)[ \t]+\S", re.MULTILINE)

#: ``[SC] StartService FAILED 1056:``; the word is translated, the number is not.
_FAILED = re.compile(r"^\[SC\][^\r\n]*\s(\d+):", re.MULTILINE)


class Services:
    """Windows services by name. ``limit`` is how many seconds a service may take to start or stop."""

    def __init__(self, programs: Programs, clock: Clock, *, limit: float = 60.0) -> None:
        self._programs = programs
        self._clock = clock
        self.limit = limit

    def state(self, name: str) -> int:
        """The SERVICE_STATUS number: 1 stopped … 4 running. FarmNodeError when there is no such service."""
        return self._second_number(name, self._ask(name, "query"))

    def process_id(self, name: str) -> int:
        """The number of its process, 0 when it does not run. FarmNodeError when there is no such service.

        The last lines of ``sc.exe queryex`` are PID and FLAGS; their labels are translated, their places are not.
        """
        done = self._ask(name, "queryex")
        values = [line.partition(":")[2].strip() for line in done.stdout.splitlines() if ":" in line]
        if len(values) < 2 or not values[-2].isdecimal():
            raise FarmNodeError("program", f"sc.exe said about {name} what is not understood: {done.text}")
        return int(values[-2])

    def describe(self, name: str) -> str:
        """The state in a word, ``missing`` when there is no such service."""
        done = self._programs.run("sc.exe", ["query", name])
        if _error(done) == _NO_SUCH_SERVICE:
            return "missing"
        number = self._second_number(name, _succeeded(name, "query", done))
        return _STATES.get(number, f"state {number}")

    def account(self, name: str) -> str | None:
        """The account that the service logs on as, None when there is no such service or it has none.

        It is the last line of ``sc.exe qc``; its label is translated, its place is not.
        """
        done = self._programs.run("sc.exe", ["qc", name])
        if _error(done) == _NO_SUCH_SERVICE:
            return None
        lines = [line for line in _succeeded(name, "qc", done).stdout.splitlines() if line.strip()]
        return lines[-1].partition(":")[2].strip() or None

    def start(self, name: str) -> None:
        """Start it and wait until it runs."""
        self._ask(name, "start", but=(_ALREADY_RUNNING,))
        self._reach(name, RUNNING)

    def stop(self, name: str) -> None:
        """Stop it and wait until it has stopped."""
        self._ask(name, "stop", but=(_UNDER_WAY, _NOT_STARTED))
        self._reach(name, STOPPED)

    def start_on_demand(self, name: str) -> bool:
        """Let nothing but farmnode start it; True when that had to be changed."""
        if self._second_number(name, self._ask(name, "qc")) == _DEMAND_START:
            return False
        _succeeded(name, "config", self._programs.run("sc.exe", ["config", name, "start=", "demand"]))
        return True

    def _reach(self, name: str, wanted: int) -> None:
        if not self._clock.wait(lambda: self.state(name) == wanted, self.limit, most=1.0):
            raise FarmNodeError(
                "service",
                f"service {name} is {self.describe(name)}, not {_STATES[wanted]}, after {self.limit:g} seconds; "
                "see backburner.log beside backburner.xml and the System event log.",
            )

    def _ask(self, name: str, verb: str, *, but: tuple[int, ...] = ()) -> Completed:
        done = self._programs.run("sc.exe", [verb, name], timeout=self.limit + 30)
        return done if _error(done) in but else _succeeded(name, verb, done)

    def _second_number(self, name: str, done: Completed) -> int:
        """Both ``query`` and ``qc`` list TYPE first, then the number of interest (in hexadecimal without prefix)."""
        numbers = _NUMBER.findall(done.stdout)
        if len(numbers) < 2:
            raise FarmNodeError("program", f"sc.exe said about {name} what is not understood: {done.text}")
        return int(numbers[1], 16)


def _error(done: Completed) -> int:
    """The Win32 error, 0 for none. As ``sc.exe`` wrote it: an exit code of a stand-in has eight bits only."""
    failed = _FAILED.search(done.stdout + "\n" + done.stderr)
    return int(failed[1]) if failed and done.rc != 0 else done.rc


def _succeeded(name: str, verb: str, done: Completed) -> Completed:
    if _error(done) == _NO_SUCH_SERVICE:
        raise FarmNodeError(
            "service",
            f"there is no service {name}; install Backburner and run its serversvc.exe -i and managersvc.exe -i.",
        )
    if done.rc != 0:
        raise FarmNodeError("service", f"sc.exe {verb} {name} ended with {done.rc}: {done.text}")
    return done
