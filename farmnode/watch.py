r"""After the boot: a machine looks after itself until it ends.

A render node follows `farmnode.watch_rules`; the manager has duties of its own (`farmnode.watch_manager`).  It is the
second action of the startup task, after ``farmnode boot``: the boot's process, which may need much, is gone, and a boot
that failed leaves nothing to watch.

``watch.json`` in ``C:\ProgramData\RenderFarm``: ``event`` (what was last said, ``working`` at first), ``since`` (UTC),
``reason``, ``job`` (whether a job's process runs).
"""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any, Final

from farmnode import farm, files, jobs, leaving, manager, paths, services, watch_rules
from farmnode.errors import FarmNodeError
from farmnode.farm import Farm
from farmnode.machine import Machine
from farmnode.watch_facts import FactsOfNode
from farmnode.watch_rules import Action, End, Event, Leave, Report, Restart

#: In farmnode's folder.
NOTE: Final = "watch.json"


def watch(machine: Machine) -> dict[str, Any]:
    """Look after this machine. Returns when it is to end, or when there is nothing to watch; ``event`` says which."""
    remembered = machine.state.load()
    boot, role = remembered.get("boot", {}), remembered.get("role")
    if role == "manager":
        # Here, because a node needs none of it, and is to stay small.
        from farmnode.watch_manager import ManagerWatch

        return ManagerWatch(machine, told(machine), boot).run()
    if role in farm.ROLES_THAT_END and boot.get("event") == "ready":
        return NodeWatch(machine, told(machine), boot).run()
    return {"event": "nothing_to_watch", "role": role, "boot": boot.get("event", "none")}


def told(machine: Machine) -> Farm:
    """What the farm says in the user data."""
    found = farm.parse_user_data(machine.metadata.instance().user_data)
    if found is None or found.manager is None:
        raise FarmNodeError("bad_user_data", "the user data has no <farm> part that names the manager.")
    return found


class NodeWatch:
    """The watch of one render node."""

    def __init__(self, machine: Machine, told: Farm, boot: dict[str, Any], facts: FactsOfNode | None = None) -> None:
        self._machine = machine
        self._limits = told.watch
        self._known = {key: boot[key] for key in ("instance", "role", "name", "mac", "address") if key in boot}
        self._handle = str(boot["mac"]).replace(":", "").upper() + "0000"
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
        self._began = machine.clock.monotonic()
        self._last: dict[str, Any] = {}
        self._noted: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Watch until the machine is told to shut down; returns what was said last.

        Nothing that goes wrong ends the watch: a node that nobody watches costs money until somebody looks.
        """
        clock = self._machine.clock
        state = watch_rules.begin(self._began)
        self._note(Event.WORKING, "", None)
        while True:
            facts = self._facts.now()
            state, actions = watch_rules.step(state, facts, self._limits)
            for action in actions:
                if self._perform(action):
                    return self._last
            if state.job != self._noted["job"]:
                self._note(self._noted["event"], self._noted["reason"], state.job)
            clock.sleep(self._limits.notice)

    def _perform(self, action: Action) -> bool:
        """Do it; True when the machine shuts down."""
        try:
            match action:
                case Report(event, reason):
                    self._say(event, reason)
                case Restart(event, reason):
                    self._say(event, reason)
                    self._stop_work()
                    self._machine.services.start(services.SERVER)
                case Leave(event, reason):
                    self._leave(event, reason)
                case End():
                    return self._shut_down()
        except FarmNodeError as error:
            self._machine.log.error(f"{type(action).__name__.lower()}: {error.message}")
        except Exception:
            self._machine.log.error(traceback.format_exc())
        return False

    def _leave(self, event: Event, reason: str) -> None:
        try:
            self._stop_work()
        except FarmNodeError as error:
            self._machine.log.error(error.message)
        self._say(event, reason)
        if event is not Event.MANAGER_GONE:  # then there is no list to be taken off
            leaving.take_off(self._machine, *self._manager_at, self._handle)

    def _stop_work(self) -> None:
        """Stop the service, by which the manager gets the frame back, and end what it leaves behind."""
        self._machine.log.info(f"stopping {services.SERVER}")
        try:
            self._machine.services.stop(services.SERVER)
        finally:
            jobs.end(self._machine.programs, self._machine.log)

    def _shut_down(self) -> bool:
        self._machine.log.info("shutting down")
        while True:
            try:
                self._machine.shut_down()
            except FarmNodeError as error:
                self._machine.log.error(error.message)
                self._machine.clock.sleep(self._limits.sample)
            else:
                return True

    def _say(self, event: Event, reason: str) -> None:
        clock = self._machine.clock
        said: dict[str, Any] = {"event": str(event), "version": 1, "time": clock.stamp()}
        self._last = said | self._known | {"seconds": round(clock.monotonic() - self._began, 3), "reason": reason}
        self._machine.serial.say(self._last)
        self._note(event, reason, self._noted.get("job"))

    def _note(self, event: Event, reason: str, job: bool | None) -> None:
        self._noted = {"event": str(event), "since": self._machine.clock.stamp(), "reason": reason, "job": job}
        write_note(self._machine, self._noted)


def write_note(machine: Machine, note: dict[str, Any]) -> None:
    """Remember ``note`` in watch.json. A full disk must not keep a machine from looking after itself."""
    try:
        files.write(machine.folder / NOTE, (json.dumps(note, indent=1) + "\n").encode("ascii"))
    except FarmNodeError as error:
        machine.log.error(error.message)


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
