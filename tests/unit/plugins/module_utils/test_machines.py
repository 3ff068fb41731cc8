"""What EC2 knows of machines: last words out of a console, prices, costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.renderfarm.cloud.plugins.module_utils import machines
from ansible_collections.renderfarm.cloud.plugins.modules import ec2_farm_info

NOW = datetime(2026, 10, 14, 10, 0, tzinfo=UTC)
READY = 'RENDERFARM-NODE {"event": "ready", "version": 1}'
FAILED = 'RENDERFARM-NODE {"event": "failed", "version": 1, "reason": "no {curly} end"}'


@pytest.mark.parametrize(
    ("console", "event"),
    [
        ("", None),
        ("Windows is Ready to use\r\n", None),
        (READY + "\r\n", "ready"),
        ("noise " + READY, "ready"),
        (READY + "\r\n" + FAILED + "\r\nWindows is Ready to use\r\n", "failed"),
        (FAILED + "\r\n" + READY + "  \n", "ready"),
        (READY + "\r\nRENDERFARM-NODE {broken}\r\n", "ready"),
        (READY + "\r\nRENDERFARM-NODE {}\r\n", "ready"),
        (READY + '\r\nRENDERFARM-NODE {"event": "fai', "ready"),
        (READY + " and more behind it", None),
    ],
)
def test_the_newest_whole_event_counts(console: str, event: str | None) -> None:
    found = machines.last_event(console)
    assert (found["event"] if found else None) == event


@pytest.mark.parametrize(
    ("seconds", "price", "usd"),
    [(0, 3.6, 0.06), (59.9, 3.6, 0.06), (60, 3.6, 0.06), (61, 3.6, 0.061), (3600, 0.5, 0.5)],
)
def test_cost_is_by_the_second_and_a_minute_at_least(seconds: float, price: float, usd: float) -> None:
    assert machines.cost(seconds, price) == pytest.approx(usd)


def item(number: int, state: str = "running", **more: Any) -> dict[str, Any]:
    return {
        "InstanceId": f"i-{number:08x}",
        "InstanceType": "c7i.4xlarge",
        "State": {"Name": state},
        "LaunchTime": datetime(2026, 10, 14, 9, 0, number, tzinfo=UTC),
        "Placement": {"AvailabilityZone": "eu-central-1a"},
        "Tags": [{"Key": "Name", "Value": "node"}, {"Key": "renderfarm:role", "Value": "render_node"}],
        **more,
    }


class FakeClient:
    """EC2 with some instances, consoles and spot prices."""

    def __init__(self, items: list[dict[str, Any]], consoles: dict[str, str], spot: list[dict[str, Any]]) -> None:
        self.items, self.consoles, self.spot = items, consoles, spot
        self.asked: list[str] = []
        self.filters: list[dict[str, Any]] = []
        self.spot_asked: list[dict[str, Any]] = []

    def get_console_output(self, **parameters: Any) -> dict[str, Any]:
        assert parameters["Latest"] is True
        self.asked.append(parameters["InstanceId"])
        if parameters["InstanceId"] not in self.consoles:
            raise NotFound
        return {"Output": self.consoles[parameters["InstanceId"]]}

    def describe_spot_price_history(self, **parameters: Any) -> dict[str, Any]:
        raise AssertionError("pages are asked for")

    def get_paginator(self, name: str) -> Any:
        class Pages:
            def paginate(_, **parameters: Any) -> list[dict[str, Any]]:
                if name == "describe_spot_price_history":
                    self.spot_asked.append(parameters)
                    return [{"SpotPriceHistory": self.spot}]
                assert name == "describe_instances"
                self.filters = parameters["Filters"]
                return [{"Reservations": [{"Instances": [each]}]} for each in self.items]

        return Pages()


class NotFound(Exception):
    response = {"Error": {"Code": "InvalidInstanceID.NotFound"}}  # noqa: RUF012


def spot(price: str, minute: int, zone: str = "eu-central-1a") -> dict[str, Any]:
    moment = datetime(2026, 10, 14, 8, minute, tzinfo=UTC)
    return {"InstanceType": "c7i.4xlarge", "AvailabilityZone": zone, "SpotPrice": price, "Timestamp": moment}


ENDED = item(
    3, "terminated",
    StateTransitionReason="User initiated (2026-10-14 09:00:23 GMT)",
    StateReason={"Code": "Client.InstanceInitiatedShutdown", "Message": "Client.InstanceInitiatedShutdown: by itself"},
)  # fmt: skip
OPTIONS: dict[str, Any] = {"farm": "a*b", "roles": [], "listed": [], "max_consoles": 50, "prices": {"c7i.4xlarge": 3.6}}


def test_the_farm_as_ec2_sees_it() -> None:
    items = [ENDED, item(2, InstanceLifecycle="spot"), item(1)]
    prices = [spot("0.30", 10), spot("0.36", 50), spot("0.20", 20), spot("9", 59, "eu-central-1b")]
    client = FakeClient(items, {"i-00000003": FAILED + "\r\n", "i-00000001": READY}, prices)
    result = ec2_farm_info.run(client, OPTIONS | {"listed": ["i-00000001"]}, NOW)
    assert [row["instance_id"] for row in result["instances"]] == ["i-00000001", "i-00000002", "i-00000003"]
    first, second, third = result["instances"]
    assert (first["usd_per_hour"], first["cost_usd"], (first["last_words"] or {}).get("event")) == (3.6, 3.599, "ready")
    assert (second["usd_per_hour"], second["cost_usd"], second["lifecycle"]) == (0.36, 0.3598, "spot")
    assert (third["ended"], third["cost_usd"]) == ("2026-10-14T09:00:23Z", 0.06)
    assert third["reason"].endswith("by itself") and third["last_words"]["reason"] == "no {curly} end"
    assert result["cost_usd"] == pytest.approx(4.0188) and result["unknown_cost"] == []
    assert client.filters == [{"Name": "tag:renderfarm:farm", "Values": [r"a\*b"]}]
    (asked,) = client.spot_asked
    assert asked["StartTime"] == NOW and asked["ProductDescriptions"] == ["Windows"]


def test_what_nobody_knows_is_not_invented() -> None:
    gone = item(1, "terminated", StateTransitionReason="Server.SpotInstanceTermination")
    client = FakeClient([gone, item(2)], {}, [])
    result = ec2_farm_info.run(client, OPTIONS | {"prices": {}, "roles": ["render_node"]}, NOW)
    assert result["unknown_cost"] == ["i-00000001", "i-00000002"] and result["cost_usd"] == 0
    assert (
        result["instances"][0]["ended"] is None and result["instances"][0]["reason"] == "Server.SpotInstanceTermination"
    )
    assert client.spot_asked == [] and client.filters[1] == {"Name": "tag:renderfarm:role", "Values": ["render_node"]}
    known = ec2_farm_info.run(client, OPTIONS, NOW)
    assert known["unknown_cost"] == ["i-00000001"], "it ended, and nobody knows when"


def test_consoles_are_bounded_and_those_that_ended_come_first() -> None:
    items = [item(number) for number in range(10, 15)] + [ENDED]
    client = FakeClient(items, {}, [])
    ec2_farm_info.run(client, OPTIONS | {"max_consoles": 2}, NOW)
    assert sorted(client.asked) == ["i-00000003", "i-0000000e"]
    for most in (-1, 1001):
        with pytest.raises(ValueError, match="max_consoles is a number from 0 to 1000"):
            ec2_farm_info.run(client, OPTIONS | {"max_consoles": most}, NOW)


@pytest.mark.parametrize(
    ("most", "asked"),
    [
        (1, ["i-00000003"]),
        (3, ["i-00000003", "i-0000000c", "i-0000000e"]),
        (4, ["i-00000003", "i-0000000a", "i-0000000c", "i-0000000e"]),
        (5, ["i-00000003", "i-0000000a", "i-0000000b", "i-0000000c", "i-0000000e"]),
    ],
)
def test_consoles_of_nodes_that_the_manager_lists_come_last_the_oldest_first(most: int, asked: list[str]) -> None:
    client = FakeClient([item(number) for number in range(10, 15)] + [ENDED], {}, [])
    listed = ["i-0000000a", "i-0000000b", "i-0000000d"]
    ec2_farm_info.run(client, OPTIONS | {"listed": listed, "max_consoles": most}, NOW)
    assert sorted(client.asked) == asked


def test_a_price_by_type_or_by_kind() -> None:
    node, manager = (
        machines.instance(item(1)),
        machines.instance(item(2, Tags=[{"Key": "renderfarm:role", "Value": "manager"}])),
    )
    known = ec2_farm_info.prices({"node": 1, "manager": 2.5, "m5.large": None})
    assert (machines.price(node, known, {}), machines.price(manager, known, {})) == (1.0, 2.5)
    assert machines.price(node, known | {"c7i.4xlarge": 3.0}, {}) == 3.0
    builder = machines.instance(item(3, Tags=[{"Key": "renderfarm:role", "Value": "builder"}]))
    assert machines.price(builder, known, {}) is None


@pytest.mark.parametrize("amount", ["1", -1, True])
def test_a_price_is_a_number(amount: object) -> None:
    with pytest.raises(ValueError, match=r"prices: m5\.large must be USD per hour"):
        ec2_farm_info.prices({"m5.large": amount})


def test_a_console_without_a_newest_text_shows_what_was_posted() -> None:
    asked = []

    class Older(FakeClient):
        def get_console_output(self, **parameters: Any) -> dict[str, Any]:
            asked.append(parameters)
            if "Latest" in parameters:
                error = RuntimeError("this instance type does not support retrieving the latest console logs")
                error.response = {"Error": {"Code": "UnsupportedOperation"}}  # type: ignore[attr-defined]
                raise error
            return {"Output": "posted"}

    assert machines.console_text(Older([], {}, []), "i-1") == "posted"
    assert asked == [{"InstanceId": "i-1", "Latest": True}, {"InstanceId": "i-1"}]


def test_an_error_of_the_console_is_no_silence() -> None:
    client = FakeClient([], {}, [])

    def refuse(**_: Any) -> Any:
        raise RuntimeError("throttled")

    client.get_console_output = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="throttled"):
        machines.last_events(client, ["i-1"])
