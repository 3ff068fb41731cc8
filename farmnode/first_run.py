"""Having Backburner write its ``backburner.xml``: its services run once.

"Created or updated automatically when manager, server or monitor runs", and "to restore the default settings, delete
backburner.xml" (3ds Max Help, "backburner.xml"; Creative Finishing training guide).  One file holds the parts of all
of them; each adds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from farmnode import services
from farmnode.errors import FarmNodeError
from farmnode.machine import Machine


def run_services(machine: Machine, names: Iterable[str], problem: Callable[[], FarmNodeError | None]) -> None:
    """Run the services until ``problem`` finds none with the file, then stop those that did not run before.

    FarmNodeError when the file is not right within the time that a service may take.
    """
    started = [name for name in names if machine.services.describe(name) != "running"]
    for name in started:
        machine.log.info(f"starting {name}, so that it writes its part of backburner.xml")
        machine.services.start(name)
    try:
        if not machine.clock.wait(lambda: problem() is None, machine.services.limit):
            raise problem() or FarmNodeError("service", "backburner.xml came too late; run it again.")
    finally:
        for name in reversed(started):
            machine.services.stop(name)


def make_file(machine: Machine, problem: Callable[[], FarmNodeError | None]) -> None:
    """Let the server write the file that is missing, and the manager too where that is not all.

    No machine registers as another one by that: a file that Backburner makes anew carries the machine's own identity.
    """
    try:
        run_services(machine, [services.SERVER], problem)
    except FarmNodeError as error:
        if error.reason != "missing_element":
            raise
        run_services(machine, [services.SERVER, services.MANAGER], problem)
