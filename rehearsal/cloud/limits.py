"""Token buckets: how many requests EC2 takes, and how many instances they may be about.

Numbers: EC2 Developer Guide, "Request throttling for the Amazon EC2 API", (most tokens, tokens per second). That each
action has its own bucket of requests, and that fleets take from the bucket of RunInstances, is a guess: the document
lists neither.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Rate = tuple[float, float]

READING: Rate = (100, 20)
READING_EVERYTHING: Rate = (50, 10)  # neither filtered nor in pages nor by identifier
CHANGING: Rate = (50, 5)
REQUESTS: Mapping[str, Rate] = {
    "CopyImage": (100, 1),
    "CreateLaunchTemplateVersion": (100, 5),
    "CreateSnapshot": (100, 5),
    "CreateTags": (100, 10),
    "CreateVolume": (100, 5),
    "DeleteSnapshot": (100, 5),
    "DeleteTags": (100, 10),
    "DeregisterImage": (100, 5),
    "EnableFastLaunch": (5, 2),
    "ModifyInstanceMetadataOptions": (100, 5),
    "RunInstances": (5, 2),
    "StartInstances": (5, 2),
    "TerminateInstances": (100, 5),
}
RESOURCES: Mapping[str, Rate] = {
    "RunInstances": (1000, 2),
    "StartInstances": (1000, 2),
    "StopInstances": (1000, 20),
    "TerminateInstances": (1000, 20),
}
_READS = ("Describe", "Get", "List", "Search")
_NARROWED = re.compile(r"(Filter|MaxResults|NextToken|[A-Za-z]+Id(s)?\.\d+)")


@dataclass
class Bucket:
    """Holds at most ``most`` tokens and gets ``per_second`` new ones."""

    most: float
    per_second: float
    tokens: float
    time: float

    def holds(self, number: float, now: float) -> bool:
        self.tokens = min(self.most, self.tokens + (now - self.time) * self.per_second)
        self.time = now
        return self.tokens >= number


class Limits:
    """Says which EC2 requests are too many. Off until :meth:`start`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._level: float | None = None
        self._buckets: dict[str, Bucket] = {}

    def start(self, level: float) -> None:
        """Count from now on; ``level`` (0 to 1) is how full the buckets are at first."""
        with self._lock:
            self._level = level
            self._buckets.clear()
            for action, rate in RESOURCES.items():
                self._bucket(f"instances {action}", rate)

    def stop(self) -> None:
        with self._lock:
            self._level = None

    def refuses(self, action: str, form: Mapping[str, str]) -> bool:
        """Whether the request is too much now. If not, its tokens are taken."""
        with self._lock:
            if self._level is None:
                return False
            now = self._clock()
            wanted = [(self._bucket(f"requests {action}", request_rate(action, form)), 1.0)]
            kind = "RunInstances" if action == "CreateFleet" else action
            if kind in RESOURCES:
                wanted.append((self._bucket(f"instances {kind}", RESOURCES[kind]), resources(action, form)))
            if not all(bucket.holds(number, now) for bucket, number in wanted):
                return True
            for bucket, number in wanted:
                bucket.tokens -= number
            return False

    def _bucket(self, name: str, rate: Rate) -> Bucket:
        if name not in self._buckets:
            most, per_second = rate
            self._buckets[name] = Bucket(most, per_second, most * (self._level or 0.0), self._clock())
        return self._buckets[name]


def request_rate(action: str, form: Mapping[str, str]) -> Rate:
    """The bucket of requests of an action."""
    if action in REQUESTS:
        return REQUESTS[action]
    if not action.startswith(_READS):
        return CHANGING
    return READING if any(_NARROWED.match(name) for name in form) else READING_EVERYTHING


def resources(action: str, form: Mapping[str, str]) -> float:
    """How many instances a request is about."""
    if action == "CreateFleet":
        return float(form.get("TargetCapacitySpecification.TotalTargetCapacity", 0))
    if action == "RunInstances":
        return float(form.get("MaxCount", 1))
    return float(sum(name.startswith("InstanceId.") for name in form))
