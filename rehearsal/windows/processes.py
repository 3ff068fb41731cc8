"""Processes of a host that come and go below a service: what ``tasklist`` shows of them and ``taskkill`` ends."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_FIRST_NUMBER = 5000

NORMAL_PRIORITY_CLASS = 0x20
BELOW_NORMAL_PRIORITY_CLASS = 0x4000
PRIORITIES = {NORMAL_PRIORITY_CLASS: 8, BELOW_NORMAL_PRIORITY_CLASS: 6}
"""Priority classes that are modelled -> base priority (Windows documentation, "Scheduling Priorities")."""


@dataclass
class Process:
    """One process. Its program computes on ``processors`` processors until it hangs."""

    image: str
    number: int
    began: float
    processors: int
    hung: float | None = None
    """When it stopped to compute."""
    priority: int = NORMAL_PRIORITY_CLASS

    def seconds(self, now: float) -> float:
        """Processor time since its start."""
        return ((self.hung if self.hung is not None else now) - self.began) * self.processors


@dataclass
class Running:
    """Programs that were started together; the last of them does the work."""

    processes: list[Process]
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    killed: bool = False

    async def responds(self) -> None:
        """Return at once, or, when the programs hang, when they are killed or go on; ChildProcessError if killed."""
        await self.answers.wait()
        if self.killed:
            raise ChildProcessError("the renderer was ended")


class Processes:
    """What runs on a host besides its services' own programs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._numbers = itertools.count(_FIRST_NUMBER, 4)
        self._running: list[Running] = []

    @contextmanager
    def shown(self, images: Sequence[str], parent: int = NORMAL_PRIORITY_CLASS) -> Iterator[Running]:
        """Programs that run for as long as the context lasts; those that hang stay behind until they are killed.

        ``parent`` is the priority class of what starts them: below normal is handed on (CreateProcess).
        """
        now = self._clock()
        work = os.cpu_count() or 1
        processes = [Process(image, next(self._numbers), now, work if image == images[-1] else 0) for image in images]
        for process in processes:
            process.priority = parent
        running = Running(processes)
        running.answers.set()
        self._running.append(running)
        try:
            yield running
        finally:
            if all(process.hung is None for process in processes) and running in self._running:
                self._running.remove(running)

    def all(self) -> list[Process]:
        return [process for running in self._running for process in running.processes]

    def seconds(self, process: Process) -> float:
        return process.seconds(self._clock())

    def hang(self) -> int:
        """Let everything that runs now hang; how many processes that are."""
        for running in self._running:
            running.answers.clear()
        for process in self.all():
            process.hung = process.hung if process.hung is not None else self._clock()
        return len(self.all())

    def go_on(self) -> None:
        """Let hung programs go on as if nothing had been."""
        for running in self._running:
            for process in running.processes:
                process.hung = None
            running.answers.set()

    def kill(self, image: str) -> list[int]:
        """End every process of that name; their numbers. What they worked on fails."""
        ended = []
        for running in list(self._running):
            for process in list(running.processes):
                if process.image.lower() == image.lower():
                    ended.append(process.number)
                    running.killed = True
                    running.processes.remove(process)
            if running.killed:
                running.answers.set()
            if not running.processes:
                self._running.remove(running)
        return ended

    def power_off(self) -> None:
        self._running.clear()
