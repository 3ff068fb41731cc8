"""The machine that farmnode works on: everything outside of the process, in one place that tests can replace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from farmnode import lock, paths
from farmnode.clock import Clock
from farmnode.forwarding import Forwarding
from farmnode.metadata import MetadataClient
from farmnode.programs import Programs
from farmnode.report import Log, Serial
from farmnode.routes import RouteTable
from farmnode.services import Services
from farmnode.state import State


class Machine:
    """Programs, clock, memory and voice of one machine."""

    def __init__(
        self,
        *,
        programs: Programs | None = None,
        clock: Clock | None = None,
        metadata: MetadataClient | None = None,
        folder: Path | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.programs = programs or Programs()
        self.metadata = metadata or MetadataClient(self.clock)
        self.folder = folder or paths.state_folder()
        self.state = State(self.folder, self.clock)
        self.log = Log(self.folder / "farmnode.log", self.clock)
        self.serial = Serial(self.folder, self.programs, self.log, self.clock)
        self.services = Services(self.programs, self.clock)
        self.route_table = RouteTable(self.programs)
        self.forwarding = Forwarding(self.programs)

    @property
    def computer_name(self) -> str:
        return paths.environment("COMPUTERNAME")

    def shut_down(self) -> None:
        """Power off now, whatever still runs; EC2 ends the instance when its shutdown behaviour says so."""
        self.programs.check("shutdown.exe", ["/s", "/f", "/t", "0"])

    @contextlib.contextmanager
    def alone(self, *, limit: float = 90.0) -> Iterator[None]:
        """No other farmnode changes this machine meanwhile."""
        with lock.held(self.folder / "farmnode.lock", self.clock, limit):
            yield
