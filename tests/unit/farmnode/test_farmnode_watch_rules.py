"""The rules of a node's watch, one by one and together, on a clock that is turned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farmnode.watch_rules import (
    Action,
    End,
    Event,
    Facts,
    Leave,
    Limits,
    Mode,
    Report,
    Restart,
    Sample,
    State,
    StayStopped,
    begin,
    step,
)

START = 7.0
RESTING = Sample(job=False, load=0.0, progress=False, manager=True)
RENDERING = Sample(job=True, load=0.9, progress=True, manager=True)
HANGING = Sample(job=True, load=0.0, progress=False, manager=True)
LIMITS = Limits(idle=600, deadline=7200, hung=300, manager=120, rebalance=60, notice=5, sample=30)


class Node:
    """A node whose rules are asked every ``seconds``."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.now = START
        self.state = begin(START)
        self.done: list[tuple[float, Action]] = []

    def live(
        self, seconds: float, sample: Sample | None = RESTING, *, taken_in: float | None = None, advice: bool = False
    ) -> list[Action]:
        """Let time pass, asking each second; returns what was done meanwhile."""
        before = len(self.done)
        for _ in range(int(seconds)):
            self.now += 1
            self.state, actions = step(self.state, Facts(self.now, taken_in, advice, sample), self.limits)
            self.done += [(self.now - START, action) for action in actions]
        return [action for _, action in self.done[before:]]

    @property
    def events(self) -> list[tuple[float, str]]:
        """What was done; what a quarantined node sees to at each look is left out."""
        return [
            (at, "end" if isinstance(action, End) else str(action.event))
            for at, action in self.done
            if not isinstance(action, StayStopped)
        ]


def test_a_node_that_renders_is_left_alone() -> None:
    node = Node(replace(LIMITS, deadline=0))
    assert node.live(10_000, RENDERING) == []
    assert node.state.mode is Mode.WORKING and node.state.job is True


def test_an_idle_node_ends_at_its_limit() -> None:
    node = Node()
    node.live(599)
    assert node.events == []
    assert node.live(1) == [Leave(Event.IDLE, "no job and no load for 10 minutes"), End()]
    busy = Node()
    busy.live(300, RENDERING)
    busy.live(599)
    assert busy.live(1) == [Leave(Event.IDLE, "no job and no load for 10 minutes"), End()]
    assert node.live(1000) == []
    assert node.state.mode is Mode.ENDED


@pytest.mark.parametrize(
    "sample",
    [
        replace(RESTING, job=True, progress=True),
        replace(RESTING, load=0.05),
        replace(RESTING, load=None),
    ],
)
def test_a_job_process_or_load_is_not_idle(sample: Sample) -> None:
    node = Node(replace(LIMITS, deadline=0))
    node.live(5000, sample)
    assert node.events == []
    node.live(599)
    assert node.events == []
    node.live(1)
    assert node.events == [(5600, "idle"), (5600, "end")]


def test_load_below_the_limit_is_idle() -> None:
    node = Node()
    node.live(600, replace(RESTING, load=0.049))
    assert node.events == [(600, "idle"), (600, "end")]


def test_the_deadline_is_announced_and_kept_whatever_the_node_does() -> None:
    node = Node()
    node.live(7300, RENDERING)
    assert node.events == [(6300, "deadline_near"), (7200, "deadline"), (7200, "end")]
    assert node.done[0][1] == Report(Event.DEADLINE_NEAR, "the node ends in 15 minutes, whatever it does")
    assert node.done[1][1] == Leave(Event.DEADLINE, "the node has worked for 2.0 hours, as long as it may")


def test_a_short_deadline_is_announced_in_its_last_quarter() -> None:
    node = Node(replace(LIMITS, deadline=100))
    node.live(100, RENDERING)
    assert node.events == [(75, "deadline_near"), (100, "deadline"), (100, "end")]


def test_a_node_whose_manager_is_gone_ends() -> None:
    node = Node()
    node.live(50, RENDERING)
    node.live(119, replace(RENDERING, manager=False))
    assert node.events == []
    node.live(1, replace(RENDERING, manager=False))
    assert node.events == [(170, "manager_gone"), (170, "end")]
    assert node.done[0][1] == Leave(Event.MANAGER_GONE, "the manager has not answered for 2 minutes")


def test_a_manager_that_comes_back_in_time_is_forgiven() -> None:
    node = Node()
    for _ in range(5):
        node.live(100, replace(RENDERING, manager=False))
        node.live(1, RENDERING)
    assert node.events == []


def test_without_a_look_at_the_machine_only_clocks_run() -> None:
    node = Node()
    assert node.live(119, None) == []
    assert node.state.job is None
    node.live(1, None)
    assert node.events == [(120, "manager_gone"), (120, "end")]


def test_a_hung_render_is_restarted_once_then_the_node_is_quarantined() -> None:
    node = Node()
    node.live(10, RENDERING)
    node.live(299, HANGING)
    assert node.events == []
    text = "the job's process has neither computed nor logged for 5 minutes"
    assert node.live(1, HANGING) == [Restart(Event.HUNG, f"{text}: Backburner is started anew, once")]
    assert node.state.mode is Mode.WORKING
    assert node.live(299, HANGING) == []
    assert node.live(1, HANGING) == [
        Leave(Event.QUARANTINED, f"{text}, again after a restart: the node takes no more work")
    ]
    assert node.state.mode is Mode.QUARANTINED
    assert node.live(599) == [StayStopped()] * 599
    assert StayStopped() not in node.live(1)
    assert node.events[-2:] == [(1210, "idle"), (1210, "end")]


def test_a_quarantined_node_is_not_restarted_again() -> None:
    node = Node(replace(LIMITS, deadline=0))
    node.live(5000, HANGING)
    assert [name for _, name in node.events] == ["hung", "quarantined"]


def test_quarantine_is_seen_to_at_each_look_and_only_then() -> None:
    node = Node(replace(LIMITS, deadline=0))
    assert StayStopped() not in node.live(600, HANGING)
    assert node.state.mode is Mode.QUARANTINED
    assert node.live(3, HANGING) == [StayStopped()] * 3
    assert node.live(3, None) == []
    advised = node.live(1, HANGING, advice=True)
    assert [type(action) for action in advised] == [StayStopped, Report]


@pytest.mark.parametrize("sample", [RENDERING, replace(HANGING, progress=True), replace(HANGING, job=False)])
def test_progress_or_no_job_is_no_hang(sample: Sample) -> None:
    node = Node(replace(LIMITS, idle=0))
    for _ in range(5):
        node.live(299, HANGING)
        node.live(1, sample)
    assert node.events == []


def test_an_interrupted_node_leaves_and_waits_for_ec2() -> None:
    node = Node()
    node.live(10, RENDERING)
    assert node.live(1, RENDERING, taken_in=118.4) == [
        Leave(Event.INTERRUPTED, "EC2 takes the machine back in 118 seconds")
    ]
    assert node.live(200, RESTING, taken_in=0.0) == []
    assert node.state.mode is Mode.TAKEN


def test_an_interrupted_node_that_ec2_forgot_ends_itself() -> None:
    node = Node()
    node.live(1, taken_in=100.0)
    node.live(279, taken_in=0.0)
    assert [name for _, name in node.events] == ["interrupted"]
    node.live(1, taken_in=0.0)
    assert node.events == [(1, "interrupted"), (281, "forgotten"), (281, "end")]
    assert node.done[1][1] == Report(Event.FORGOTTEN, "EC2 gave notice and did not take the machine; it ends itself")
    assert node.live(10, taken_in=0.0) == []


def test_a_notice_counts_without_a_look_at_the_machine_and_in_quarantine() -> None:
    node = Node(replace(LIMITS, deadline=0))
    node.live(700, HANGING)
    assert node.state.mode is Mode.QUARANTINED
    assert [type(action) for action in node.live(1, None, taken_in=60.0)] == [Leave]


def test_a_notice_goes_before_every_other_rule() -> None:
    node = Node(Limits(idle=1, deadline=1, hung=1, manager=1))
    node.live(1, replace(HANGING, manager=False), taken_in=120.0, advice=True)
    assert node.events == [(1, "interrupted")]


def test_advice_makes_a_resting_node_leave_at_once() -> None:
    node = Node()
    node.live(10)
    assert node.live(1, advice=True) == [
        Leave(Event.REBALANCE, "EC2 advises to leave, for it may soon take the machine"),
        End(),
    ]


def test_advice_lets_a_job_end() -> None:
    node = Node()
    node.live(10, RENDERING)
    text = "EC2 advises to leave; the running job has 60 seconds to end"
    assert node.live(30, RENDERING, advice=True) == [Report(Event.REBALANCE_ADVISED, text)]
    node.live(1, RESTING, advice=True)
    assert node.events[1:] == [(41, "rebalance"), (41, "end")]


def test_advice_has_a_limit() -> None:
    node = Node()
    node.live(10, RENDERING)
    node.live(100, RENDERING, advice=True)
    assert node.events == [(11, "rebalance_advised"), (71, "rebalance"), (71, "end")]


def test_advice_before_the_first_look_waits_for_it() -> None:
    node = Node()
    assert [type(action) for action in node.live(5, None, advice=True)] == [Report]
    assert [type(action) for action in node.live(1, RESTING, advice=True)] == [Leave, End]


def test_the_rules_hold_between_their_limits_too() -> None:
    """A machine that was busy elsewhere asks late: what was due meanwhile is due now."""
    state = begin(10.0)
    limits = Limits(idle=100, deadline=1000, hung=100, manager=100)
    state, actions = step(state, Facts(10.0 + 900, sample=RENDERING), limits)
    assert actions == (Report(Event.DEADLINE_NEAR, "the node ends in 100 seconds, whatever it does"),)
    state, actions = step(state, Facts(10.0 + 900 + 99, sample=replace(RENDERING, manager=False)), limits)
    assert actions == ()
    state, actions = step(state, Facts(5000.0), limits)
    assert actions == (Leave(Event.DEADLINE, "the node has worked for 83 minutes, as long as it may"), End())
    for sample, event in ((HANGING, Event.HUNG), (RESTING, Event.IDLE)):
        state, actions = step(begin(10.0), Facts(460.0, sample=sample), replace(limits, deadline=0))
        assert [action.event for action in actions if not isinstance(action, End)] == [event]
    for late, text in (
        (247.0, "4 minutes"),
        (10.0 + 7199, "120 minutes"),
        (10.0 + 9000, "2.5 hours"),
        (10.0 + 997_200, "277.0 hours"),
    ):
        _, actions = step(begin(10.0), Facts(late), Limits(manager=100, deadline=0))
        assert actions == (Leave(Event.MANAGER_GONE, f"the manager has not answered for {text}"), End())
    for advised, expected in ((Facts(11.0, rebalance=True), Event.REBALANCE_ADVISED), (Facts(11.0), None)):
        state, actions = step(begin(10.0), advised, replace(limits, deadline=0))
        assert [action.event for action in actions if isinstance(action, Report)] == ([expected] if expected else [])
    _, actions = step(begin(0.0), Facts(75.8, sample=RENDERING), replace(limits, deadline=101))
    assert [type(action) for action in actions] == [Report]
    state = replace(begin(10.0), advised=11.0)
    _, actions = step(state, Facts(500.0, rebalance=True, sample=RENDERING), replace(limits, deadline=0, rebalance=100))
    assert [type(action) for action in actions] == [Leave, End]
    taken, _ = step(begin(10.0), Facts(20.0, taken_in=30.0), limits)
    assert step(taken, Facts(229.0), limits) == (taken, ())
    assert step(taken, Facts(500.0), limits)[1][1] == End()


def test_what_is_switched_off_stays_off() -> None:
    node = Node(Limits(idle=0, deadline=0, hung=0, manager=1e9))
    node.live(100_000, HANGING)
    node.live(100_000, RESTING)
    assert node.events == []


def test_the_weight_of_the_rules() -> None:
    """Deadline before manager before advice before idleness, when all come at once."""
    limits = Limits(idle=10, deadline=10, hung=10, manager=10, rebalance=10)
    order = []
    for off in ({}, {"deadline": 0}, {"deadline": 0, "manager": 99}, {"deadline": 0, "manager": 99, "rebalance": 99}):
        state = replace(begin(START), advised=START, job=True)
        _, actions = step(state, Facts(START + 10, rebalance=True), replace(limits, **off))
        order.append(str(actions[0].event))  # type: ignore[union-attr]
    assert order == ["deadline", "manager_gone", "rebalance", "idle"]


def test_the_defaults_are_those_of_the_settings() -> None:
    assert Limits() == Limits(1800, 43200, 1800, 900, 600, 900, 4, 30)
    assert begin(5.0) == State(5.0, 5.0, 5.0, 5.0, Mode.WORKING, None, False, False, None, 0.0)
