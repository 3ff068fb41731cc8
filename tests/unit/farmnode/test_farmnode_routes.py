"""Routes: the logic on sets, what Windows prints, and carrying it out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from farmnode_fakes import LAN, TUNNEL, Bench
from hypothesis import given
from hypothesis import strategies as st

from farmnode.errors import FarmNodeError
from farmnode.programs import Completed
from farmnode.routes import (
    Active,
    Plan,
    Route,
    on_link,
    parse_active,
    parse_persistent,
    plan,
    require_sound,
    route_from_json,
)

OWN = IPv4Address("10.0.0.21")
LINKS = frozenset({(IPv4Network("10.0.0.0/24"), OWN)})
NOTHING = Active(frozenset(), LINKS)


def route(network: str, gateway: str = "10.0.0.10", metric: int = 1) -> Route:
    return Route(IPv4Network(network), IPv4Address(gateway), metric)


def active(*routes: Route) -> Active:
    return Active(frozenset((each.network, each.gateway) for each in routes), LINKS)


ROUTES = st.builds(
    Route,
    st.sampled_from([IPv4Network(f"192.168.{number}.0/24") for number in range(4)]),
    st.sampled_from([IPv4Address("10.0.0.10"), IPv4Address("10.0.0.11")]),
)
SETS = st.frozensets(ROUTES, max_size=6)


@given(SETS, SETS, SETS)
def test_plan_makes_exactly_the_wanted_set_of_ours(
    wanted: frozenset[Route], ours: frozenset[Route], present: frozenset[Route]
) -> None:
    made = plan(wanted, ours, present, NOTHING)
    after = (present - set(made.remove)) | set(made.add)
    assert wanted <= after
    assert after - wanted == present - ours - wanted, "others stay, ours that are not wanted go"
    assert made.ours <= wanted and made.ours <= after
    assert not (made.ours & (present - ours)), "what somebody else set stays theirs"
    again = plan(wanted, made.ours, after, active(*after))
    assert not again.changes and again.ours == made.ours


def test_persistent_but_not_in_use_is_activated() -> None:
    made = plan([LAN], [LAN], [LAN], NOTHING)
    assert made == Plan(keep=(LAN,), activate=(LAN,), ours=frozenset({LAN}))
    assert made.changes


def test_ours_with_another_metric_is_replaced() -> None:
    other = route("192.168.1.0/24", metric=5)
    made = plan([LAN], [other], [other], NOTHING)
    assert (made.add, made.remove) == ((LAN,), (other,))


def test_theirs_with_another_metric_is_refused() -> None:
    other = route("192.168.1.0/24", metric=5)
    with pytest.raises(
        FarmNodeError, match=r"somebody else set .* metric 5. Remove it with 'route DELETE 192.168.1.0'"
    ):
        plan([LAN], [], [other], NOTHING)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            [route("192.168.1.0/24", "10.0.1.1")],
            "no other machine in 10.0.0.0/24; name one that this machine reaches directly.$",
        ),
        ([route("192.168.1.0/24", "10.0.0.21")], "no other machine in"),
        ([route("10.0.0.128/25")], "overlaps this machine's own network 10.0.0.0/24"),
        ([route("0.0.0.0/0")], "overlaps this machine's own"),
        ([route("192.168.0.0/16"), route("192.168.1.0/24")], "overlap; want one of them"),
        ([route("192.168.1.0/24"), route("192.168.1.0/24", "10.0.0.11")], "overlap; want one of them"),
    ],
)
def test_unsound_routes_are_refused(wanted: list[Route], said: str) -> None:
    with pytest.raises(FarmNodeError, match=said) as caught:
        require_sound(wanted, LINKS)
    assert caught.value.reason == "route"


def test_sound_routes() -> None:
    require_sound([LAN, TUNNEL], LINKS)
    require_sound([], [])
    assert on_link(LAN.gateway, LINKS) and not on_link(LAN.gateway, [])
    with pytest.raises(FarmNodeError, match="no other machine in nothing"):
        require_sound([LAN], [])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "a route has network"),
        ({"network": "10.0.0.0/8"}, "a route has network"),
        ({"network": "10.0.0.0/8", "gateway": "10.0.0.1", "mask": 1}, "a route has network"),
        ({"network": "10.0.0.1/8", "gateway": "10.0.0.1"}, "host bits"),
        ({"network": "10.0.0.0/8", "gateway": "gateway"}, "gateway"),
        ({"network": 10, "gateway": "10.0.0.1"}, "are text"),
        ({"network": "10.0.0.0/8", "gateway": 1}, "are text"),
        ({"network": "10.0.0.0/8", "gateway": "10.0.0.1", "metric": 0}, "a metric is"),
        ({"network": "10.0.0.0/8", "gateway": "10.0.0.1", "metric": True}, "a metric is"),
        ({"network": "10.0.0.0/8", "gateway": "10.0.0.1", "metric": 9999}, "a metric is a number from 1 to 9998"),
        ({"network": "10.0.0.0/8", "gateway": "10.0.0.1", "metric": "1"}, "a metric is"),
        ({"network": "fd00::/8", "gateway": "10.0.0.1"}, "fd00::/8 and 10.0.0.1 are of two versions"),
        ({"network": "10.0.0.0/8", "gateway": "fd00::1"}, "two versions"),
        ({"network": "fd00::1/8", "gateway": "fd00::1"}, "host bits"),
    ],
)
def test_what_is_no_route(data: object, said: str) -> None:
    with pytest.raises(FarmNodeError, match=f"^routes: .*{said}"):
        route_from_json(data, "routes")


def test_route_as_json_and_back() -> None:
    assert route_from_json(LAN.as_json(), "x") == LAN
    assert route_from_json({"network": "192.168.1.0/24", "gateway": "10.0.0.10"}, "x") == LAN
    far = route("192.168.1.0/24", metric=9998)
    assert route_from_json(far.as_json(), "x") == far and not far < far and far > LAN


def test_the_types_hold_ipv6_which_cannot_be_set_yet() -> None:
    six = route_from_json({"network": "fd00:1::/64", "gateway": "fd00::10"}, "x")
    assert route_from_json(six.as_json(), "x") == six
    assert sorted([six, TUNNEL, LAN]) == [TUNNEL, LAN, six]
    assert plan([six], [], [LAN], NOTHING) == Plan(add=(six,), ours=frozenset({six}))
    with pytest.raises(FarmNodeError, match=r"fd00:1::/64 via fd00::10 metric 1 is not IPv4") as caught:
        require_sound([LAN, six], LINKS)
    assert caught.value.reason == "route"


def test_routes_sort_by_network_gateway_and_metric() -> None:
    wanted = [
        route("10.8.0.0/16"), route("10.8.0.0/24"), route("10.8.0.0/24", metric=2), route("10.8.0.0/24", "10.0.0.11"),
        route("10.9.0.0/24"),
    ]  # fmt: skip
    assert sorted([wanted[4], wanted[2], wanted[0], wanted[3], wanted[1]]) == wanted


def test_persistent_routes_are_read_from_value_names() -> None:
    text = (
        "\r\nHKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters\\PersistentRoutes\r\n"
        "    (Standard)    REG_SZ    (Wert nicht gesetzt)\r\n"
        "    169.254.169.254,255.255.255.255,10.0.0.1,25    REG_SZ    \r\n"
        "    192.168.1.0,255.255.255.0,10.0.0.10,1    REG_SZ    \r\n\r\n"
    )
    assert parse_persistent(text) == {LAN, route("169.254.169.254/32", "10.0.0.1", 25)}


def test_active_routes_are_read_from_rows_of_numbers(bench: Bench) -> None:
    bench.windows.active = {LAN}
    bench.windows.persistent = {LAN, TUNNEL}
    found = parse_active(bench.windows.table())
    assert found.routes == {(LAN.network, LAN.gateway), (IPv4Network("0.0.0.0/0"), IPv4Address("10.0.0.1"))}
    assert found.links == LINKS


def row(network: str, gateway: str, own: str = "10.0.0.21", metric: int = 25) -> str:
    net = IPv4Network(network)
    return f"  {net.network_address}  {net.netmask}  {gateway}  {own}  {metric}\r\n"


def test_each_kind_of_row_has_its_meaning() -> None:
    found = parse_active(
        row("0.0.0.0/0", "10.0.0.2", metric=50)
        + row("0.0.0.0/0", "10.0.0.1", metric=25)
        + row("0.0.0.0/1", "On-link")
        + row("0.0.0.0/0", "On-link")
        + row("10.0.0.21/32", "On-link")
        + row("224.0.0.0/4", "On-link")
        + row("127.0.0.0/8", "On-link", "127.0.0.1")
        + row("127.0.0.0/8", "10.0.0.9", "127.0.0.1")
        + row("192.168.7.0/24", "10.0.0.1", "127.0.0.1")
        + row("128.0.0.0/1", "10.0.0.3")
    )
    every = IPv4Network("0.0.0.0/0")
    one, two, three = (IPv4Address(f"10.0.0.{number}") for number in (1, 2, 3))
    assert found.routes == {(every, one), (every, two), (IPv4Network("128.0.0.0/1"), three)}
    assert found.links == {(IPv4Network("0.0.0.0/1"), OWN)}
    assert found.null == {(IPv4Network("192.168.7.0/24"), one)}
    assert found.default == one, "of several the one with the smallest metric"
    assert parse_active(row("10.0.0.0/24", "On-link")).default is None


def test_the_active_table_is_asked_for_ipv4(bench: Bench) -> None:
    bench.windows.active = {LAN}
    assert (LAN.network, LAN.gateway) in bench.machine.route_table.active().routes
    assert bench.windows.calls == [["route.exe", "PRINT", "-4"]]


def test_apply_calls_route_exe_as_documented(bench: Bench) -> None:
    old = route("192.168.9.0/24")
    bench.windows.persistent = bench.windows.active = {old}
    bench.machine.route_table.apply(Plan(add=(LAN,), remove=(old,), activate=(TUNNEL,)))
    assert bench.windows.called("route.exe") == [
        ["route.exe", "DELETE", "192.168.9.0", "MASK", "255.255.255.0", "10.0.0.10"],
        ["route.exe", "ADD", "10.8.0.0", "MASK", "255.255.255.0", "10.0.0.10", "METRIC", "1"],
        ["route.exe", "-p", "ADD", "192.168.1.0", "MASK", "255.255.255.0", "10.0.0.10", "METRIC", "1"],
        ["route.exe", "PRINT", "-4"],
    ]
    assert bench.machine.route_table.persistent() == {LAN}


@pytest.mark.parametrize("change", [Plan(add=(LAN,)), Plan(remove=(TUNNEL,))])
def test_a_route_program_that_only_says_ok_is_not_believed(bench: Bench, change: Plan) -> None:
    bench.windows.persistent = {TUNNEL}
    bench.windows.answers[("route.exe",)] = Completed(0, "The route addition failed: no idea.", "")
    with pytest.raises(FarmNodeError, match=r"route.exe did not change 1"):
        bench.machine.route_table.apply(change)


def test_what_the_route_program_said_is_quoted(bench: Bench) -> None:
    bench.windows.answers[("route.exe",)] = Completed(0, "no idea.", "")
    with pytest.raises(FarmNodeError, match=rf"did not change {LAN}, {TUNNEL}: no idea\. no idea\.$"):
        bench.machine.route_table.apply(Plan(add=(LAN, TUNNEL)))
    bench.windows.persistent = {TUNNEL}
    with pytest.raises(FarmNodeError, match=rf"did not change {TUNNEL}: no output$"):
        bench.machine.route_table.apply(Plan(remove=(TUNNEL,)))


@pytest.mark.parametrize("change", [Plan(add=(LAN,)), Plan(keep=(LAN,), activate=(LAN,))])
def test_a_route_that_is_kept_but_not_in_use_is_no_success(bench: Bench, change: Plan) -> None:
    bench.windows.persistent = {LAN}
    bench.windows.answers[("route.exe", "ADD")] = Completed(0, "The gateway is not reachable.", "")
    bench.windows.answers[("route.exe", "-p", "ADD")] = Completed(0, "The gateway is not reachable.", "")
    with pytest.raises(FarmNodeError, match=rf"keeps {LAN} .* does not use it now: The gateway is not") as caught:
        bench.machine.route_table.apply(change)
    assert caught.value.reason == "route"


def test_a_route_that_stays_in_use_is_not_removed(bench: Bench) -> None:
    bench.windows.active = {TUNNEL}
    bench.windows.answers[("route.exe", "DELETE")] = Completed(0, " OK!", "")
    with pytest.raises(FarmNodeError, match=rf"did not change {TUNNEL}"):
        bench.machine.route_table.apply(Plan(remove=(TUNNEL,)))


def test_a_route_may_change_its_metric(bench: Bench) -> None:
    bench.windows.persistent = bench.windows.active = {TUNNEL}
    dearer = Route(TUNNEL.network, TUNNEL.gateway, 5)
    bench.machine.route_table.apply(Plan(add=(dearer,), remove=(TUNNEL,)))
    assert bench.windows.persistent == {dearer}


def test_a_missing_registry_key_means_no_routes(bench: Bench) -> None:
    key = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"
    bench.windows.answers[("reg.exe", "query", key + r"\PersistentRoutes")] = Completed(1, "", "FEHLER: nicht gefunden")
    bench.windows.answers[("reg.exe", "query", key)] = Completed(0, "...\\Parameters\\Interfaces\r\n", "")
    assert bench.machine.route_table.persistent() == frozenset()
    bench.windows.answers[("reg.exe", "query", key)] = Completed(0, "...\\Parameters\\PersistentRoutes\r\n", "")
    with pytest.raises(FarmNodeError, match=r"reg.exe cannot read .*nicht gefunden"):
        bench.machine.route_table.persistent()
    bench.windows.answers[("reg.exe", "query", key)] = Completed(1, "", "Zugriff verweigert")
    with pytest.raises(FarmNodeError, match="Zugriff verweigert"):
        bench.machine.route_table.persistent()
