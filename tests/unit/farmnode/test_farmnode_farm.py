"""What a machine is told, and the role that follows."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from farmnode_fakes import FARM

from farmnode.errors import FarmNodeError
from farmnode.farm import Farm, Limits, decide_role, parse_user_data

TOLD: dict[str, Any] = {
    "version": 1,
    "farm": "studio",
    "manager": "10.0.0.10",
    "networks": {"lan": "192.168.1.0/24", "cloud": "10.0.0.0/24"},
}
FARM_TOLD = parse_user_data(f"<farm>{json.dumps(TOLD)}</farm>".encode())
OWN, MANAGER, AWAY = map(IPv4Address, ("10.0.0.21", "10.0.0.10", "192.168.5.5"))


def test_the_part_is_found_among_others() -> None:
    text = "<powershell>\nWrite-Host '<x>'\n</powershell>\r\n" + FARM % ("render_node", ',"limits":{"manager":5}')
    assert parse_user_data(text.encode()) == Farm(
        name="studio",
        role="render_node",
        manager="10.0.0.10",
        networks={
            "lan": IPv4Network("192.168.1.0/24"),
            "cloud": IPv4Network("10.0.0.0/24"),
            "tunnel": IPv4Network("10.8.0.0/24"),
        },
        limits=Limits(manager=5.0),
    )


@pytest.mark.parametrize("data", [b"", b"\xff<powershell></powershell>"])
def test_without_a_part(data: bytes) -> None:
    assert parse_user_data(data) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 2, this image understands 1"),
        ({"version": None}, "version None"),
        ({"deadline": 3}, "<farm> has deadline, unknown to this image"),
        ({"role": "king"}, "the role 'king' is none of"),
        ({"farm": None}, "farm of the <farm> part must be text"),
        ({"farm": ""}, "farm of the <farm> part must be text"),
        ({"manager": 1}, "manager of the <farm> part must be text"),
        ({"manager_port": 0}, "manager_port of the <farm> part must be a port"),
        ({"server_port": True}, "server_port of the <farm> part must be a port"),
        ({"renders": "yes"}, "renders of the <farm> part must be true or false, not 'yes'"),
        ({"networks": []}, "networks of the <farm> part must be a JSON object"),
        ({"networks": {"lan": "192.168.1.1/24"}}, "networks of the <farm> part: .*host bits"),
        ({"networks": {"lan": None}}, "networks of the <farm> part"),
        ({"limits": {"patience": 1}}, "limits has patience, unknown"),
        ({"limits": {"manager": 0}}, "limit manager must be seconds"),
        ({"limits": {"manager": "1"}}, "limit manager must be seconds"),
        ({"limits": {"manager": True}}, "limit manager must be seconds"),
        ({"limits": {"manager": 1e9}}, "limit manager must be seconds"),
    ],
)
def test_what_is_not_understood_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(FarmNodeError, match=said) as caught:
        parse_user_data(f"<farm>{json.dumps(TOLD | change)}</farm>".encode())
    assert caught.value.reason == "bad_user_data"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<farm>{</farm>", "is not JSON"),
        ("<farm>\udcff</farm>", "is not JSON"),
        ("<farm>[]</farm>", "not a JSON object"),
        ("<farm>{}</farm><farm>{}</farm>", "2 <farm> parts"),
    ],
)
def test_what_is_no_part_is_refused(text: str, said: str) -> None:
    with pytest.raises(FarmNodeError, match=said):
        parse_user_data(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("told", "tag", "address", "role"),
    [
        ("remote_node", "manager", MANAGER, "remote_node"),
        (None, "builder", MANAGER, "builder"),
        (None, None, MANAGER, "manager"),
        (None, "", OWN, "render_node"),
        (None, None, AWAY, "remote_node"),
    ],
)
def test_role(told: str | None, tag: str | None, address: IPv4Address, role: str) -> None:
    farm = parse_user_data(f"<farm>{json.dumps(TOLD | {'role': told})}</farm>".encode())
    assert decide_role(farm, tag, address) == role


def test_role_without_user_data() -> None:
    assert decide_role(None, "builder", OWN) == "builder"
    with pytest.raises(FarmNodeError, match="neither a <farm> part"):
        decide_role(None, None, OWN)
    with pytest.raises(FarmNodeError, match="tag renderfarm:role is 'king'"):
        decide_role(FARM_TOLD, "king", OWN)
    assert decide_role(Farm("studio"), None, OWN) == "remote_node"


def test_limits_of_the_watch() -> None:
    told = parse_user_data((FARM % ("render_node", ',"watch":{"idle":0,"sample":0.5}')).encode())
    assert told is not None and (told.watch.idle, told.watch.sample, told.watch.manager) == (0.0, 0.5, 900.0)


@pytest.mark.parametrize(
    "watch",
    ['{"sample":0}', '{"manager":0}', '{"idle":-1}', '{"idle":true}', '{"idle":"5"}', '{"x":1}', "[]", '{"idle":3e6}'],
)
def test_limits_of_the_watch_that_are_refused(watch: str) -> None:
    with pytest.raises(FarmNodeError) as caught:
        parse_user_data((FARM % ("render_node", f',"watch":{watch}')).encode())
    assert caught.value.reason == "bad_user_data"
