"""The rules by which a node looks after itself: facts go in, actions come out.

Nothing here reads a clock, a file or the network, so every rule can be tested by itself.  The order of the rules is the
order of their weight: what EC2 does cannot be discussed, a deadline is the user's word, the rest is judgement.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum


@dataclass(frozen=True)
class Limits:
    """Seconds. 0 switches ``idle``, ``deadline`` or ``hung`` off."""

    idle: float = 1800.0
    """Without job process and with low load: the node ends."""
    deadline: float = 43200.0
    """After it began to watch: the node ends, whatever it does."""
    hung: float = 1800.0
    """A job process that neither computes nor logs: restart, then quarantine."""
    manager: float = 900.0
    """Without an answer of the manager: the node ends."""
    rebalance: float = 600.0
    """That a job may go on after EC2's advice to leave."""
    ghost: float = 900.0
    """On the manager: that an absent node may stay on the list."""
    notice: float = 4.0
    """Between two questions for a notice of EC2, which advises to ask every five (EC2 User Guide)."""
    sample: float = 30.0
    """Between two looks at processes, log and manager."""


LIMITS = frozenset(field.name for field in fields(Limits))
#: Those that 0 switches off.
OPTIONAL = frozenset({"idle", "deadline", "hung"})

#: The warning comes this long before the deadline, but not before the last quarter of it.
_WARNING_SECONDS = 900.0
#: A share of all processors. Windows itself needs one or two hundredths.
_LOW_LOAD = 0.05
#: EC2 takes a machine two minutes after its notice; one that it forgot ends itself this long after the announced time.
_FORGOTTEN_SECONDS = 180.0


class Event(StrEnum):
    """What a node says of itself while it watches."""

    WORKING = "working"
    REBALANCE_ADVISED = "rebalance_advised"
    DEADLINE_NEAR = "deadline_near"
    HUNG = "hung"
    QUARANTINED = "quarantined"
    INTERRUPTED = "interrupted"
    REBALANCE = "rebalance"
    DEADLINE = "deadline"
    MANAGER_GONE = "manager_gone"
    IDLE = "idle"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Sample:
    """A look at the machine."""

    job: bool
    """A job's process runs."""
    load: float | None
    """Share of all processors in use since the look before; None when there was none."""
    progress: bool
    """Since the look before a job's process computed, or Backburner's log grew."""
    manager: bool
    """The manager's port takes connections."""


@dataclass(frozen=True)
class Facts:
    """What is known at one moment. ``now`` is the monotonic clock."""

    now: float
    taken_in: float | None = None
    """Seconds until EC2 takes the machine, once it said so."""
    rebalance: bool = False
    """EC2 advises to leave."""
    sample: Sample | None = None


@dataclass(frozen=True)
class Report:
    """Say something and go on."""

    event: Event
    reason: str


@dataclass(frozen=True)
class Restart:
    """Say it, and start Backburner's service anew without what it left behind."""

    event: Event
    reason: str


@dataclass(frozen=True)
class Leave:
    """Take no more frames, let the manager have the running one back, say it, leave no ghost on the manager's list."""

    event: Event
    reason: str


@dataclass(frozen=True)
class StayStopped:
    """See that Backburner's service is stopped, and stop it again if it is not."""


@dataclass(frozen=True)
class End:
    """Shut the machine down."""


Action = Report | Restart | Leave | StayStopped | End


class Mode(StrEnum):
    """Where a node stands."""

    WORKING = "working"
    QUARANTINED = "quarantined"
    TAKEN = "taken"
    """It left and waits for EC2."""
    ENDED = "ended"


@dataclass(frozen=True)
class State:
    """What the rules remember. Times are of the monotonic clock."""

    began: float
    busy: float
    """When it was last not idle."""
    moved: float
    """When a job last made progress, or none ran."""
    heard: float
    """When the manager last answered."""
    mode: Mode = Mode.WORKING
    job: bool | None = None
    """Whether a job's process ran at the last look."""
    restarted: bool = False
    warned: bool = False
    advised: float | None = None
    """When EC2's advice was first seen."""
    end_at: float = 0.0
    """In mode ``taken``: when to end, should EC2 not come."""


def begin(now: float) -> State:
    """The state of a node that has just become ready."""
    return State(began=now, busy=now, moved=now, heard=now)


def step(state: State, facts: Facts, limits: Limits) -> tuple[State, tuple[Action, ...]]:
    """Judge ``facts``; returns what to remember and what to do, in this order."""
    if state.mode is Mode.ENDED:
        return state, ()
    if state.mode is Mode.TAKEN:
        if facts.now < state.end_at:
            return state, ()
        text = "EC2 gave notice and did not take the machine; it ends itself"
        return replace(state, mode=Mode.ENDED), (Report(Event.FORGOTTEN, text), End())
    state = _noted(state, facts)
    if facts.taken_in is not None:
        text = f"EC2 takes the machine back in {facts.taken_in:.0f} seconds"
        end_at = facts.now + facts.taken_in + _FORGOTTEN_SECONDS
        return replace(state, mode=Mode.TAKEN, end_at=end_at), (Leave(Event.INTERRUPTED, text),)
    farewell = _farewell(state, facts.now, limits)
    if farewell is not None:
        return replace(state, mode=Mode.ENDED), (farewell, End())
    return _watched(state, facts, limits)


def _noted(state: State, facts: Facts) -> State:
    """``state`` with what ``facts`` say."""
    now, sample = facts.now, facts.sample
    if facts.rebalance and state.advised is None:
        state = replace(state, advised=now)
    if sample is None:
        return state
    return replace(
        state,
        job=sample.job,
        busy=now if sample.job or sample.load is None or sample.load >= _LOW_LOAD else state.busy,
        moved=now if sample.progress or not sample.job else state.moved,
        heard=now if sample.manager else state.heard,
    )


def _farewell(state: State, now: float, limits: Limits) -> Leave | None:
    """Why the node shall end now, if it shall."""
    if limits.deadline and now - state.began >= limits.deadline:
        return Leave(Event.DEADLINE, f"the node has worked for {_span(now - state.began)}, as long as it may")
    if now - state.heard >= limits.manager:
        return Leave(Event.MANAGER_GONE, f"the manager has not answered for {_span(now - state.heard)}")
    if state.advised is not None and (state.job is False or now - state.advised >= limits.rebalance):
        return Leave(Event.REBALANCE, "EC2 advises to leave, for it may soon take the machine")
    if limits.idle and now - state.busy >= limits.idle:
        return Leave(Event.IDLE, f"no job and no load for {_span(now - state.busy)}")
    return None


def _watched(state: State, facts: Facts, limits: Limits) -> tuple[State, tuple[Action, ...]]:
    """What to do about a node that goes on."""
    now = facts.now
    actions: list[Action] = []
    if state.mode is Mode.QUARANTINED and facts.sample is not None:
        actions.append(StayStopped())
    if state.advised == now:
        text = f"EC2 advises to leave; the running job has {_span(limits.rebalance)} to end"
        actions.append(Report(Event.REBALANCE_ADVISED, text))
    left = state.began + limits.deadline - now
    if limits.deadline and not state.warned and left <= min(_WARNING_SECONDS, limits.deadline / 4):
        state = replace(state, warned=True)
        actions.append(Report(Event.DEADLINE_NEAR, f"the node ends in {_span(left)}, whatever it does"))
    still = now - state.moved
    if limits.hung and state.mode is Mode.WORKING and state.job and still >= limits.hung:
        text = f"the job's process has neither computed nor logged for {_span(still)}"
        if state.restarted:
            state = replace(state, mode=Mode.QUARANTINED)
            actions.append(Leave(Event.QUARANTINED, f"{text}, again after a restart: the node takes no more work"))
        else:
            state = replace(state, restarted=True, moved=now)
            actions.append(Restart(Event.HUNG, f"{text}: Backburner is started anew, once"))
    return state, tuple(actions)


def _span(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
