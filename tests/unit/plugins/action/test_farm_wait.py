"""Waiting for nodes: how they are judged, when it ends, what it says."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.renderfarm.cloud.plugins.action import farm_wait as plugin
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import farm_wait
from ansible_collections.renderfarm.cloud.plugins.plugin_utils.farm_wait import Stand
from backburner_fakes import action

NONE = "the instance is shutting-down: EC2 gives no reason"
WHY = "nothing took a connection at 10.0.0.10:3234 for 600 seconds. See that the manager runs."
TOLD = f"manager_unreachable in phase manager: {WHY}"


def mac(number: int) -> str:
    return f"06:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def given(count: int) -> list[dict[str, str]]:
    return [{"name": "node", "mac": mac(n), "instance": f"i-{n}"} for n in range(count)]


def servers(*numbers: int, state: str = "idle") -> list[dict[str, str]]:
    return [{"mac": mac(n), "state": state, "name": "x", "handle": "x"} for n in numbers]


def failed(seconds: int = 600) -> dict[str, Any]:
    reason = WHY.replace("600", str(seconds))
    return {"event": "failed", "phase": "manager", "code": "manager_unreachable", "reason": reason}


# ---------------------------------------------------------------------------------------------------------- judgement


def judged(nodes: Sequence[farm_wait.Node], *facts: Any) -> list[farm_wait.Status]:
    """How the nodes stand when everybody's console was read."""
    return farm_wait.judge(nodes, *facts, read=[node.instance for node in nodes])


@pytest.mark.parametrize(
    ("state", "event", "stand", "short", "reason"),
    [
        (None, None, Stand.BOOTING, "", "says nothing yet"),
        (("running", ""), None, Stand.BOOTING, "", "says nothing yet"),
        (("running", ""), {"event": "ready"}, Stand.BOOTING, "ready", "says ready, but the manager does not list it"),
        (
            ("running", ""), {"event": "waiting", "phase": "manager", "reason": "nothing yet"},
            Stand.BOOTING, "waits in phase manager", "waits in phase manager: nothing yet",
        ),
        (("running", ""), failed(), Stand.FAILED, "manager unreachable", TOLD),
        (("terminated", "by itself"), failed(), Stand.FAILED, "manager unreachable", TOLD),
        (("terminated", "Server.Spot"), None, Stand.FAILED, "terminated", "the instance is terminated: Server.Spot"),
        (("shutting-down", ""), {"event": "ready"}, Stand.FAILED, "shutting-down", NONE),
        (("stopped", "x"), {"event": "waiting", "phase": "p"}, Stand.FAILED, "stopped", "the instance is stopped: x"),
        (("stopped", ""), {"event": "manager_gone", "reason": "no"}, Stand.FAILED, "manager gone", "manager_gone: no"),
    ],
)  # fmt: skip
def test_how_a_node_stands(state: Any, event: Any, stand: Stand, short: str, reason: str) -> None:
    (node,) = farm_wait.nodes(given(1))
    states, events = ({node.instance: state} if state else {}), ({node.instance: event} if event else {})
    assert judged([node], [], states, events) == [farm_wait.Status(node, stand, short, reason)]
    assert judged([node], servers(0), states, events) == [farm_wait.Status(node, Stand.REGISTERED)]
    assert judged([node], servers(0, state="absent"), states, events)[0].stand is stand


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (("running", ""), "its console was not read"),
        (("terminated", "Server.Spot."), "the instance is terminated: Server.Spot; its console was not read"),
    ],
)
def test_nobody_is_said_to_be_silent_who_was_not_asked(state: tuple[str, str], reason: str) -> None:
    (node,) = farm_wait.nodes(given(1))
    assert farm_wait.judge([node], [], {node.instance: state}, {}, read=[])[0].reason == reason


def test_the_live_line() -> None:
    nodes = farm_wait.nodes(given(50))
    events = {"i-47": failed(), "i-48": {"event": "waiting", "phase": "manager", "reason": "nothing yet"}}
    statuses = judged(nodes, servers(*range(47)), {}, events)
    assert farm_wait.line(statuses) == (
        "47/50 registered, 2 booting: waits in phase manager, 1 failed: manager unreachable"
    )
    assert farm_wait.possible(statuses, 49) and not farm_wait.possible(statuses, 50)
    assert farm_wait.line(judged(nodes[:2], servers(0, 1), {}, {})) == "2/2 registered"
    assert farm_wait.line(judged(nodes[:2], [], {}, {})) == "0/2 registered, 2 booting"
    mixed = {"i-0": failed(), "i-1": failed() | {"code": "broken_xml"}, "i-2": failed() | {"code": "broken_xml"}}
    assert farm_wait.line(judged(nodes[:3], [], {}, mixed)) == (
        "0/3 registered, 3 failed: 2 broken xml, 1 manager unreachable"
    )


def test_the_complaint_names_each_missing_node_once_and_groups_reasons() -> None:
    nodes = farm_wait.nodes(given(6))
    events = {"i-1": failed(600), "i-2": failed(601), "i-3": failed() | {"code": "broken_xml", "reason": "broken."}}
    text = farm_wait.complaint(judged(nodes, servers(0), {}, events), 6, "more cannot become ready")
    assert text.splitlines() == [
        "1 of 6 nodes are registered, 6 are wanted; more cannot become ready.",
        f"- 2 failed: manager_unreachable in phase manager: {WHY}",
        "  node i-1, node i-2",
        "- 1 failed: broken_xml in phase manager: broken.",
        "  node i-3",
        "- 2 booting: says nothing yet.",
        "  node i-4, node i-5",
    ]


def test_the_complaint_names_a_thousand_nodes_in_lines_of_a_terminal() -> None:
    nodes = [farm_wait.Node("studio-render-node", str(n), f"i-{n:017x}") for n in range(1000)]
    text = farm_wait.complaint(judged(nodes, [], {}, {}), 1000, "x")
    first, reason, *lines = text.splitlines()
    assert first.startswith("0 of 1000") and reason == "- 1000 booting: says nothing yet."
    assert re.split(", |,\n", textwrap.dedent("\n".join(lines))) == [str(node) for node in nodes]
    assert all(line.startswith("  studio-render-node i-") and 50 < len(line) <= 100 for line in lines)


def test_two_nodes_with_one_mac_are_refused() -> None:
    twins = given(2)
    twins[1]["mac"] = "06-00-00-00-00-00"
    with pytest.raises(ValueError, match="node i-0, node i-1 have the same MAC address 06:00:00:00:00:00"):
        farm_wait.nodes(twins)


# ------------------------------------------------------------------------------------------------------------ the loop


class Cloud:
    """`World` as `plugin.Cloud` is seen."""

    def __init__(self, world: World) -> None:
        self.world = world

    def states(self, nodes: object) -> dict[str, tuple[str, str]]:
        self.world.asked.append((self.world.now, "states", 0))
        return self.world.states(self.world.now)

    def events(self, instances: Sequence[str]) -> Mapping[str, dict[str, Any]]:
        return self.world.events(instances)


class World:
    """A manager, EC2 and a clock that moves while somebody waits."""

    def __init__(self, count: int, wanted: int | None = None, *, settle: bool = False) -> None:
        self.now = 0.0
        self.turns = 0
        self.ready_at: dict[int, float] = {}
        self.states: Callable[[float], dict[str, tuple[str, str]]] = lambda now: {}
        self.consoles: Callable[[float], dict[str, dict[str, Any]]] = lambda now: {}
        self.problem: Callable[[float], str] = lambda now: ""
        self.asked: list[tuple[float, str, int]] = []
        self.nodes = farm_wait.nodes(given(count))
        self.wait = plugin.Wait(
            self.nodes,
            count if wanted is None else wanted,
            self.ask,
            Cloud(self),  # type: ignore[arg-type]
            lambda: self.now,
            self.sleep,
            settle=settle,
        )

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def ask(self, seconds: float) -> dict[str, Any]:
        self.turns += 1
        if problem := self.problem(self.now):
            return {"failed": True, "reason": "manager_unreachable", "msg": problem}
        last = max((self.ready_at.get(n, 1e9) for n in range(len(self.nodes))), default=0.0)
        self.now = min(max(last, self.now), self.now + seconds)
        return {"servers": servers(*(n for n, at in self.ready_at.items() if at <= self.now)), "jobs": []}

    def events(self, instances: Sequence[str]) -> Mapping[str, dict[str, Any]]:
        self.asked.append((self.now, "consoles", len(instances)))
        return {key: event for key, event in self.consoles(self.now).items() if key in instances}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(plugin.display, "display", lines.append)
    return lines


def test_the_good_case_asks_once_and_ends_at_once(shown: list[str]) -> None:
    world = World(3)
    world.ready_at = {0: 0.5, 1: 1.0, 2: 2.5}
    result = world.wait.run(900)
    assert (result["registered"], world.turns, world.now) == (3, 1, 2.5) and "failed" not in result
    assert world.asked == [] and shown == [], "EC2 is not asked"
    assert [node["state"] for node in result["nodes"]] == ["registered"] * 3


def test_progress_is_shown_when_it_changes(shown: list[str]) -> None:
    world = World(3)
    world.ready_at = {0: 0.5, 1: 1.0, 2: 20.5}
    result = world.wait.run(900)
    assert result["registered"] == 3 and world.now == 20.5 and world.turns == 6
    assert shown == ["2/3 registered, 1 booting"]
    assert max(number for _, what, number in world.asked if what == "consoles") == 1


def test_it_ends_when_more_cannot_become_ready(shown: list[str]) -> None:
    world = World(3)
    world.ready_at = {0: 0.5}
    world.states = lambda now: {"i-2": ("terminated", "by itself")} if now > 30 else {}
    world.consoles = lambda now: {
        "i-2": failed(),
        "i-1": {"event": "waiting", "phase": "manager", "reason": "nothing yet"},
    }
    result = world.wait.run(900)
    assert result["failed"] and 15 <= world.now < 35
    assert result["msg"].splitlines() == [
        "1 of 3 nodes are registered, 3 are wanted; more cannot become ready.",
        f"- 1 failed: manager_unreachable in phase manager: {WHY}",
        "  node i-2",
        "- 1 booting: waits in phase manager: nothing yet.",
        "  node i-1",
    ]
    assert shown[-1] == "1/3 registered, 1 booting: waits in phase manager, 1 failed: manager unreachable"


def test_enough_is_enough(shown: list[str]) -> None:
    world = World(3, wanted=2)
    world.ready_at = {0: 1.0, 2: 6.0}
    world.states = lambda now: {"i-1": ("terminated", "capacity")}
    result = world.wait.run(900)
    assert result["registered"] == 2 and "failed" not in result
    assert result["nodes"][1]["reason"] == "the instance is terminated: capacity"


def test_it_can_wait_for_all_and_be_content_with_some(shown: list[str]) -> None:
    world = World(3, wanted=2, settle=True)
    world.ready_at = {0: 1.0, 2: 60.0}
    world.states = lambda now: {"i-1": ("terminated", "capacity")} if now > 30 else {}
    result = world.wait.run(900)
    assert (result["registered"], world.now) == (2, 60.0) and "failed" not in result
    assert [node["state"] for node in result["nodes"]] == ["registered", "failed", "registered"]
    assert result["msg"].startswith("2 of 3 nodes are registered, 2 are wanted; no other can become ready.\n- 1 failed")


def test_those_that_do_not_settle_end_with_the_time(shown: list[str]) -> None:
    world = World(3, wanted=2, settle=True)
    world.ready_at = {0: 1.0, 1: 2.0}
    result = world.wait.run(60)
    assert (result["registered"], world.now) == (2, 60.0) and "failed" not in result
    assert "60 seconds have passed" in result["msg"] and "- 1 booting: says nothing yet" in result["msg"]
    world = World(3, wanted=3, settle=True)
    world.ready_at = {0: 1.0, 1: 2.0, 2: 3.0}
    assert "msg" not in world.wait.run(60) and world.now == 3.0


def test_time_is_up(shown: list[str]) -> None:
    world = World(30)
    world.problem = lambda now: "no list of servers." if now > 30 else ""
    result = world.wait.run(60)
    assert result["failed"] and world.now == 60
    first, second, *names = result["msg"].splitlines()
    assert first == (
        "0 of 30 nodes are registered, 30 are wanted; 60 seconds have passed; the manager does not answer: "
        "no list of servers."
    )
    assert second == "- 30 booting: says nothing yet." and names[0].startswith("  node i-0, node i-1, ")
    assert names[-1].endswith("node i-29")
    consoles = [number for _, what, number in world.asked if what == "consoles"]
    assert max(consoles[:-1]) == 10 and consoles[-1] == 30 and sum(map(bool, consoles)) <= 6
    assert shown[-1] == "0/30 registered, 30 booting; the manager does not answer: no list of servers."
    assert "nodes" not in result, "nobody knows how they stand, so none may be ended"
    starts = world.turns
    assert starts <= 60 / 2 + 1, "two seconds between two questions at least"


@pytest.mark.parametrize(("seconds", "asked"), [(0.0, 1000), (4.0, 600)])
def test_at_the_end_all_consoles_are_read_as_fast_as_ec2_allows(shown: list[str], seconds: float, asked: int) -> None:
    """``seconds`` is how long EC2 takes to answer for a batch; what it was not asked is not called silent."""
    world = World(1000)

    def consoles(now: float) -> dict[str, dict[str, Any]]:
        world.now += seconds
        return {}

    world.consoles = consoles
    result = world.wait.run(0)
    reads = [(at, number) for at, what, number in world.asked if what == "consoles" and number]
    assert [number for _, number in reads] == [40] * (asked // 40) and reads[-1][0] - reads[0][0] < 60
    assert all(later - sooner >= 2.0 for (sooner, _), (later, _) in itertools.pairwise(reads))
    assert f"- {asked} booting: says nothing yet.\n  node i-0, " in result["msg"]
    assert ("- 400 booting: its console was not read.\n  node i-600, " in result["msg"]) == (asked == 600)
    assert len(re.findall(r"node i-\d+", result["msg"])) == 1000


def test_an_old_list_does_not_count_when_the_manager_is_gone(shown: list[str]) -> None:
    world = World(1)
    world.problem = lambda now: "gone" if now < 10 else ""
    world.ready_at = {0: 0.0}
    assert world.wait.run(900)["registered"] == 1 and world.now >= 10


def test_a_look_without_nodes(shown: list[str]) -> None:
    world = World(0)
    assert world.wait.run(0) == {"servers": [], "jobs": [], "registered": 0, "nodes": []}
    assert world.turns == 1


# ---------------------------------------------------------------------------------------------------------- the plugin


def test_the_plugin_asks_farmnode_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"servers": servers(0, 1), "jobs": []}
    made = action(
        plugin, {"nodes": given(2), "region": "eu-central-1"}, {"rc": 0, "stdout": json.dumps(said)}, check=True
    )
    result = made.run(task_vars={})
    assert (result["changed"], result["registered"], result["servers"]) == (False, 2, said["servers"])
    (call,) = made._execute_module.calls
    assert call["module_args"]["argv"][-4:] == ["servers", "--jobs", "--wait", "4.0"]
    assert json.loads(call["module_args"]["stdin"]) == ["06:00:00:00:00:00", "06:00:00:00:00:01"]
    assert call["check_mode"] is False and made._task.check_mode is True


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nodes": [{"name": "a", "mac": "x", "instance": "i-1"}]}, "nodes: 'x' is no MAC address"),
        ({"nodes": given(2), "wanted": 3}, "wanted is 3, but there are 2 nodes"),
        ({"nodes": given(2), "wanted": -1}, "wanted is -1"),
        ({"nodes": [{"name": "a"}]}, "missing required arguments"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleError, match=said):
        action(plugin, options | {"region": "eu-central-1"}, {}).run(task_vars={})


def test_an_error_of_ec2_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import NoCredentialsError

    def client(*_: object, **__: object) -> object:
        class Client:
            def get_paginator(self, name: str) -> object:
                raise NoCredentialsError

        return Client()

    monkeypatch.setattr(plugin.boto3.session.Session, "client", client)
    with pytest.raises(plugin.CloudError, match=r"Could not see how the nodes are.*credentials"):
        plugin.Cloud("eu-central-1", None).states(farm_wait.nodes(given(1)))
    assert plugin.Cloud("eu-central-1", None).events([]) == {}
