"""Time, in one place so that tests can turn it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """The machine's clocks: ``now`` for people, ``monotonic`` for limits. Both in seconds."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def processor(self) -> float:
        """Processor time that this process has used since its start, its imports included."""
        return time.process_time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def stamp(self) -> str:
        """The time as ISO 8601 in UTC with milliseconds."""
        return datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def wait(self, ready: Callable[[], bool], limit: float, *, first: float = 0.1, most: float = 2.0) -> bool:
        """Ask ``ready`` until it says yes or ``limit`` seconds have passed; the pause between two questions doubles."""
        end = self.monotonic() + limit
        pause = first
        while not ready():
            left = end - self.monotonic()
            if left <= 0:
                return False
            self.sleep(min(pause, left))
            pause = min(pause * 2, most)
        return True
