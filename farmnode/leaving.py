"""A machine that leaves takes its entry off the manager's list, so that no ghost server stays there.

What cannot be done here, because the manager does not answer, the manager does later (`farmnode.watch_manager`).
"""

from __future__ import annotations

from typing import Final

from farmnode import manager, services
from farmnode.attempts import Attempts
from farmnode.errors import FarmNodeError
from farmnode.machine import Machine

#: Seconds that a manager may take to see that a server is gone: a notice of EC2 leaves two minutes for everything.
_GHOST_SECONDS: Final = 40.0


def leave(machine: Machine, name: str, port: int, handle: str) -> None:
    """Stop Backburner's server, and take ``handle`` off the list of the manager ``name``, if it answers.

    Nothing that goes wrong keeps the machine up: it is logged.
    """
    attempts = Attempts(machine.log)
    attempts.do("stop", lambda: machine.services.stop(services.SERVER))  # the manager deletes only who is absent

    def off() -> None:
        address = manager.resolve(name)
        if manager.listens(address, port):
            take_off(machine, address, port, handle)
        else:
            machine.log.error(f"{handle} may stay on the manager's list: nothing answers at {address}")

    attempts.do("list of servers", off)


def shut_down(machine: Machine, pause: float) -> None:
    """Shut the machine down; where Windows refuses, ask again every ``pause`` seconds for as long as there is power.

    This does not end by itself because nobody is left to end the machine, and each hour of it costs.
    """
    machine.log.info("shutting down")
    attempts = Attempts(machine.log)
    while attempts.do("shutdown", machine.shut_down) is not None:
        machine.clock.sleep(pause)


def take_off(machine: Machine, address: str, port: int, handle: str) -> None:
    """Delete ``handle`` as soon as the manager calls it absent. The service must not run. What goes wrong is logged."""
    problem = "it is not absent yet"

    def gone() -> bool:
        nonlocal problem
        try:
            return _off_the_list(machine, address, port, handle)
        except FarmNodeError as error:
            problem = error.message
            return False

    if machine.clock.wait(gone, _GHOST_SECONDS, first=0.5):
        machine.log.info(f"{handle} is not on the manager's list")
    else:
        machine.log.error(f"{handle} stays on the manager's list: {problem}")


def _off_the_list(machine: Machine, address: str, port: int, handle: str) -> bool:
    """Whether the manager lists ``handle`` no more; an absent entry is deleted."""
    states = [entry.state for entry in manager.servers(address, port, machine.clock) if entry.handle == handle]
    if states == [manager.ABSENT]:
        manager.delete(address, port, handle, machine.clock)
        return True
    return not states
