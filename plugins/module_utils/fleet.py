# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many machines of one role a farm has, and the calls to EC2 that make it the wished number.

The first half are pure functions over plain dictionaries, the second half is ``Fleet``, which talks to a client that
the caller hands in (boto3's, or a test's).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from .aws_errors import error_code, remedy

TAG_FARM = "renderfarm:farm"
TAG_ROLE = "renderfarm:role"
ROLES = ("manager", "render_node", "remote_node", "builder")
FILTER_VALUES = 200  # values of one filter (EC2 API Reference, "Filter")

Lifecycle = Literal["spot", "on-demand"]
T = TypeVar("T")

# The most instances per CreateFleet and ids per TerminateInstances that EC2 takes in one go (EC2 API Reference,
# CreateFleet: MinTargetCapacity; TerminateInstances).
BATCH = 1000
# DescribeInstances gives at most so many in one answer (EC2 API Reference, DescribeInstances).
PAGE_SIZE = 1000
# A pool without capacity is asked again after so many seconds ("wait a few minutes", EC2 User Guide, "Insufficient
# instance capacity"), and not before.
BACKOFF_SECONDS = 180
# A repeat within this many seconds gets the same client token, so that it cannot launch twice. Later the instances of
# the first try are listed by their tags and change the token anyway.
TOKEN_SECONDS = 180
# How long an instance may be unknown to DescribeInstances after it was launched (EC2 is eventually consistent).
UNKNOWN_SECONDS = 60.0
# A list that may lack instances that were just launched counts when it stays the same for so many seconds.
SETTLED_SECONDS = 3.0
# When a token is that young, an earlier try may have had the token before, and its instances may not be listed yet.
YOUNG_TOKEN_SECONDS = 15.0
# Seconds after a DescribeInstances that was refused: its bucket refills by 20 in each (EC2 Developer Guide, "Request
# throttling").
DESCRIBE_PAUSE = 1.0
# How long EC2 may refuse one request after the other for being too many, before that is an error.
THROTTLED_SECONDS = 300.0

# What CreateFleet of type instant can tag (EC2 API Reference, CreateFleet, TagSpecifications).
_TAGGED = ("fleet", "instance", "volume", "network-interface")
_ALIVE = ("pending", "running")
_ENDING = ("shutting-down", "terminated")
_THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException"})
# Trouble of pools that may be over after the back-off. Of all others (quota, price, not offered) waiting does not help.
_PASSING = frozenset(
    {"InsufficientInstanceCapacity", "InsufficientCapacity", "InsufficientHostCapacity", "UnfulfillableCapacity"}
)

# Errors of CreateFleet as a whole that mean "not now, not here" and not "you asked for something wrong": the next way
# (on-demand) may still work. EC2 API Reference, "Error codes for the Amazon EC2 API".
_NO_CAPACITY = _PASSING | frozenset(
    {
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "VcpuLimitExceeded",
        "InstanceLimitExceeded",
        "InsufficientFreeAddressesInSubnet",
        "Unsupported",
    }
)


class FleetError(Exception):
    """The wish cannot be fulfilled or makes no sense; the text is for the user."""


class Paginator(Protocol):
    def paginate(self, **parameters: Any) -> Iterable[Mapping[str, Any]]: ...


class Client(Protocol):
    """The part of boto3's EC2 client that is used here."""

    def get_paginator(self, operation_name: str) -> Paginator: ...
    def create_fleet(self, **parameters: Any) -> Mapping[str, Any]: ...
    def terminate_instances(self, **parameters: Any) -> Mapping[str, Any]: ...


# --------------------------------------------------------------------------------------------------------------- wishes


@dataclass(frozen=True)
class Wish:
    """What the user wants of one role: the module's options, checked.

    ``max_price`` is in USD per instance hour. ``minimum_count`` is the least number with which the run succeeds.
    ``spot_percent`` is the most of ``count`` that may be spot; ``launch_at_most`` leaves what is more to another run.
    ``idle`` are ids or MAC addresses of machines that do nothing now. ``capacity_seconds`` is how long pools without
    capacity are asked again, each ``backoff_seconds`` after it had none.
    """

    farm: str
    role: str
    count: int
    launch_template: Mapping[str, str] = field(default_factory=dict)
    instance_types: Sequence[str] = ()
    subnet_ids: Sequence[str] = ()
    spot: bool = True
    spot_percent: int = 100
    on_demand_fallback: bool = True
    max_price: float | None = None
    launch_at_most: int | None = None
    capacity_seconds: float = 0
    backoff_seconds: float = BACKOFF_SECONDS
    tags: Mapping[str, str] = field(default_factory=dict)
    remove: Literal["oldest", "newest"] = "oldest"
    idle: Sequence[str] = ()
    minimum_count: int | None = None

    @property
    def enough(self) -> int:
        """The least number of instances with which the run succeeds."""
        return self.count if self.minimum_count is None else min(self.minimum_count, self.count)


def wish_problems(wish: Wish) -> list[str]:
    """A sentence for each thing in the wish that cannot work, with what would."""
    problems = []
    if not wish.farm.strip():
        problems.append("farm is empty: name the farm, for example farm: studio")
    if wish.count < 0:
        problems.append(f"count is {wish.count}: it must be 0 or more")
    if wish.minimum_count is not None and not 0 <= wish.minimum_count <= wish.count:
        problems.append(f"minimum_count is {wish.minimum_count}: it must be between 0 and count ({wish.count})")
    if wish.count and not wish.instance_types:
        problems.append("instance_types is empty: name at least one, better ten, as in [c7i.4xlarge, c6i.4xlarge]")
    if wish.count and len(set(wish.instance_types)) != len(wish.instance_types):
        problems.append("instance_types names a type twice")
    if len(set(wish.subnet_ids)) != len(wish.subnet_ids):
        problems.append("subnet_ids names a subnet twice")
    if not 0 <= wish.spot_percent <= 100:
        problems.append(f"spot_percent is {wish.spot_percent}: it must be between 0 and 100")
    if wish.launch_at_most is not None and wish.launch_at_most < 1:
        problems.append(f"launch_at_most is {wish.launch_at_most}: it must be 1 or more")
    if wish.capacity_seconds < 0 or wish.backoff_seconds < 1:
        problems.append("capacity_timeout must be 0 or more, capacity_backoff 1 or more (seconds)")
    if wish.max_price is not None and wish.max_price <= 0:
        problems.append(f"max_price is {wish.max_price}: it must be above 0 (USD per instance hour)")
    if wish.max_price is not None and not wish.spot:
        problems.append("max_price is for spot instances only: leave it out or set spot: true")
    for key in sorted({TAG_FARM, TAG_ROLE} & set(wish.tags)):
        problems.append(f"tags may not set {key}: it comes from farm and role")
    problems += [f"tags may not set {key}: aws: is reserved by AWS" for key in wish.tags if key.startswith("aws:")]
    return problems


def instance_tags(wish: Wish) -> dict[str, str]:
    """The tags of every instance, volume and network interface that is launched for this wish."""
    name = f"{wish.farm}-{wish.role.replace('_', '-')}"
    return {"Name": name, **wish.tags, TAG_FARM: wish.farm, TAG_ROLE: wish.role}


# ------------------------------------------------------------------------------------------------------------ instances


def describe_request(farm: str, roles: Sequence[str]) -> dict[str, Any]:
    """Parameters of DescribeInstances for all instances of these roles in any state, also the terminated ones."""
    return {
        "Filters": [
            {"Name": f"tag:{TAG_FARM}", "Values": [literal(farm)]},
            {"Name": f"tag:{TAG_ROLE}", "Values": [literal(role) for role in roles]},
        ],
        "PaginationConfig": {"PageSize": PAGE_SIZE},
    }


def literal(value: str) -> str:
    """A filter value in which * and ? mean themselves (EC2 User Guide, "List and filter using the CLI and API")."""
    return "".join(f"\\{character}" if character in "\\*?" else character for character in value)


def summary(instance: Mapping[str, Any]) -> dict[str, str]:
    """What the module says about one instance. Times are ISO 8601 in UTC; what is missing is an empty text."""
    tags = {str(tag["Key"]): str(tag.get("Value", "")) for tag in instance.get("Tags", ())}
    interfaces = [
        interface
        for interface in instance.get("NetworkInterfaces", ())
        if interface.get("Attachment", {}).get("DeviceIndex", 0) == 0
    ]
    launched = instance.get("LaunchTime")
    if isinstance(launched, datetime):
        launched = launched.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "instance_id": str(instance["InstanceId"]),
        "name": tags.get("Name", ""),
        "role": tags.get(TAG_ROLE, ""),
        "type": str(instance.get("InstanceType") or ""),
        "lifecycle": str(instance.get("InstanceLifecycle") or "on-demand"),
        "zone": str(instance.get("Placement", {}).get("AvailabilityZone") or ""),
        "state": str(instance["State"]["Name"]),
        "private_ip": str(instance.get("PrivateIpAddress") or ""),
        "public_ip": str(instance.get("PublicIpAddress") or ""),
        "mac": str(interfaces[0].get("MacAddress") or "") if interfaces else "",
        "launch_time": str(launched or ""),
    }


def alive(instances: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Those that work or are about to, oldest first."""
    return _oldest_first(instance for instance in instances if instance["state"] in _ALIVE)


def not_ended(instances: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Those that still cost money, stopped ones included, oldest first."""
    return _oldest_first(instance for instance in instances if instance["state"] not in _ENDING)


def _oldest_first(instances: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    return [dict(i) for i in sorted(instances, key=lambda i: (i["launch_time"], i["instance_id"]))]


def too_many(
    instances: Sequence[dict[str, str]], count: int, remove: str, idle: Iterable[str] = ()
) -> list[dict[str, str]]:
    """The instances (given oldest first) that go when only ``count`` may stay, in the order in which they go.

    Those in ``idle`` (by id or MAC address) go before all others, so that as few frames as possible are lost.
    """
    resting = {name.lower() for name in idle}
    order = reversed(instances) if remove == "newest" else instances
    return sorted(order, key=lambda i: not {i["instance_id"], i["mac"].lower()} & resting)[
        : max(0, len(instances) - count)
    ]


class BatchSize:
    """How many to ask for at once: all that fits into a call, and fewer while EC2 refuses.

    EC2 counts instances in a token bucket for each account and Region that holds 1,000 and refills by ``per_second``
    (EC2 Developer Guide, "Request throttling"); what the bucket holds now, nobody tells. So a refused batch is halved,
    down to ``smallest``, and that is asked for as often as the bucket refills by as many.
    """

    def __init__(self, *, smallest: int, per_second: float) -> None:
        self.size = BATCH
        self._smallest = smallest
        self._per_second = per_second

    def refused(self) -> float:
        """Make it smaller. Returns the seconds to wait before the next try."""
        pause = _HALVING_PAUSE if self.size > self._smallest else self._smallest / self._per_second
        self.size = max(self.size // 2, self._smallest)
        return pause


# Seconds between a refused batch and its half: the buckets of requests refill by two and more in each of them.
_HALVING_PAUSE = 5.0


# ------------------------------------------------------------------------------------------------------------- launches


@dataclass(frozen=True)
class Pool:
    """Where EC2 takes machines from: a type in a subnet, which is empty when the launch template names it."""

    instance_type: str
    subnet_id: str

    def override(self) -> dict[str, str]:
        """The pool as CreateFleet names it."""
        return {"InstanceType": self.instance_type, **({"SubnetId": self.subnet_id} if self.subnet_id else {})}


def pools(wish: Wish) -> list[Pool]:
    """All pools that will do."""
    return [Pool(kind, subnet) for kind in wish.instance_types for subnet in wish.subnet_ids or [""]]


class ClosedPools:
    """Pools that gave less than they were asked for, and when (epoch seconds) they may be asked again."""

    def __init__(self) -> None:
        self._until: dict[tuple[Lifecycle, Pool], float] = {}

    def close(self, lifecycle: Lifecycle, pool: Pool, until: float) -> None:
        self._until[lifecycle, pool] = until

    def open(self, wish: Wish, lifecycle: Lifecycle, now: float) -> list[Pool]:
        """The pools that may be asked now."""
        return [pool for pool in pools(wish) if self._until.get((lifecycle, pool), 0.0) <= now]

    def next_opening(self, lifecycles: Iterable[Lifecycle]) -> float:
        """When one of the closed pools may be asked again; infinity when none ever may."""
        ways = set(lifecycles)
        return min((until for (way, _), until in self._until.items() if way in ways), default=math.inf)


@dataclass
class Lot:
    """Machines to launch: ``missing`` of them, in the first of ``ways`` that gives them."""

    missing: int
    ways: tuple[Lifecycle, ...]


def lots(wish: Wish, number: int, have_on_demand: int) -> list[Lot]:
    """How ``number`` machines are bought, when ``have_on_demand`` of those that are there are on-demand.

    What is above ``spot_percent`` of the whole farm is on-demand from the start; the number of these is rounded down.
    """
    if not wish.spot:
        return [Lot(number, ("on-demand",))]
    steady = min(number, max(0, wish.count * (100 - wish.spot_percent) // 100 - have_on_demand))
    ways: tuple[Lifecycle, ...] = ("spot", "on-demand") if wish.on_demand_fallback else ("spot",)
    return [lot for lot in (Lot(steady, ("on-demand",)), Lot(number - steady, ways)) if lot.missing]


def fleet_request(
    wish: Wish, number: int, lifecycle: Lifecycle, token: str, asked: Sequence[Pool] | None = None
) -> dict[str, Any]:
    """The parameters of one CreateFleet of type instant for ``number`` instances from the pools ``asked`` (all).

    Spot is price-capacity-optimized: the pools that last longest among the cheap ones. On-demand is lowest-price.
    """
    tags = [{"Key": key, "Value": value} for key, value in sorted(instance_tags(wish).items())]
    price = {"MaxPrice": f"{wish.max_price:.5f}"} if lifecycle == "spot" and wish.max_price is not None else {}
    template = {
        "LaunchTemplateId" if "id" in wish.launch_template else "LaunchTemplateName": wish.launch_template.get(
            "id", wish.launch_template.get("name", "")
        ),
        "Version": wish.launch_template.get("version", "$Latest"),
    }
    overrides = [{**pool.override(), **price} for pool in (pools(wish) if asked is None else asked)]
    request: dict[str, Any] = {
        "Type": "instant",
        "ClientToken": token,
        "LaunchTemplateConfigs": [{"LaunchTemplateSpecification": template, "Overrides": overrides}],
        "TargetCapacitySpecification": {"TotalTargetCapacity": number, "DefaultTargetCapacityType": lifecycle},
        "TagSpecifications": [{"ResourceType": resource, "Tags": tags} for resource in _TAGGED],
    }
    if lifecycle == "spot":
        request["SpotOptions"] = {"AllocationStrategy": "price-capacity-optimized"}
    else:
        request["OnDemandOptions"] = {"AllocationStrategy": "lowest-price"}
    return request


def client_token(request: Mapping[str, Any], known_ids: Iterable[str], attempt: int, now: float) -> str:
    """The ClientToken of one launch: 64 characters, the same for the same launch.

    EC2 answers a repeated token with the result of its first use (EC2 Developer Guide, "Ensuring idempotency"), also
    when those instances have ended since. So the token depends on everything that tells one launch from another: the
    request, every instance that EC2 still lists (terminated ones, too: about an hour), which ``attempt`` of a run it
    is, and the time (epoch seconds) in steps of ``TOKEN_SECONDS`` because terminated instances vanish from the list.
    """
    parts = [
        {key: value for key, value in request.items() if key != "ClientToken"},
        sorted(known_ids),
        attempt,
        int(now // TOKEN_SECONDS),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def may_lack_some(listed: Iterable[Mapping[str, str]], now: float) -> bool:
    """Whether a list of instances may lack some that another run has just launched.

    That is so when others were launched within the last ``UNKNOWN_SECONDS``, for EC2 does not list all of a fleet at
    the same moment. When none is listed at all, the client token keeps a repeat from launching twice, unless the token
    has just changed.
    """
    since = datetime.fromtimestamp(now - UNKNOWN_SECONDS, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return now % TOKEN_SECONDS < YOUNG_TOKEN_SECONDS or any(i["launch_time"] > since for i in listed)


def launched_ids(answer: Mapping[str, Any]) -> list[str]:
    """The ids of all instances that a CreateFleet of type instant launched."""
    return [str(i) for group in answer.get("Instances", ()) for i in group.get("InstanceIds", ())]


def fleet_errors(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """The ``Errors`` of a CreateFleet, one entry per pool (type and zone) that could not give."""
    found = []
    for error in answer.get("Errors", ()):
        overrides = error.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        found.append(
            {
                "code": str(error.get("ErrorCode", "")),
                "message": str(error.get("ErrorMessage", "")),
                "lifecycle": str(error.get("Lifecycle", "")),
                "instance_type": str(overrides.get("InstanceType", "")),
                "zone": str(overrides.get("AvailabilityZone") or overrides.get("SubnetId", "")),
                "subnet_id": str(overrides.get("SubnetId", "")),
            }
        )
    return found


def exhausted(asked: Sequence[Pool], errors: Sequence[Mapping[str, str]]) -> dict[Pool, bool]:
    """Which of the pools ``asked`` the errors are about, and whether that may pass. All, when they name no pool."""
    found: dict[Pool, bool] = {}
    for pool in asked:
        own = [
            error["code"] in _PASSING
            for error in errors
            if error["instance_type"] in ("", pool.instance_type) and error["subnet_id"] in ("", pool.subnet_id)
        ]
        if own:
            found[pool] = all(own)
    return found or dict.fromkeys(asked, True)


def group_errors(errors: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Errors of many pools as few entries: one for each code and lifecycle, with all its types and zones."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for error in errors:
        group = groups.setdefault(
            (error["code"], error["lifecycle"]),
            {
                "code": error["code"],
                "lifecycle": error["lifecycle"],
                "message": error["message"],
                "remedy": remedy(error["code"]),
                "count": 0,
                "instance_types": [],
                "zones": [],
            },
        )
        group["count"] += 1
        for key, value in (("instance_types", error["instance_type"]), ("zones", error["zone"])):
            if value and value not in group[key]:
                group[key].append(value)
    return list(groups.values())


def error_text(groups: Iterable[Mapping[str, Any]]) -> str:
    """Grouped errors for a person, one line for each."""
    lines = []
    for group in groups:
        where = ", ".join(group["instance_types"])
        where += (" in " if where else "") + ", ".join(group["zones"]) if group["zones"] else ""
        line = f"{group['code']} ({group['lifecycle'] or 'any'}{': ' + where if where else ''}): {group['message']}"
        lines.append(line.rstrip(". ") + "." + (f" Remedy: {group['remedy']}." if group["remedy"] else ""))
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------- the work


@dataclass
class Outcome:
    """What a run found and did. ``instances`` are the ones that are alive afterwards, oldest first.

    ``stopped`` ones are neither counted nor started. ``to_launch`` is the number that a check would have launched,
    ``postponed`` the number that is left to another run.
    """

    instances: list[dict[str, str]] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    stopped: list[dict[str, str]] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    surplus: list[dict[str, str]] = field(default_factory=list)
    shortfall: int = 0
    postponed: int = 0
    failed: bool = False
    to_launch: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    msg: str = ""

    @property
    def changed(self) -> bool:
        """True when instances were launched or ended, or would have been if it were no check."""
        return bool(self.launched or self.removed or self.to_launch)

    def diff(self) -> dict[str, str]:
        """Before and after for ``--diff``: one line per instance; instances to come have no id yet."""
        gone = set(self.removed)
        after = [i for i in self.before if i not in gone] + self.launched
        after += ["(to be launched)"] * self.to_launch
        return {"before": "".join(f"{line}\n" for line in self.before), "after": "".join(f"{line}\n" for line in after)}


@dataclass
class _Order:
    """One launch under way. ``end`` (epoch seconds) is when pools without capacity are not asked again any more."""

    wish: Wish
    lots: list[Lot]
    known: list[str]
    end: float
    attempt: int = 0
    closed: ClosedPools = field(default_factory=ClosedPools)
    errors: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)


class Fleet:
    """The instances of one farm, as ``client`` sees them.

    ``wait_seconds`` 0 means: do not wait. ``sleep`` and ``clock`` (epoch seconds) are there for tests.
    """

    def __init__(
        self,
        client: Client,
        farm: str,
        *,
        check_mode: bool = False,
        wait_seconds: float = 0,
        poll_seconds: float = 3.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._farm = farm
        self._check_mode = check_mode
        self._wait_seconds = wait_seconds
        self._poll_seconds = poll_seconds
        self._sleep = sleep
        self._clock = clock
        self.outcome = Outcome()
        """What was done so far: also right when a call raised an exception."""

    def present(self, wish: Wish, *, confirm_remove: bool) -> Outcome:
        """Have exactly ``wish.count`` instances of the role. Nothing is called that changes when they are there.

        Without ``confirm_remove`` instances that are too many are only named.
        """
        problems = wish_problems(wish)
        if problems:
            raise FleetError("; ".join(problems))
        listed = self._list([wish.role])
        if len(alive(listed)) < wish.count and not self._check_mode:
            listed = self._list_settled([wish.role], listed)
        have = alive(listed)
        outcome = self._begin(have, listed)
        missing = wish.count - len(have)
        if missing > 0:
            self._launch(wish, missing, listed, outcome)
        elif missing < 0:
            self._remove(too_many(have, wish.count, wish.remove, wish.idle), [wish.role], confirm_remove, outcome)
        else:
            outcome.msg = f"{_of_role(len(have), wish.role)} as wished"
        return outcome

    def absent(
        self, roles: Sequence[str], *, confirm_remove: bool, instance_ids: Collection[str] | None = None
    ) -> Outcome:
        """Have no instance of these roles, not even a stopped one. Without ``confirm_remove`` they are only named.

        ``instance_ids`` restricts it to some of them; ids of other farms and roles are left alone.
        """
        have = not_ended(self._list(roles))
        leaving = [i for i in have if instance_ids is None or i["instance_id"] in instance_ids]
        outcome = self._begin(have, have)
        if leaving:
            self._remove(leaving, roles, confirm_remove, outcome)
        elif instance_ids is None:
            outcome.msg = f"No instance of role {', '.join(roles)}"
        else:
            outcome.msg = f"None of {_some(sorted(instance_ids))} is an instance of role {', '.join(roles)} any more"
        return outcome

    def _begin(self, have: list[dict[str, str]], listed: Iterable[dict[str, str]]) -> Outcome:
        stopped = [i for i in not_ended(listed) if i["state"] not in _ALIVE]
        self.outcome = Outcome(instances=have, before=[i["instance_id"] for i in have], stopped=stopped)
        return self.outcome

    # ---------------------------------------------------------------------------------------------------------- launch

    def _launch(self, wish: Wish, missing: int, listed: Sequence[dict[str, str]], outcome: Outcome) -> None:
        number = missing if wish.launch_at_most is None else min(missing, wish.launch_at_most)
        outcome.postponed = missing - number
        if self._check_mode:
            outcome.to_launch = missing
            outcome.msg = f"Would launch {_of_role(missing, wish.role)}"
            return
        steady = sum(i["lifecycle"] == "on-demand" for i in outcome.instances)
        order = _Order(
            wish, lots(wish, number, steady), [i["instance_id"] for i in listed], self._clock() + wish.capacity_seconds
        )
        try:
            self._buy(order, outcome)
        finally:
            outcome.errors = group_errors(order.errors.values())
        current, problem = self._settle([wish.role], outcome.launched, "running")
        outcome.instances = alive(current)
        outcome.shortfall = max(0, wish.count - outcome.postponed - len(outcome.instances))
        outcome.surplus = too_many(outcome.instances, wish.count, "newest")
        enough = min(wish.enough, wish.count - outcome.postponed)
        outcome.failed = len(outcome.instances) < enough or bool(problem)
        outcome.msg = self._launch_message(wish, number, outcome) + (f"\n{problem}" if problem else "")

    def _buy(self, order: _Order, outcome: Outcome) -> None:
        """Ask pool after pool, and those without capacity again after their back-off, as long as there is time."""
        while True:
            for lot in order.lots:
                for lifecycle in lot.ways:
                    self._buy_from(lifecycle, lot, order, outcome)
            ways = [way for lot in order.lots if lot.missing for way in lot.ways]
            opening = order.closed.next_opening(ways)
            if not ways or opening > order.end:
                return
            self._sleep(max(0.0, opening - self._clock()))
            order.attempt += 1

    def _buy_from(self, lifecycle: Lifecycle, lot: Lot, order: _Order, outcome: Outcome) -> None:
        """Launch what is missing from the open pools of ``lifecycle``, batch by batch, until they are exhausted."""
        batch = BatchSize(smallest=100, per_second=2)  # RunInstances, which a fleet is made of
        while lot.missing and (asked := order.closed.open(order.wish, lifecycle, self._clock())):
            number, ids, failures = self._throttled(
                batch.refused, partial(self._create, order, lifecycle, lot.missing, batch, asked, outcome)
            )
            outcome.launched += ids
            lot.missing -= len(ids)
            if len(ids) >= number:
                continue
            for error in failures:
                order.errors[lifecycle, error["code"], error["instance_type"], error["subnet_id"]] = error
            for pool, passing in exhausted(asked, failures).items():
                until = self._clock() + order.wish.backoff_seconds if passing else math.inf
                order.closed.close(lifecycle, pool, until)

    def _launch_message(self, wish: Wish, missing: int, outcome: Outcome) -> str:
        text = f"Launched {len(outcome.launched)} of {_of_role(missing, wish.role)}"
        lost = len(set(outcome.launched) - {i["instance_id"] for i in outcome.instances})
        if lost:
            text += f", of which {lost} ended again at once (their state reason in the EC2 console tells why)"
        if outcome.postponed:
            text += f"; {outcome.postponed} more are left for the next run"
        if outcome.surplus:
            text += (
                f"; there are {len(outcome.instances)} now, for another run launched at the same time. "
                "Remedy: run it again with -e farm_remove=true"
            )
        if outcome.shortfall:
            text += f"; {outcome.shortfall} of {wish.count} missing"
            if wish.spot and not wish.on_demand_fallback:
                text += " (on_demand_fallback is off)"
        details = error_text(outcome.errors)
        return f"{text}.\n{details}" if details else text

    def _create(
        self,
        order: _Order,
        lifecycle: Lifecycle,
        missing: int,
        batch: BatchSize,
        asked: Sequence[Pool],
        outcome: Outcome,
    ) -> tuple[int, list[str], list[dict[str, str]]]:
        """One CreateFleet: what it was asked for, the ids that it launched, and what the pools said that could not."""
        number = min(missing, batch.size)
        request = fleet_request(order.wish, number, lifecycle, "", asked)
        request["ClientToken"] = client_token(request, [*order.known, *outcome.launched], order.attempt, self._clock())
        try:
            answer = self._client.create_fleet(**request)
        except Exception as error:
            code = error_code(error)
            if code not in _NO_CAPACITY:
                raise
            everywhere = {"lifecycle": lifecycle, "instance_type": "", "zone": "", "subnet_id": ""}
            return number, [], [{"code": code, "message": str(error), **everywhere}]
        return number, launched_ids(answer), fleet_errors(answer)

    def _throttled(self, refused: Callable[[], float], call: Callable[[], T]) -> T:
        """What ``call`` gives, also when EC2 refuses it for being too much: ``refused`` says how long to wait then."""
        end = self._clock() + THROTTLED_SECONDS
        while True:
            try:
                return call()
            except Exception as error:
                if error_code(error) not in _THROTTLED or self._clock() > end:
                    raise
            self._sleep(refused())

    # ---------------------------------------------------------------------------------------------------------- remove

    def _remove(
        self, leaving: Sequence[dict[str, str]], roles: Sequence[str], confirmed: bool, outcome: Outcome
    ) -> None:
        what = f"{_of_role(len(leaving), ', '.join(roles))}: {_some([i['instance_id'] for i in leaving])}"
        if not confirmed:
            outcome.surplus = list(leaving)
            outcome.msg = (
                f"Removed nothing, though there are too many: {what}. Frames that they render now would be lost; "
                "confirm with -e farm_remove=true (option confirm_remove) to remove them"
            )
            return
        ids = [i["instance_id"] for i in leaving]
        if not self._check_mode:
            self._terminate(ids, roles, outcome)
        outcome.instances = [i for i in outcome.instances if i["instance_id"] not in set(ids)]
        if self._check_mode:
            outcome.removed = ids
            outcome.msg = f"Would remove {what}"
            return
        _, problem = self._settle(roles, outcome.removed, "terminated")
        outcome.failed = bool(problem)
        outcome.msg = f"Removed {what}" + (f"\n{problem}" if problem else "")

    def _terminate(self, ids: Sequence[str], roles: Sequence[str], outcome: Outcome) -> None:
        """End them, batch by batch. What has ended by itself and is forgotten meanwhile counts as ended."""
        batch = BatchSize(smallest=200, per_second=20)
        left = list(ids)
        end = self._clock() + UNKNOWN_SECONDS
        while left:
            try:
                done = self._throttled(batch.refused, partial(self._end, left, batch))
            except Exception as error:
                # One id that a part of EC2 does not know (yet, or any more) fails the call for all.
                if error_code(error) != "InvalidInstanceID.NotFound" or self._clock() > end:
                    raise
                self._sleep(self._poll_seconds)
                listed = {i["instance_id"] for i in self._list(roles)}
                outcome.removed += [i for i in left if i not in listed]
                left = [i for i in left if i in listed]
                continue
            outcome.removed += done
            left = left[len(done) :]

    def _end(self, ids: Sequence[str], batch: BatchSize) -> Sequence[str]:
        self._client.terminate_instances(InstanceIds=list(ids[: batch.size]))
        return ids[: batch.size]

    # ------------------------------------------------------------------------------------------------------------- look

    def _list_settled(self, roles: Sequence[str], listed: list[dict[str, str]]) -> list[dict[str, str]]:
        """The list again until it stays the same, when it may lack what another run has just launched."""
        end = self._clock() + UNKNOWN_SECONDS
        while may_lack_some(listed, self._clock()) and self._clock() < end:
            self._sleep(SETTLED_SECONDS)
            before, listed = listed, self._list(roles)
            if {i["instance_id"] for i in before} == {i["instance_id"] for i in listed}:
                break
        return listed

    def _list(self, roles: Sequence[str]) -> list[dict[str, str]]:
        paginator = self._client.get_paginator("describe_instances")
        # All pages at once, for EC2 may refuse any of them for being too many requests.
        pages = self._throttled(
            lambda: DESCRIBE_PAUSE,
            lambda: list(paginator.paginate(**describe_request(self._farm, roles))),
        )
        instances = []
        for page in pages:
            if "Reservations" not in page:
                raise FleetError("EC2's answer to DescribeInstances holds no list of reservations: run it again")
            instances += [summary(i) for reservation in page["Reservations"] for i in reservation["Instances"]]
        return instances

    def _settle(self, roles: Sequence[str], ids: Sequence[str], state: str) -> tuple[list[dict[str, str]], str]:
        """List until each of ``ids`` is in ``state`` (or has ended) or the time is up; one call looks at all of them.

        Returns the last list and, when the time is up, what is not as it should be. Without waiting it lists only
        until EC2 knows every id that was launched.
        """
        begin = self._clock()
        wanted = set(ids)
        while True:
            listed = self._list(roles)
            states = {i["instance_id"]: i["state"] for i in listed}
            unknown = sorted(wanted - states.keys()) if state == "running" else []
            unsettled = sorted(i for i in wanted & states.keys() if states[i] not in (state, "terminated"))
            waited = self._clock() - begin
            if unknown and waited > UNKNOWN_SECONDS:
                return listed, (
                    f"EC2 launched {_some(unknown)} but does not list them with the farm's tags after "
                    f"{UNKNOWN_SECONDS:.0f} s. Remedy: look at them in the EC2 console, then run it again."
                )
            if not unknown and (not unsettled or not self._wait_seconds):
                return listed, ""
            if unsettled and self._wait_seconds and waited > self._wait_seconds:
                return listed, (
                    f"Not {state} after {self._wait_seconds:.0f} s: {_some(unsettled)}. "
                    "Remedy: run it again, or raise wait_timeout."
                )
            self._sleep(self._poll_seconds)


def _some(names: Sequence[str]) -> str:
    """At most ten names; more are only counted."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _of_role(number: int, role: str) -> str:
    return f"{number} {'instance' if number == 1 else 'instances'} of role {role}"
