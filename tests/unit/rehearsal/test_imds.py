"""The metadata service: tokens, tree, notices."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from rehearsal import imds
from rehearsal.interfaces import InstanceView
from rehearsal.network.http import Request, Response
from tests.unit.rehearsal.views import NETWORK, instance

TTL = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "x-aws-ec2-metadata-token"


class Service:
    """A metadata service with a clock that stands still until moved."""

    def __init__(self, **changes: Any) -> None:
        self.instance: InstanceView = instance(1, **changes)
        self.now = 1_700_000_000.0
        self.log: list[str] = []
        self.service = imds.MetadataService(lambda: self.instance, self._tree, self.log.append, lambda: self.now)

    def _tree(self) -> imds.Tree:
        return imds.metadata(self.instance, subnet=NETWORK, vpc=NETWORK, now=self.now)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.service.answer(Request(method, path, named))

    def token(self, seconds: str = "60") -> str:
        return self.service.answer(Request("PUT", "/latest/api/token", {TTL: seconds})).body.decode()

    def get(self, path: str) -> tuple[int, str]:
        answer = self.service.answer(Request("GET", f"/latest/{path}", {TOKEN: self.token()}))
        return answer.status.value, answer.body.decode()


def test_nothing_is_told_without_a_token() -> None:
    service = Service()
    assert service.ask("/latest/meta-data/instance-id").status == 401
    assert service.service.answer(Request("GET", "/latest/meta-data/mac", {TOKEN: "made-up"})).status == 401
    assert service.get("meta-data/instance-id") == (200, "i-00000000000000001")


def test_version_one_works_where_the_instance_allows_it() -> None:
    assert Service(metadata_token_required=False).ask("/latest/meta-data/mac").body == b"0a:00:00:00:00:01"


def test_it_may_come_late() -> None:
    late = Service()
    late.service = imds.MetadataService(
        lambda: late.instance, late._tree, late.log.append, lambda: late.now, late.now + 30
    )
    assert late.service.answer(Request("PUT", "/latest/api/token", {TTL: "60"})).status == 503
    late.now += 29
    assert late.ask("/latest/meta-data/mac").status == 503
    late.now += 1
    assert late.get("meta-data/instance-id")[0] == 200


def test_tokens_expire() -> None:
    service = Service()
    token = service.token("60")
    service.now += 61
    assert service.service.answer(Request("GET", "/latest/meta-data/mac", {TOKEN: token})).status == 401


@pytest.mark.parametrize("seconds", ["", "0", "21601", "soon", "-5"])
def test_a_token_needs_a_length_of_life(seconds: str) -> None:
    assert Service().service.answer(Request("PUT", "/latest/api/token", {TTL: seconds})).status == 400


def test_tokens_are_not_given_to_proxies_nor_by_get() -> None:
    service = Service()
    assert (
        service.service.answer(Request("PUT", "/latest/api/token", {TTL: "60", "x-forwarded-for": "a"})).status == 403
    )
    assert service.ask("/latest/api/token").status == 405


def test_a_service_that_is_off_refuses() -> None:
    assert Service(metadata_enabled=False).ask("/latest/meta-data/mac").status == 403


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("meta-data/local-ipv4", "10.0.0.11"),
        ("meta-data/local-hostname", "ip-10-0-0-11.eu-central-1.compute.internal"),
        ("meta-data/placement/availability-zone", "eu-central-1a"),
        ("meta-data/placement/region", "eu-central-1"),
        ("meta-data/placement/", "availability-zone\nregion"),
        ("meta-data/instance-life-cycle", "on-demand"),
        ("meta-data/ami-id", "ami-1"),
        ("meta-data/network/interfaces/macs/", "0a:00:00:00:00:01/"),
        ("meta-data/network/interfaces/macs/0a:00:00:00:00:01/subnet-ipv4-cidr-block", "10.0.0.0/24"),
        ("meta-data/tags/instance/", "Name\nrenderfarm:role"),
        ("meta-data/tags/instance/renderfarm:role", "manager"),
        ("user-data", "<farm>{}</farm>"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    service = Service(tags={"renderfarm:role": "manager", "Name": "m"}, user_data=b"<farm>{}</farm>")
    assert service.get(path) == (200, expected)


def test_user_data_may_hold_any_bytes() -> None:
    service = Service(user_data=b"\xff\x00\x80")
    answer = service.service.answer(Request("GET", "/latest/user-data", {TOKEN: service.token()}))
    assert answer.body == b"\xff\x00\x80"


@pytest.mark.parametrize(
    "path",
    ["user-data", "meta-data/public-ipv4", "meta-data/spot/instance-action", "meta-data/iam/info", "meta-data/mac/x"],
)
def test_what_is_not_there_is_not_found_and_logged(path: str) -> None:
    service = Service()
    assert service.get(path)[0] == 404
    assert service.log == [f"metadata: /latest/{path} not found"]


def test_tags_are_shown_only_when_the_instance_allows_it() -> None:
    assert Service(metadata_tags=False, tags={"a": "b"}).get("meta-data/tags/instance/a")[0] == 404


def test_public_address_is_shown_when_there_is_one() -> None:
    service = Service()
    public = replace(service.instance.interface, public_address=IPv4Address("198.18.20.1"))
    service.instance = replace(service.instance, interface=public)
    assert service.get("meta-data/public-ipv4") == (200, "198.18.20.1")


def test_an_interruption_is_announced_two_minutes_ahead() -> None:
    service = Service(spot_action_time=1_700_000_300.0, lifecycle="spot")
    assert service.get("meta-data/spot/instance-action")[0] == 404
    assert service.get("meta-data/events/recommendations/rebalance")[0] == 200
    service.now += 180
    status, text = service.get("meta-data/spot/instance-action")
    assert (status, json.loads(text)) == (200, {"action": "terminate", "time": "2023-11-14T22:18:20Z"})


def test_identity_document() -> None:
    document = json.loads(Service().get("dynamic/instance-identity/document")[1])
    assert document["instanceId"] == "i-00000000000000001"
    assert document["pendingTime"] == "2023-11-14T22:13:20Z"


def test_a_recommendation_may_come_without_an_interruption() -> None:
    rebalance = "meta-data/events/recommendations/rebalance"
    now = 1_700_000_000.0
    tree = imds.metadata(instance(1), subnet=NETWORK, vpc=NETWORK, now=now, rebalance=now)
    assert imds.look_up(tree, rebalance) == '{"noticeTime": "2023-11-14T22:13:20Z"}'
    assert imds.look_up(tree, "meta-data/spot/instance-action") is None
    taken = replace(instance(1), spot_action_time=now + 60)
    tree = imds.metadata(taken, subnet=NETWORK, vpc=NETWORK, now=now, rebalance=now)
    assert imds.look_up(tree, rebalance) == '{"noticeTime": "2023-11-14T22:12:20Z"}'


def test_a_path_that_is_asked_again_and_again_is_logged_once() -> None:
    service = Service()
    for _ in range(3):
        assert service.get("meta-data/spot/instance-action")[0] == 404
    assert service.log == ["metadata: /latest/meta-data/spot/instance-action not found"]
