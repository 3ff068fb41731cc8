"""Where the facts come from: the metadata service, the task list, Backburner's log, the manager's port."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from farmnode import jobs, manager
from farmnode.clock import Clock
from farmnode.metadata import MetadataClient
from farmnode.programs import Programs
from farmnode.report import Log
from farmnode.watch_rules import Facts, Limits, Sample

#: A notice comes two minutes ahead (EC2 User Guide, "Spot Instance interruption notices").
_NOTICE_SECONDS: Final = 120.0
#: The task list shows whole seconds.
_SECOND: Final = 1.0
#: Of one processor: a program that only waits behind a dialog needs less, one that renders much more.
_STALE_SHARE: Final = 0.05
_INTERRUPTION: Final = "meta-data/spot/instance-action"
_REBALANCE: Final = "meta-data/events/recommendations/rebalance"


class Ask(Protocol):
    """The one thing that is asked of the metadata service."""

    def get(self, path: str) -> bytes | None: ...


class FactsOfNode:
    """Looks at one node. A source that fails is logged once and counts as silent until it answers again."""

    def __init__(
        self,
        *,
        clock: Clock,
        programs: Programs,
        log: Log,
        limits: Limits,
        manager_at: tuple[str, int],
        job_log: Path | None,
        metadata: Ask | None = None,
    ) -> None:
        self._clock = clock
        self._programs = programs
        self._log = log
        self._limits = limits
        self._manager_at = manager_at
        self._job_log = job_log
        # One try each time: the next one comes in a few seconds anyway.
        self._metadata = metadata or MetadataClient(clock, limit=0.0, timeout=1.0)
        self._spot: bool | None = None
        self._next_sample = clock.monotonic()
        self._before: tuple[float, dict[int, jobs.Process], int] | None = None
        self._broken: set[str] = set()

    def now(self) -> Facts:
        """The facts of this moment, with a look at the machine when one is due."""
        taken_in, rebalance = self._notices()
        now = self._clock.monotonic()
        sample = None
        if now >= self._next_sample:
            self._next_sample = now + self._limits.sample
            sample = self._sample(now)
        return Facts(now, taken_in, rebalance, sample)

    def _notices(self) -> tuple[float | None, bool]:
        """Seconds until EC2 takes the machine, and whether it advises to leave. On-demand machines hear neither."""
        try:
            if self._spot is None:
                self._spot = self._metadata.get("meta-data/instance-life-cycle") == b"spot"
            if not self._spot:
                return None, False
            notice, advice = self._metadata.get(_INTERRUPTION), self._metadata.get(_REBALANCE)
        except Exception as error:  # whatever it is: no other fact may be lost by it
            self._silent("metadata service", error)
            return None, False
        self._answers("metadata service")
        return (None if notice is None else seconds_left(notice, self._clock.now())), advice is not None

    def _sample(self, now: float) -> Sample:
        answers = manager.listens(*self._manager_at, timeout=2.0)
        try:
            processes = {process.number: process for process in jobs.listed(self._programs)}
        except Exception as error:  # as above
            self._silent("task list", error)
            # Nothing is known against the node: only its deadline, the manager and EC2 may end it.
            return Sample(job=True, load=None, progress=True, manager=answers)
        self._answers("task list")
        size = _size(self._job_log)
        before, self._before = self._before, (now, processes, size)
        job = any(process.of_job for process in processes.values())
        if before is None:
            return Sample(job, None, progress=True, manager=answers)
        then, known, old_size = before
        used = {number: process.seconds - _seconds(known, process) for number, process in processes.items()}
        elapsed = max(now - then, 0.001)
        computed = sum(used[number] for number, process in processes.items() if process.of_job)
        progress = computed > max(_SECOND, _STALE_SHARE * elapsed) or size != old_size
        return Sample(job, sum(used.values()) / elapsed / (os.cpu_count() or 1), progress, answers)

    def _silent(self, source: str, error: Exception) -> None:
        if source not in self._broken:
            self._broken.add(source)
            self._log.error(f"the {source} does not answer: {str(error) or type(error).__name__}")

    def _answers(self, source: str) -> None:
        if source in self._broken:
            self._broken.discard(source)
            self._log.info(f"the {source} answers again")


def _size(log: Path | None) -> int:
    """Bytes in ``log``; 0 when there is none, or Backburner moves it away at this moment."""
    try:
        return log.stat().st_size if log is not None else 0
    except OSError:
        return 0


def _seconds(known: dict[int, jobs.Process], process: jobs.Process) -> float:
    """Processor time that ``process`` had used at the look before; Windows gives numbers of ended ones away again."""
    before = known.get(process.number)
    return before.seconds if before is not None and before.image == process.image else 0.0


def seconds_left(notice: bytes, now: float) -> float:
    """Seconds from ``now`` (since 1970) to the time in a notice such as ``{"action": "terminate", "time": "…Z"}``.

    Between 0 and two minutes whatever the machine's clock says; 0 for a notice that is not understood, for whatever it
    says, it is one.
    """
    try:
        time = datetime.strptime(json.loads(notice)["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, KeyError, TypeError):
        return 0.0
    return min(max(time - now, 0.0), _NOTICE_SECONDS)
