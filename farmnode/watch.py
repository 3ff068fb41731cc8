r"""After the boot: a machine looks after itself until it ends.

A render node follows `farmnode.watch_rules`; the manager has duties of its own (`farmnode.watch_manager`).  It is the
second action of the startup task, after ``farmnode boot``: the boot's process, which may need much, is gone.  A node
whose boot failed, or was cut, has one rule only: it ends, however often Windows refuses.

A watch is a daemon: its loops have no last turn, for a machine that nobody watches costs money until somebody looks.
What is bounded is their pace, and how long a node may go without a turn that works (`_BLIND_SECONDS`).

``watch.json`` in ``C:\ProgramData\RenderFarm``: ``event`` (what was last said, ``working`` at first), ``since`` (UTC),
``reason``, ``job`` (whether a job's process runs).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from farmnode import farm, files, jobs, leaving, manager, paths, services, watch_rules
from farmnode.attempts import Attempts
from farmnode.errors import FarmNodeError
from farmnode.farm import Farm
from farmnode.machine import Machine
from farmnode.watch_facts import FactsOfNode
from farmnode.watch_rules import Action, End, Event, Leave, Report, Restart, StayStopped

#: In farmnode's folder.
NOTE: Final = "watch.json"

#: Seconds between two attempts to begin.
_START_PAUSE: Final = 5.0
#: A node that cannot look after itself for so many seconds ends: as long as it goes without its manager by default.
_BLIND_SECONDS: Final = 900.0
#: Seconds between two attempts to shut down.
_ENDING_PAUSE: Final = 30.0
#: What part of a turn's period is always slept: work that takes longer than the period must not become a busy loop.
_REST: Final = 1 / 8

#: Looks after the machine; returns what was said last.
Runner = Callable[[], dict[str, Any]]


def watch(machine: Machine) -> dict[str, Any]:
    """Look after this machine. Returns when it is to end, or when there is nothing to watch; ``event`` says which.

    Nothing that goes wrong is raised: what fails is logged once for each reason and tried again every few seconds.
    """
    start, attempts = _Start(machine), Attempts(machine.log)
    while (failure := attempts.do("start of the watch", start.begin)) is not None:
        if start.may_end and machine.clock.monotonic() - start.began >= _BLIND_SECONDS:
            return start.end("watch", failure)
        machine.clock.sleep(_START_PAUSE)
    return start.run()


class _Start:
    """Finds out what is to be watched. `begin` may be tried again; what it found stays."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.began = machine.clock.monotonic()
        self._boot: dict[str, Any] = {}
        self._role: str | None = None
        self.run: Runner = self._nothing

    @property
    def may_end(self) -> bool:
        """May this machine end itself, by the same rule as after a failed boot? Without a role nobody will use it."""
        return self._role is None or self._role in farm.ROLES_THAT_END

    def begin(self) -> None:
        """Set ``run``; whatever stands in the way is raised."""
        machine = self._machine
        try:
            memory = machine.state.load()
        except FarmNodeError:
            self._role = self._role or role_told(machine)  # a manager without memory must not be ended
            raise
        boot = memory.get("boot")
        self._boot = boot if isinstance(boot, dict) else {}
        event = self._boot.get("event", "none")
        for role in (self._boot.get("role"), memory.get("role")):
            if self._role is None and role in farm.ROLES:
                self._role = role
        if self._role is None and event == "booting":
            self._role = role_told(machine)
        if self._role == "manager":
            # Here, because a node needs none of it, and is to stay small.
            from farmnode.watch_manager import ManagerWatch

            self.run = ManagerWatch(machine, told(machine), self._boot).run
        elif event == "none" or not self.may_end:
            self.run = self._nothing
        elif event == "ready":
            self.run = NodeWatch(machine, told(machine), self._boot, self.began).run
        elif event == "failed":
            self.run = self._shut_down
        else:
            self.run = self._cut

    def _nothing(self) -> dict[str, Any]:
        return {"event": "nothing_to_watch", "role": self._role, "boot": self._boot.get("event", "none")}

    def _shut_down(self) -> dict[str, Any]:
        """The boot said that it failed and asked for this already: where Windows did it, it refuses once more."""
        leaving.shut_down(self._machine, _ENDING_PAUSE)
        return {"event": "failed", "role": self._role, "reason": self._boot.get("reason")}

    def _cut(self) -> dict[str, Any]:
        phase = str(self._boot.get("phase", "metadata"))
        text = f"farmnode boot was ended in its phase {phase}; see {paths.shown(self._machine.log.path)}."
        return self.end(phase, FarmNodeError("cut", text))

    def end(self, phase: str, failure: FarmNodeError) -> dict[str, Any]:
        """Say that this node is of no use, and end it."""
        return end(self._machine, self._boot | ({"role": self._role} if self._role else {}), phase, failure, self.began)


def end(machine: Machine, boot: dict[str, Any], phase: str, failure: FarmNodeError, began: float) -> dict[str, Any]:
    """End a node that ``failure`` made useless: last words, no ghost on the manager's list, power off.

    ``began`` is when the watch did, by the monotonic clock. Returns what was said.
    """
    said = _words(machine, "failed", boot, began)
    said |= {"phase": phase, "code": failure.reason, "reason": failure.message}
    machine.serial.say(said)
    write_note(machine, {"event": "failed", "since": machine.clock.stamp(), "reason": failure.message, "job": None})
    if "mac" in boot:  # else it has not got so far as to register

        def leave() -> None:
            where = told(machine)
            leaving.leave(machine, str(where.manager), where.manager_port, handle_of(boot))

        Attempts(machine.log).do("list of servers", leave)
    leaving.shut_down(machine, _ENDING_PAUSE)
    return said


def _words(machine: Machine, event: str, boot: dict[str, Any], began: float) -> dict[str, Any]:
    """``event`` with what is known of this machine."""
    clock = machine.clock
    said: dict[str, Any] = {"event": event, "version": 1, "time": clock.stamp()}
    said |= {key: boot[key] for key in ("instance", "role", "name", "mac", "address") if key in boot}
    return said | {"seconds": round(clock.monotonic() - began, 3)}


def handle_of(boot: dict[str, Any]) -> str:
    """By which the manager lists a machine that has booted."""
    return str(boot["mac"]).replace(":", "").upper() + "0000"


def role_told(machine: Machine) -> str:
    """The role that EC2 tells, for a machine that does not remember one."""
    instance = machine.metadata.instance()
    return farm.decide_role(farm.parse_user_data(instance.user_data), instance.role_tag, instance.address)


def told(machine: Machine) -> Farm:
    """What the farm says in the user data."""
    found = farm.parse_user_data(machine.metadata.instance().user_data)
    if found is None or found.manager is None:
        raise FarmNodeError("bad_user_data", "the user data has no <farm> part that names the manager.")
    return found


class NodeWatch:
    """The watch of one render node; its deadline counts from ``began``, on the monotonic clock."""

    def __init__(
        self, machine: Machine, told: Farm, boot: dict[str, Any], began: float, facts: FactsOfNode | None = None
    ) -> None:
        self._machine = machine
        self._limits = told.watch
        self._boot = boot
        self._handle = handle_of(boot)
        self._manager_at = (manager.resolve(str(told.manager)), told.manager_port)
        xml = machine.state.load().get("backburner_xml")
        self._facts = facts or FactsOfNode(
            clock=machine.clock,
            programs=machine.programs,
            log=machine.log,
            limits=self._limits,
            manager_at=self._manager_at,
            job_log=log_beside(xml) if isinstance(xml, str) else None,
        )
        self._began = began
        self._state = replace(watch_rules.begin(machine.clock.monotonic()), began=began)
        self._attempts = Attempts(machine.log)
        self._over = False
        self._last: dict[str, Any] = {}
        self._noted: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Watch until the machine is told to shut down; returns what was said last.

        Nothing that goes wrong ends the watch but by ending the machine. A turn begins every ``notice`` seconds,
        whatever the one before took, so that EC2's notice of two minutes is seen in time.
        """
        clock, period = self._machine.clock, self._limits.notice
        self._note(Event.WORKING, "", None)
        worked = clock.monotonic()
        while True:
            begun = clock.monotonic()
            failure = self._attempts.do("watch", self._turn)
            if self._over:
                return self._last
            if failure is None:
                worked = begun
            elif clock.monotonic() - worked >= _BLIND_SECONDS:
                return end(self._machine, self._boot, "watch", failure, self._began)
            clock.sleep(max(period - (clock.monotonic() - begun), period * _REST))

    def _turn(self) -> None:
        """Look, judge, act."""
        facts = self._facts.now()
        self._state, actions = watch_rules.step(self._state, facts, self._limits)
        for action in actions:
            self._perform(action)
        if not self._over and self._state.job != self._noted["job"]:
            self._note(self._noted["event"], self._noted["reason"], self._state.job)

    def _perform(self, action: Action) -> None:
        match action:
            case Report(event, reason):
                self._say(event, reason)
            case Restart(event, reason):
                self._say(event, reason)
                self._stop_work_for_good()
                self._attempts.do("start", lambda: self._machine.services.start(services.SERVER))
            case Leave(event, reason):
                stopped = self._stop_work()
                self._say(event, reason)  # EC2 may not wait for a second stop
                if not stopped:
                    self._stop()
                if event is not Event.MANAGER_GONE:  # then there is no list to be taken off
                    self._take_off()
            case StayStopped():
                self._attempts.do("quarantine", self._stay_stopped)
            case End():
                leaving.shut_down(self._machine, self._limits.sample)
                self._over = True

    def _stop_work(self) -> bool:
        """Stop the service, by which the manager gets the frame back, and end what it leaves behind.

        False when the service has not stopped: one that waits for a hung program stops when it is told once more.
        """
        machine = self._machine
        machine.log.info(f"stopping {services.SERVER}")
        stopped = self._stop()
        self._attempts.do("jobs", lambda: jobs.end(machine.programs, machine.log))
        return stopped

    def _stop_work_for_good(self) -> None:
        if not self._stop_work():
            self._stop()

    def _stop(self) -> bool:
        return self._attempts.do("stop", lambda: self._machine.services.stop(services.SERVER)) is None

    def _stay_stopped(self) -> None:
        """In quarantine: a service that could not be stopped, or that somebody started, takes frames again."""
        if self._machine.services.state(services.SERVER) != services.STOPPED:
            self._machine.log.error(f"{services.SERVER} runs in quarantine")
            self._stop_work_for_good()
            self._take_off()

    def _take_off(self) -> None:
        leave = lambda: leaving.take_off(self._machine, *self._manager_at, self._handle)  # noqa: E731
        self._attempts.do("list of servers", leave)

    def _say(self, event: Event, reason: str) -> None:
        self._last = _words(self._machine, str(event), self._boot, self._began) | {"reason": reason}
        self._machine.serial.say(self._last)
        self._note(event, reason, self._noted.get("job"))

    def _note(self, event: Event, reason: str, job: bool | None) -> None:
        self._noted = {"event": str(event), "since": self._machine.clock.stamp(), "reason": reason, "job": job}
        write_note(self._machine, self._noted)


def write_note(machine: Machine, note: dict[str, Any]) -> None:
    """Remember ``note`` in watch.json. A full disk must not keep a machine from looking after itself."""
    try:
        files.write(machine.folder / NOTE, (json.dumps(note, indent=1) + "\n").encode("ascii"))
    except (FarmNodeError, OSError) as error:
        machine.log.error(str(error))


def read_note(machine: Machine) -> dict[str, Any] | None:
    """What was noted last; None before the watch began, or when the note cannot be read."""
    try:
        found = json.loads((machine.folder / NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def log_beside(xml: str) -> Path:
    """Backburner's log, which is in the folder of its settings."""
    return paths.real(xml).with_name("backburner.log")
