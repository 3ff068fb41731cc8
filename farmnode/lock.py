"""A file that one process at a time holds. The lock goes with its process, however it ends."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from farmnode import paths
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError, writing_failed

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def held(path: Path, clock: Clock, limit: float) -> Iterator[None]:
    """Hold ``path``, whose folder is made when missing.

    FarmNodeError ``busy`` when another one holds it for more than ``limit`` seconds. Who holds it already, by an outer
    ``held`` of the same process, waits for itself.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise writing_failed(error, paths.shown(path)) from error
    with file:
        if not clock.wait(lambda: _locked(file), limit):
            raise FarmNodeError(
                "busy",
                f"another farmnode holds {paths.shown(path)} for more than {limit:g} seconds; "
                f"see farmnode.log beside it, end that process and try again.",
            )
        yield


def _locked(file: BinaryIO) -> bool:
    try:
        _try_lock(file)
    except OSError:
        return False
    return True
