"""Forwarding and null routes: planned purely, carried out through Windows' programs, and seen to be so."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from farmnode_fakes import Bench, FakeWindows

from farmnode import converge, forwarding, null_routes
from farmnode.converge import Desired, parse_desired
from farmnode.errors import FarmNodeError
from farmnode.programs import Completed
from farmnode.routes import Route, parse_active

LAN = IPv4Network("192.168.1.0/24")
TUNNEL = IPv4Network("10.8.0.0/24")
ROUTER = IPv4Address("10.0.0.1")


def test_adapters_are_read_in_any_language() -> None:
    assert forwarding.parse_interfaces(FakeWindows(adapters={12: True, 21: False}).interfaces()) == {
        12: True,
        21: False,
    }


@pytest.mark.parametrize("text", ["-" * 30 + "\nno rows\n", "-" * 30 + "\nA : x\nB : 7\nC : connected\n"])
def test_a_list_of_adapters_that_is_not_understood(text: str) -> None:
    with pytest.raises(FarmNodeError, match="not understood"):
        forwarding.parse_interfaces(text)


@pytest.mark.parametrize(
    ("wanted", "router", "adapters", "registry", "changed"),
    [
        (True, False, {12: False, 21: True}, True, (12,)),
        (True, True, {12: True}, False, ()),
        (False, True, {12: True, 21: False}, True, (12,)),
    ],
)
def test_plan(wanted: bool, router: bool, adapters: dict[int, bool], registry: bool, changed: tuple[int, ...]) -> None:
    made = forwarding.plan(wanted, router, adapters)
    assert (made.registry, made.interfaces) == (registry, changed)
    assert made.changes == (registry or bool(changed))


def test_forwarding_is_switched_at_once_and_for_the_next_start(bench: Bench) -> None:
    wanted = Desired(forwarding=True)
    assert converge.apply(wanted, bench.machine, check=True).changed
    assert bench.windows.adapters == {12: False, 21: False}
    result = converge.apply(wanted, bench.machine)
    assert result.as_json(diff=False)["forwarding"] == {
        "enabled": True, "registry_changed": True, "interfaces_changed": [12, 21],
    }  # fmt: skip
    assert bench.windows.adapters == {12: True, 21: True} and bench.windows.router
    assert not converge.apply(wanted, bench.machine).changed
    assert converge.apply(Desired(forwarding=False), bench.machine).changed
    assert bench.windows.adapters == {12: False, 21: False} and not bench.windows.router


def test_forwarding_that_does_not_change_is_an_error(bench: Bench) -> None:
    bench.windows.answers["netsh.exe", "interface", "ipv4", "set"] = Completed(0, "", "")
    with pytest.raises(FarmNodeError, match="still not enabled for interface 12, interface 21") as caught:
        converge.apply(Desired(forwarding=True), bench.machine)
    assert caught.value.reason == "forwarding"


def test_null_routes_are_told_from_links_and_ways() -> None:
    windows = FakeWindows(null={Route(LAN, ROUTER, 9999)})
    active = parse_active(windows.table())
    assert active.null == {(LAN, ROUTER)}
    assert LAN not in {network for network, _ in active.routes | active.links}
    assert active.default == ROUTER


def test_the_default_gateway_is_the_nearest() -> None:
    rows = "  0.0.0.0  0.0.0.0  10.0.0.1  10.0.0.21  50\n  0.0.0.0  0.0.0.0  10.0.9.1  10.0.9.7  25\n"
    assert parse_active(rows).default == IPv4Address("10.0.9.1")
    assert parse_active("").default is None


def test_null_routes_come_go_and_stay(bench: Bench) -> None:
    windows = bench.windows
    assert converge.apply(Desired(null_routes=(LAN, TUNNEL)), bench.machine, check=True).changed
    assert not windows.null
    assert converge.apply(Desired(null_routes=(LAN, TUNNEL)), bench.machine).changed
    assert windows.null == windows.persistent == {Route(LAN, ROUTER, 9999), Route(TUNNEL, ROUTER, 9999)}
    again = converge.apply(Desired(null_routes=(LAN, TUNNEL)), bench.machine)
    assert not again.changed
    assert again.as_json(diff=False)["null_routes"] == {"added": [], "removed": [], "kept": [str(TUNNEL), str(LAN)]}
    assert converge.apply(Desired(null_routes=(LAN,)), bench.machine).changed
    assert windows.null == windows.persistent == {Route(LAN, ROUTER, 9999)}
    assert bench.machine.state.null_routes() == {LAN}


def test_null_routes_that_a_restart_lost_are_set_again(bench: Bench) -> None:
    converge.apply(Desired(null_routes=(LAN,)), bench.machine)
    bench.windows.null.clear()
    assert converge.apply(Desired(null_routes=(LAN,)), bench.machine).changed
    assert bench.windows.null == bench.windows.persistent == {Route(LAN, ROUTER, 9999)}


def test_null_routes_do_not_touch_ways_to_the_same_network(bench: Bench) -> None:
    converge.apply(Desired(null_routes=(LAN,)), bench.machine)
    way = Route(LAN, IPv4Address("10.0.0.10"))
    converge.apply(Desired(routes=(way,)), bench.machine)
    assert bench.windows.active == {way} and bench.windows.null
    converge.apply(Desired(routes=()), bench.machine)
    assert bench.windows.null == bench.windows.persistent == {Route(LAN, ROUTER, 9999)}
    converge.apply(Desired(routes=(way,), null_routes=()), bench.machine)
    assert bench.windows.active == bench.windows.persistent == {way} and not bench.windows.null


def test_a_null_route_must_not_cut_off_a_part_of_a_link(bench: Bench) -> None:
    with pytest.raises(FarmNodeError, match=r"10\.0\.0\.128/25 would cut off a part of 10\.0\.0\.0/24"):
        converge.apply(Desired(null_routes=(IPv4Network("10.0.0.128/25"),)), bench.machine)
    null_routes.require_sound([IPv4Network("10.0.0.0/24")], [(IPv4Network("10.0.0.0/24"), ROUTER)])


def test_a_null_route_needs_a_default_gateway(bench: Bench) -> None:
    with pytest.raises(FarmNodeError, match="no default gateway"):
        null_routes.apply(null_routes.Plan(add=(LAN,)), bench.windows, None, {})


def test_a_null_route_that_does_not_come_is_an_error(bench: Bench) -> None:
    bench.windows.answers["route.exe", "-p", "ADD"] = Completed(0, "no", "")
    with pytest.raises(FarmNodeError, match=r"did not change the null routes 192\.168\.1\.0/24"):
        converge.apply(Desired(null_routes=(LAN,)), bench.machine)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"forwarding": "yes"}, "true or false"),
        ({"null_routes": "10.0.0.0/24"}, "must be a list"),
        ({"null_routes": ["10.0.0.0/24", "10.0.0.0/24"]}, "twice"),
        ({"null_routes": ["10.0.0.1/24"]}, "host bits"),
        ({"null_routes": ["0.0.0.0/0"]}, "some but not all"),
        ({"null_routes": ["10.0.0.0"]}, "no network"),
        ({"routes": [{"network": "10.0.0.0/24", "gateway": "10.0.0.1", "metric": 9999}]}, "1 to 9998"),
    ],
)
def test_what_is_not_understood(data: dict[str, object], said: str) -> None:
    with pytest.raises(FarmNodeError, match=said):
        parse_desired(data)
