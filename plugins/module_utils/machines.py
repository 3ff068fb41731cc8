# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What EC2 knows of the farm's machines without asking them: their state, what they said last, what they cost.

The format of last words is documented in docs/last-words.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from .aws_errors import error_code

TAG_FARM = "renderfarm:farm"
TAG_ROLE = "renderfarm:role"
ENDED = ("shutting-down", "terminated", "stopping", "stopped")

_LINE = re.compile(r"RENDERFARM-NODE (\{.*?\})[ \t]*\r?$", re.MULTILINE)
#: EC2 writes when an instance ended into its reason: ``User initiated (2026-10-14 09:10:02 GMT)`` (EC2 User Guide,
#: "Troubleshoot Amazon EC2 instance termination").
_MOMENT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)")
_AT_A_TIME = 8
#: Windows is billed by the second, but not for less than a minute (Amazon EC2 On-Demand Pricing).
LEAST_SECONDS = 60.0
#: What prices in the settings call the machines of a role.
_KINDS = {"manager": "manager", "render_node": "node", "remote_node": "node"}


class ConsoleClient(Protocol):
    """The part of boto3's EC2 client that reads consoles."""

    def get_console_output(self, **parameters: Any) -> Mapping[str, Any]: ...


class Client(ConsoleClient, Protocol):
    """The part of boto3's EC2 client that is used here."""

    def describe_spot_price_history(self, **parameters: Any) -> Mapping[str, Any]: ...
    def get_paginator(self, operation_name: str) -> Any: ...


# -------------------------------------------------------------------------------------------------------- last words


def last_event(console: str) -> dict[str, Any] | None:
    """The newest complete event of a console's text; None when the machine said nothing yet."""
    for text in reversed(_LINE.findall(console)):
        try:
            event = json.loads(text)
        except ValueError:
            continue  # others write to the same port, and may have written into the line
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return None


def console_text(client: ConsoleClient, instance_id: str) -> str:
    """What an instance has put on its console: the newest where EC2 has that, else what EC2 posted last.

    EC2 refuses ``Latest`` for types that are not of its Nitro kind, and keeps only what it posted for an hour after an
    instance has ended (Amazon EC2 API Reference, GetConsoleOutput).
    """
    try:
        answer = client.get_console_output(InstanceId=instance_id, Latest=True)
    except Exception as error:
        if error_code(error) not in ("UnsupportedOperation", "IncorrectInstanceState"):
            raise
        answer = client.get_console_output(InstanceId=instance_id)
    return str(answer.get("Output") or "")


def last_events(client: Client, instance_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The newest event of each instance that has said one. Those that EC2 does not know are left out."""

    def one(instance_id: str) -> dict[str, Any] | None:
        try:
            return last_event(console_text(client, instance_id))
        except Exception as error:
            if error_code(error) == "InvalidInstanceID.NotFound":
                return None  # gone, or so new that EC2 does not know it everywhere
            raise

    if not instance_ids:
        return {}
    with ThreadPoolExecutor(min(_AT_A_TIME, len(instance_ids))) as pool:
        found = zip(instance_ids, pool.map(one, instance_ids), strict=True)
        return {instance_id: event for instance_id, event in found if event is not None}


# --------------------------------------------------------------------------------------------------------- instances


@dataclass(frozen=True)
class Instance:
    """One instance of the farm. Times are epoch seconds; ``ended`` is None while it lives or when EC2 does not say."""

    instance_id: str
    name: str
    role: str
    type: str
    zone: str
    lifecycle: str
    state: str
    launched: float
    ended: float | None
    reason: str

    def seconds(self, now: float) -> float | None:
        """How long it has run, or ran; None when it has ended and nobody knows when."""
        if self.state in ENDED and self.ended is None:
            return None
        return max(0.0, (self.ended or now) - self.launched)


def instance(item: Mapping[str, Any]) -> Instance:
    """One item of DescribeInstances."""
    tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", ())}
    transition = str(item.get("StateTransitionReason") or "")
    state = str(item["State"]["Name"])
    moment = _MOMENT.search(transition) if state in ENDED else None
    reason = str(item.get("StateReason", {}).get("Message") or transition)
    return Instance(
        instance_id=str(item["InstanceId"]),
        name=tags.get("Name", ""),
        role=tags.get(TAG_ROLE, ""),
        type=str(item["InstanceType"]),
        zone=str(item.get("Placement", {}).get("AvailabilityZone", "")),
        lifecycle=str(item.get("InstanceLifecycle") or "on-demand"),
        state=state,
        launched=item["LaunchTime"].timestamp(),
        ended=datetime.strptime(moment[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp() if moment else None,
        reason=reason if state in ENDED else "",
    )


def instances(client: Client, filters: Iterable[Mapping[str, Any]]) -> list[Instance]:
    """All instances that the filters let through, the oldest first. Terminated ones show for about an hour."""
    pages = client.get_paginator("describe_instances").paginate(
        Filters=list(filters), PaginationConfig={"PageSize": 1000}
    )
    found = [instance(item) for page in pages for each in page["Reservations"] for item in each["Instances"]]
    return sorted(found, key=lambda each: (each.launched, each.instance_id))


def of_farm(farm: str) -> list[dict[str, Any]]:
    """The filters for one farm. Filter values know the wildcards * and ?, which a backslash makes plain."""
    return [{"Name": f"tag:{TAG_FARM}", "Values": [re.sub(r"([\\*?])", r"\\\1", farm)]}]


# ------------------------------------------------------------------------------------------------------------- prices


def cost(seconds: float, usd_per_hour: float) -> float:
    """What a machine has cost in USD: by the second, a minute at least."""
    return max(seconds, LEAST_SECONDS) / 3600.0 * usd_per_hour


def price(item: Instance, known: Mapping[str, float], spot: Mapping[tuple[str, str], float]) -> float | None:
    """USD per hour of an instance: of a spot instance what EC2 asks now, else what the settings know.

    That is by its type, else by its kind (``manager``, ``node``).  None when nobody knows.
    """
    if item.lifecycle == "spot" and (item.type, item.zone) in spot:
        return spot[item.type, item.zone]
    return known.get(item.type, known.get(_KINDS.get(item.role, "")))


def spot_prices(client: Client, items: Iterable[Instance], now: datetime) -> dict[tuple[str, str], float]:
    """What EC2 asks now for Windows, by instance type and zone, of the spot instances among ``items``: one call."""
    wanted = {(item.type, item.zone) for item in items if item.lifecycle == "spot"}
    if not wanted:
        return {}
    newest: dict[tuple[str, str], tuple[datetime, float]] = {}
    parameters: dict[str, Any] = {
        "InstanceTypes": sorted({kind for kind, _ in wanted}),
        "ProductDescriptions": ["Windows"],
        # The price in force is the last one before that moment, and is given as well (DescribeSpotPriceHistory).
        "StartTime": now,
        "Filters": [{"Name": "availability-zone", "Values": sorted({zone for _, zone in wanted})}],
    }
    for page in client.get_paginator("describe_spot_price_history").paginate(**parameters):
        for entry in page["SpotPriceHistory"]:
            key = (str(entry["InstanceType"]), str(entry["AvailabilityZone"]))
            if key not in newest or entry["Timestamp"] > newest[key][0]:
                newest[key] = (entry["Timestamp"], float(entry["SpotPrice"]))
    return {key: amount for key, (_, amount) in newest.items() if key in wanted}


# ------------------------------------------------------------------------------------------------------------- report


def report(
    items: Sequence[Instance],
    events: Mapping[str, Mapping[str, Any]],
    price_of: Callable[[Instance], float | None],
    now: float,
) -> list[dict[str, Any]]:
    """One dictionary for each instance: what module ec2_farm_info returns."""
    rows = []
    for item in items:
        event = events.get(item.instance_id)
        seconds, hourly = item.seconds(now), price_of(item)
        rows.append(
            {
                "instance_id": item.instance_id,
                "name": item.name,
                "role": item.role,
                "type": item.type,
                "zone": item.zone,
                "lifecycle": item.lifecycle,
                "state": item.state,
                "launched": _stamp(item.launched),
                "ended": _stamp(item.ended) if item.ended is not None else None,
                "reason": item.reason,
                "last_words": dict(event) if event is not None else None,
                "usd_per_hour": hourly,
                "cost_usd": round(cost(seconds, hourly), 4) if hourly is not None and seconds is not None else None,
            }
        )
    return rows


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
