"""The machine that farmnode works on: everything outside of the process, in one place that tests can replace."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from farmnode import paths
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError, writing_failed
from farmnode.forwarding import Forwarding
from farmnode.metadata import MetadataClient
from farmnode.programs import Programs
from farmnode.report import Log, Serial
from farmnode.routes import RouteTable
from farmnode.services import Services
from farmnode.state import State

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
        self.state = State(self.folder)
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
        """No other farmnode changes this machine meanwhile. The lock goes with the process, however it ends."""
        path = self.folder / "farmnode.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise writing_failed(error, paths.shown(path)) from error
        with file:
            if not self.clock.wait(lambda: _locked(file), limit):
                raise FarmNodeError(
                    "busy",
                    f"another farmnode holds {paths.shown(path)} for more than {limit:g} seconds; "
                    f"see {paths.shown(self.log.path)}, end that process and try again.",
                )
            yield


def _locked(file: BinaryIO) -> bool:
    try:
        _try_lock(file)
    except OSError:
        return False
    return True
