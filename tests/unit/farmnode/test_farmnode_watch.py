"""The watch of a node and of the manager: where facts come from, and what is done about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import FARM, NODE, Bench, FakeClock, FakeWindows, instance

from farmnode import drives, jobs, manager, reminder, watch, watch_facts
from farmnode.errors import FarmNodeError
from farmnode.farm import parse_user_data
from farmnode.manager import Server
from farmnode.programs import Completed
from farmnode.services import SERVER
from farmnode.status import status
from farmnode.watch_facts import FactsOfNode, seconds_left
from farmnode.watch_manager import ManagerWatch, is_node
from farmnode.watch_rules import Event, Facts, Limits, Sample, StayStopped

HANDLE = "06112233445F0000"
LIMITS = '{"idle":60,"deadline":0,"hung":30,"manager":40,"notice":5,"sample":10,"ghost":100}'


def row(image: str, number: int, time: str) -> str:
    return f'"{image}","{number}","Services","0","8,192 K","Unknown","NT AUTHORITY\\SYSTEM","{time}","N/A"'


class Tasks:
    """tasklist.exe and taskkill.exe; ``rows`` are image, number, seconds of processor time."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int]] = []
        self.broken = False

    def put_into(self, windows: FakeWindows) -> None:
        windows.__dict__["_tasklist"] = self.listed
        windows.__dict__["_taskkill"] = self.kill

    def listed(self, *arguments: str) -> Completed:
        assert arguments == ("/v", "/fo", "csv", "/nh")
        if self.broken:
            return Completed(1, "", "ERROR: The RPC server is unavailable.")
        rows = [("Leerlaufprozess", 0, 999_999), ("svchost.exe", 8, 0), *self.rows]
        return Completed(
            0, "".join(row(i, n, f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}") + "\r\n" for i, n, s in rows), ""
        )

    def kill(self, *arguments: str) -> Completed:
        assert arguments[:2] == ("/f", "/im")
        self.rows = [entry for entry in self.rows if entry[0] != arguments[2]]
        return Completed(0, "SUCCESS", "")


class Imds:
    """The metadata service; ``silent`` breaks it."""

    def __init__(self, life_cycle: bytes = b"spot") -> None:
        self.pages = {"meta-data/instance-life-cycle": life_cycle}
        self.silent = False
        self.asked: list[str] = []

    def get(self, path: str) -> bytes | None:
        self.asked.append(path)
        if self.silent:
            raise FarmNodeError("metadata", "no answer")
        return self.pages.get(path)


class Manager:
    """The manager as a node sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up = True
        self.states: dict[str, str] = {HANDLE: "busy"}
        self.names: dict[str, str] = {HANDLE: NODE.name}
        self.deleted: list[str] = []
        self.refusal: FarmNodeError | None = None
        monkeypatch.setattr(manager, "resolve", lambda name: str(name))
        monkeypatch.setattr(manager, "listens", lambda *_, **__: self.up)
        monkeypatch.setattr(manager, "servers", self.servers)
        monkeypatch.setattr(manager, "delete", self.delete)

    def servers(self, *_: object) -> list[Server]:
        if not self.up:
            raise FarmNodeError("manager_unreachable", "no answer")
        return [Server(handle, state, self.names.get(handle, "x")) for handle, state in self.states.items()]

    def delete(self, address: str, port: int, handle: str, clock: object) -> None:
        if self.refusal:
            raise self.refusal
        assert self.states.pop(handle) == manager.ABSENT
        self.deleted.append(handle)


@pytest.fixture
def tasks(bench: Bench) -> Tasks:
    made = Tasks()
    made.put_into(bench.windows)
    return made


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Manager:
    return Manager(monkeypatch)


@pytest.fixture
def imds(monkeypatch: pytest.MonkeyPatch) -> Imds:
    made = Imds()
    monkeypatch.setattr(watch_facts, "MetadataClient", lambda *_, **__: made)
    return made


# ---------------------------------------------------------------------------------------------------------- processes


def test_the_task_list_is_read_by_position() -> None:
    text = "\r\n".join([row("System Idle Process", 0, "120:00:00"), "", row("3dsmax.exe", 12, "1:02:03")])
    assert jobs.parse(text) == [jobs.Process("3dsmax.exe", 12, 3723.0)]


@pytest.mark.parametrize("line", ['"a","1"', row("a", 1, "N/A"), row("a.exe", 1, "0:00:00").replace('"1"', '"x"')])
def test_a_task_list_that_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(FarmNodeError, match=r"tasklist\.exe printed"):
        jobs.parse(line)


@pytest.mark.parametrize(
    ("image", "of_job"),
    [("3dsmax.exe", True), ("3dsMax.EXE", True), ("maxadapter.adp.exe", True), ("serversvc.exe", False)],
)
def test_processes_of_jobs(image: str, of_job: bool) -> None:
    assert jobs.Process(image, 1, 0.0).of_job is of_job


def test_the_adapter_is_ended_before_its_renderer(bench: Bench, tasks: Tasks) -> None:
    tasks.rows = [("3dsmax.exe", 20, 1), ("maxadapter.adp.exe", 16, 0), ("notepad.exe", 24, 0), ("3dsmax.exe", 28, 0)]
    jobs.end(bench.windows, bench.machine.log)
    assert bench.windows.called("taskkill.exe") == [
        ["taskkill.exe", "/f", "/im", "maxadapter.adp.exe"],
        ["taskkill.exe", "/f", "/im", "3dsmax.exe"],
    ]
    assert tasks.rows == [("notepad.exe", 24, 0)]


def test_a_renderer_that_ended_with_its_adapter_is_ended(bench: Bench, tasks: Tasks) -> None:
    tasks.rows = [("3dsmax.exe", 20, 1), ("maxadapter.adp.exe", 16, 0)]
    gone = Completed(128, "", 'ERROR: The process "3dsmax.exe" not found.')
    bench.windows.answers[("taskkill.exe", "/f", "/im", "3dsmax.exe")] = gone
    jobs.end(bench.windows, bench.machine.log)


def test_what_cannot_be_ended_keeps_nothing_else_alive(bench: Bench, tasks: Tasks) -> None:
    tasks.rows = [("3dsmax.exe", 20, 1), ("maxadapter.adp.exe", 16, 0)]
    refusal = Completed(1, "", "ERROR: Access is denied.")
    bench.windows.answers[("taskkill.exe", "/f", "/im", "maxadapter.adp.exe")] = refusal
    with pytest.raises(FarmNodeError, match=r"^taskkill\.exe /f /im maxadapter\.adp\.exe ended with 1: .*denied\.$"):
        jobs.end(bench.windows, bench.machine.log)
    assert tasks.rows == [("maxadapter.adp.exe", 16, 0)]


# -------------------------------------------------------------------------------------------------------------- facts


class Looker:
    """Facts of one machine."""

    def __init__(self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imds: Imds) -> None:
        monkeypatch.setattr(watch_facts.os, "cpu_count", lambda: 4)
        self.log = tmp_path / "backburner.log"
        self.clock: FakeClock = bench.clock
        self.facts = FactsOfNode(
            clock=bench.clock,
            programs=bench.windows,
            log=bench.machine.log,
            limits=Limits(sample=10),
            manager_at=("10.0.0.10", 3234),
            job_log=self.log,
            metadata=imds,
        )

    def look(self, seconds: float = 10.0) -> Sample:
        self.clock.passed += seconds
        sample = self.facts.now().sample
        assert sample is not None
        return sample


@pytest.fixture
def looker(bench: Bench, tasks: Tasks, farm: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looker:
    return Looker(bench, tmp_path, monkeypatch, Imds())


def test_a_look_is_taken_only_when_it_is_due(looker: Looker, bench: Bench) -> None:
    assert [looker.facts.now().sample is not None for _ in range(3)] == [True, False, False]
    looker.clock.passed += 9.9
    assert looker.facts.now().sample is None
    looker.clock.passed += 0.1
    assert looker.facts.now().sample is not None
    assert len(bench.windows.called("tasklist.exe")) == 2


def test_load_is_the_share_of_all_processors(looker: Looker, tasks: Tasks) -> None:
    tasks.rows = [("x.exe", 4, 100)]
    assert looker.look() == Sample(job=False, load=None, progress=True, manager=True)
    tasks.rows = [("x.exe", 4, 110), ("new.exe", 12, 6)]
    assert looker.look() == Sample(job=False, load=16 / 10 / 4, progress=False, manager=True)
    tasks.rows = [("other.exe", 4, 2)]  # the number was given away again
    assert looker.look().load == 2 / 10 / 4


@pytest.mark.parametrize(
    ("seconds", "used", "progress"), [(10, 1, False), (10, 2, True), (60, 3, False), (60, 4, True)]
)
def test_a_program_behind_a_dialog_computes_next_to_nothing(
    looker: Looker, tasks: Tasks, seconds: int, used: int, progress: bool
) -> None:
    tasks.rows = [("3dsmax.exe", 4, 100)]
    looker.look()
    tasks.rows = [("3dsmax.exe", 4, 100 + used), ("busy.exe", 8, 999)]
    sample = looker.look(seconds)
    assert (sample.job, sample.progress) == (True, progress)


def test_a_log_that_grows_is_progress(looker: Looker, tasks: Tasks) -> None:
    tasks.rows = [("3dsmax.exe", 4, 100)]
    looker.look()
    assert not looker.look().progress
    looker.log.write_text("INF")
    assert looker.look().progress
    assert not looker.look().progress


def test_a_log_that_cannot_be_looked_at_is_empty(looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
    looker.log.write_text("INF")
    looker.look()

    def moved(self: Path, **_: object) -> None:
        raise PermissionError("it is just being moved")

    monkeypatch.setattr(Path, "stat", moved)
    assert looker.look().progress
    assert not looker.look().progress


def test_no_error_of_a_source_hides_another(looker: Looker, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "parse", lambda text: 1 // 0)
    monkeypatch.setattr(Imds, "get", lambda *_: {}["x"])
    assert looker.look() == looker.look() == Sample(job=True, load=None, progress=True, manager=True)
    assert bench.log.count("the task list does not answer: ") == 1
    assert bench.log.count("the metadata service does not answer: 'x'") == 1


def test_nothing_is_held_against_a_node_whose_task_list_fails(looker: Looker, tasks: Tasks, bench: Bench) -> None:
    tasks.broken = True
    assert looker.look() == looker.look() == Sample(job=True, load=None, progress=True, manager=True)
    tasks.broken = False
    looker.look()
    assert bench.log.count("the task list does not answer: tasklist.exe /v /fo csv /nh ended with 1") == 1
    assert bench.log.count("the task list answers again") == 1


def test_notices_of_ec2(looker: Looker, bench: Bench, imds: Imds) -> None:
    asked = looker.facts._metadata
    assert isinstance(asked, Imds)
    assert looker.facts.now().taken_in is None
    asked.pages["meta-data/events/recommendations/rebalance"] = b'{"noticeTime": "2027-01-15T08:00:00Z"}'
    facts = looker.facts.now()
    assert (facts.taken_in, facts.rebalance) == (None, True)
    asked.pages["meta-data/spot/instance-action"] = b'{"action": "terminate", "time": "2027-01-15T08:01:30Z"}'
    assert looker.facts.now().taken_in == 90.0
    asked.silent = True
    facts = looker.facts.now()
    assert (facts.taken_in, facts.rebalance) == (None, False)
    assert bench.log.count("the metadata service does not answer: no answer") == 1


def test_an_on_demand_machine_is_not_asked_for_notices(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imds = Imds(b"on-demand")
    looker = Looker(bench, tmp_path, monkeypatch, imds)
    looker.facts._next_sample = 1e9
    assert looker.facts.now() == looker.facts.now() == Facts(0.0)
    assert imds.asked == ["meta-data/instance-life-cycle"]


@pytest.mark.parametrize(
    ("notice", "seconds"),
    [
        (b'{"action": "terminate", "time": "2027-01-15T08:01:00Z"}', 60.0),
        (b'{"action": "stop", "time": "2027-01-15T09:01:00Z"}', 120.0),
        (b'{"action": "stop", "time": "2027-01-15T07:01:00Z"}', 0.0),
        (b'{"action": "stop"}', 0.0),
        (b'{"time": 7}', 0.0),
        (b"soon", 0.0),
    ],
)
def test_seconds_that_a_notice_leaves(notice: bytes, seconds: float) -> None:
    assert seconds_left(notice, 1_800_000_000.0) == seconds


# --------------------------------------------------------------------------------------------------------- the node


def booted(bench: Bench, role: str = "render_node", event: str = "ready", watch_limits: str = LIMITS) -> None:
    bench.metadata.answer = instance(FARM % (role, f',"watch":{watch_limits}'))
    bench.machine.state.update(
        role=role,
        boot={"event": event, "role": role, "instance": "i-0123456789abcdef0", **NODE.as_json()},
        backburner_xml=r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner\backburner.xml",
    )
    bench.windows.services[SERVER].state = 4


def said(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line.split(b" ", 1)[1]) for line in bench.windows.serial]


def note(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bench.machine.folder / "watch.json").read_text())
    return found


def at(bench: Bench, when: dict[float, Callable[[], None]]) -> None:
    """Have things happen when the clock gets there."""
    pending = dict(sorted(when.items()))

    def on_call(words: list[str]) -> None:
        while pending and bench.clock.passed >= next(iter(pending)):
            pending.pop(next(iter(pending)))()

    bench.windows.on_call = on_call


def test_an_idle_node_says_so_leaves_no_ghost_and_shuts_down(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds
) -> None:
    booted(bench)
    farm.states = {HANDLE: "idle", "0" * 16: "busy"}

    def stopped(words: list[str]) -> None:
        if words[:2] == ["sc.exe", "stop"]:
            farm.states[HANDLE] = manager.ABSENT

    bench.windows.on_call = stopped
    result = watch.watch(bench.machine)
    assert said(bench) == [result]
    assert result == {
        "event": "idle",
        "version": 1,
        "time": result["time"],
        "instance": "i-0123456789abcdef0",
        "role": "render_node",
        "name": NODE.name,
        "mac": NODE.mac,
        "address": NODE.address,
        "seconds": pytest.approx(60, abs=15),
        "reason": "no job and no load for 60 seconds",
    }
    assert farm.deleted == [HANDLE] and farm.states == {"0" * 16: "busy"}
    assert bench.windows.services[SERVER].state == 1
    assert bench.windows.calls[-1] == ["shutdown.exe", "/s", "/f", "/t", "0"]
    assert note(bench) == {"event": "idle", "since": result["time"], "reason": result["reason"], "job": False}


def test_a_notice_mid_frame(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench)
    tasks.rows = [("maxadapter.adp.exe", 16, 0), ("3dsmax.exe", 20, 0)]

    def announce() -> None:
        imds.pages["meta-data/spot/instance-action"] = b'{"action": "terminate", "time": "2027-01-15T08:02:00Z"}'

    def absent_late() -> None:
        farm.states[HANDLE] = manager.ABSENT

    at(bench, {20: announce, 200: lambda: None})
    bench.clock.sleep = lambda seconds: (  # type: ignore[method-assign]
        setattr(bench.clock, "passed", bench.clock.passed + seconds),
        absent_late() if bench.windows.services[SERVER].state == 1 and farm.states else None,
    )[0]
    result = watch.watch(bench.machine)
    assert [line["event"] for line in said(bench)] == ["interrupted", "forgotten"]
    assert result["event"] == "forgotten"
    assert tasks.rows == [] and farm.deleted == [HANDLE]
    stop = bench.windows.calls.index(["sc.exe", "stop", SERVER])
    assert bench.windows.calls[stop:].index(["taskkill.exe", "/f", "/im", "3dsmax.exe"]) < 10
    assert bench.windows.called("shutdown.exe") == [["shutdown.exe", "/s", "/f", "/t", "0"]]


def test_a_ghost_that_cannot_be_deleted_does_not_keep_a_node_alive(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds
) -> None:
    booted(bench)
    farm.states = {HANDLE: manager.ABSENT}
    farm.refusal = FarmNodeError("manager_protocol", "somebody else controls the queue")
    assert watch.watch(bench.machine)["event"] == "idle"
    assert f"{HANDLE} stays on the manager's list: somebody else controls the queue" in bench.log
    assert bench.clock.passed < 60 + 15 + 45


def test_a_node_without_manager_ends_without_asking_it(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench)
    farm.up = False
    assert watch.watch(bench.machine)["event"] == "manager_gone"
    assert farm.deleted == [] and bench.clock.passed == pytest.approx(40, abs=11)


def test_a_hung_render_is_restarted_then_quarantined(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench)
    tasks.rows = [("3dsmax.exe", 20, 0)]
    farm.states = {HANDLE: "busy"}
    starts: list[float] = []

    def on_call(words: list[str]) -> None:
        if words[:2] == ["sc.exe", "start"]:
            starts.append(bench.clock.passed)
            tasks.rows = [("3dsmax.exe", 40, 0)]
        if words[:2] == ["sc.exe", "stop"] and starts:
            farm.states = {HANDLE: manager.ABSENT}

    bench.windows.on_call = on_call
    result = watch.watch(bench.machine)
    assert [line["event"] for line in said(bench)] == ["hung", "quarantined", "idle"]
    assert len(starts) == 1 and set(farm.deleted) == {HANDLE}
    assert result["event"] == "idle"


def test_nothing_ends_the_watch_but_its_rules(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench)
    farm.states = {}
    bench.windows.answers[("sc.exe", "stop")] = Completed(5, "[SC] OpenService FAILED 5:", "")
    refused = [Completed(1, "", "later"), Completed(1, "", "later")]

    def shutdown(*arguments: str) -> Completed:
        return refused.pop() if refused else Completed(0, "", "")

    bench.windows.__dict__["_shutdown"] = shutdown
    assert watch.watch(bench.machine)["event"] == "idle"
    assert len(bench.windows.called("shutdown.exe")) == 3
    assert "FAILED 5" in bench.log


def test_an_unforeseen_error_in_an_action_is_logged(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted(bench)
    tasks.rows = [("3dsmax.exe", 20, 0)]
    calls: list[str] = []

    def fail(*_: object) -> None:
        calls.append("end")
        tasks.rows = []
        raise (ZeroDivisionError if len(calls) == 1 else FarmNodeError)(*(() if len(calls) == 1 else ("program", "no")))

    monkeypatch.setattr(jobs, "end", fail)
    farm.states = {}
    assert watch.watch(bench.machine)["event"] == "idle"
    assert "ZeroDivisionError" in bench.log


def test_a_full_disk_does_not_end_the_watch(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted(bench)
    farm.states = {}

    def full(path: Path, data: bytes) -> None:
        raise FarmNodeError("disk_full", "no room")

    monkeypatch.setattr(watch.files, "write", full)
    assert watch.watch(bench.machine)["event"] == "idle"
    assert "no room" in bench.log


@pytest.mark.parametrize("event", ["ready", "failed", "booting"])
def test_a_builder_is_not_watched(bench: Bench, event: str) -> None:
    bench.machine.state.update(boot={"event": event, "role": "builder"})
    assert watch.watch(bench.machine) == {"event": "nothing_to_watch", "role": "builder", "boot": event}
    assert bench.windows.calls == []


@pytest.mark.parametrize("memory", [{}, {"boot": {}}, {"boot": "x"}])
def test_a_machine_that_never_booted_is_not_watched(bench: Bench, memory: dict[str, Any]) -> None:
    bench.machine.state.update(**memory)
    assert watch.watch(bench.machine) == {"event": "nothing_to_watch", "role": None, "boot": "none"}
    assert bench.windows.calls == []


# ------------------------------------------------------------------------------------------ a node that nobody watches


def refuse_shutdown(bench: Bench, times: int) -> None:
    refused = [Completed(5, "", "Access is denied.(5)")] * times
    bench.windows.__dict__["_shutdown"] = lambda *_: refused.pop() if refused else Completed(0, "", "")


@pytest.mark.parametrize("role", ["render_node", "remote_node", None])
def test_a_failed_node_ends_however_often_windows_refuses(bench: Bench, role: str | None) -> None:
    bench.machine.state.update(boot={"event": "failed", "role": role, "reason": "no share"})
    refuse_shutdown(bench, 7)
    assert watch.watch(bench.machine) == {"event": "failed", "role": role, "reason": "no share"}
    assert len(bench.windows.called("shutdown.exe")) == 8 and bench.clock.passed == 7 * 30
    assert bench.log.count("shutdown: shutdown.exe /s /f /t 0 ended with 5") == 1
    assert said(bench) == [], "the boot said it"


def test_a_failed_manager_stays_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its boot could not find out again what it is: its memory has the role of boots before."""
    bench.machine.state.update(role="manager", boot={"event": "failed"})
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1000:
            bench.metadata.answer = instance(FARM % ("manager", ""))

    monkeypatch.setattr(bench.clock, "sleep", sleep)
    monkeypatch.setattr(ManagerWatch, "run", lambda self: {"event": "manager watched"})
    assert watch.watch(bench.machine) == {"event": "manager watched"}
    assert pauses == [5] * 1000 and bench.windows.calls == []
    assert bench.log.count("start of the watch: the metadata service is silent.") == 1
    assert "start of the watch: works again" in bench.log


def test_what_the_last_boot_found_goes_before_what_was_known_earlier(bench: Bench) -> None:
    bench.machine.state.update(role="manager", boot={"event": "failed", "role": "render_node"})
    watch.watch(bench.machine)
    assert bench.windows.called("shutdown.exe")


def cut(bench: Bench, **more: Any) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    bench.machine.state.update(boot={"event": "booting", "phase": "services", **more})
    bench.windows.services[SERVER].state = 4


def test_a_node_whose_boot_was_cut_says_so_leaves_and_ends(bench: Bench, farm: Manager) -> None:
    cut(bench, role="render_node", instance="i-0123456789abcdef0", **NODE.as_json())
    farm.states = {HANDLE: manager.ABSENT}
    refuse_shutdown(bench, 2)
    result = watch.watch(bench.machine)
    assert said(bench) == [result]
    assert (result["event"], result["phase"], result["code"], result["mac"]) == ("failed", "services", "cut", NODE.mac)
    assert result["reason"].startswith("farmnode boot was ended in its phase services; see C:\\ProgramData")
    assert bench.windows.services[SERVER].state == 1 and farm.deleted == [HANDLE]
    assert len(bench.windows.called("shutdown.exe")) == 3
    assert note(bench)["event"] == "failed"


def test_a_boot_that_was_cut_early_asks_ec2_what_the_machine_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(bench)
    result = watch.watch(bench.machine)
    assert (result["role"], result["code"]) == ("render_node", "cut")
    bench.windows.calls.clear()
    monkeypatch.setattr(ManagerWatch, "run", lambda self: {"event": "manager watched"})
    bench.metadata.answer = instance(FARM % ("manager", ""))
    assert watch.watch(bench.machine) == {"event": "manager watched"}
    bench.metadata.answer = instance(FARM % ("builder", ""))
    assert watch.watch(bench.machine)["event"] == "nothing_to_watch"
    assert bench.windows.calls == []


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda bench: setattr(bench.metadata, "answer", None), "metadata"),
        (lambda bench: setattr(bench.metadata, "answer", instance("")), "bad_user_data"),
        (lambda bench: bench.machine.state.update(boot={"event": "ready", "role": "render_node"}), "unexpected"),
        (lambda bench: bench.machine.state.path.write_text("{"), "broken_state"),
    ],
)
def test_a_node_that_cannot_begin_to_watch_ends(
    bench: Bench, farm: Manager, break_it: Callable[[Bench], object], code: str
) -> None:
    booted(bench)
    farm.states = {}
    break_it(bench)
    result = watch.watch(bench.machine)
    assert (result["event"], result["phase"], result["code"]) == ("failed", "watch", code)
    assert said(bench) == [result] and 900 <= result["seconds"] <= 905
    assert bench.log.count("start of the watch: ") == 1
    assert bench.windows.calls[-1] == ["shutdown.exe", "/s", "/f", "/t", "0"]


def test_a_manager_that_lost_its_memory_stays_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    booted(bench, role="manager")
    text = bench.machine.state.path.read_text()
    bench.machine.state.path.write_text("{")
    monkeypatch.setattr(ManagerWatch, "run", lambda self: {"event": "manager watched"})

    def sleep(seconds: float) -> None:
        bench.clock.passed += seconds
        if bench.clock.passed > 5000:
            bench.machine.state.path.write_text(text)

    monkeypatch.setattr(bench.clock, "sleep", sleep)
    assert watch.watch(bench.machine) == {"event": "manager watched"}
    assert bench.windows.calls == []


def test_a_watch_begins_when_what_stood_in_its_way_has_passed(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted(bench, watch_limits=LIMITS.replace('"deadline":0,"hung":30', '"deadline":700,"hung":0'))
    tasks.rows = [("3dsmax.exe", 20, 0)]
    farm.states = {}

    def resolve(name: str) -> str:
        if bench.clock.passed < 600:
            raise FarmNodeError("unknown_manager", "not yet")
        return name

    monkeypatch.setattr(manager, "resolve", resolve)
    result = watch.watch(bench.machine)
    # Its deadline counts from the beginning, its manager's silence does not.
    assert (result["event"], result["seconds"]) == ("deadline", pytest.approx(700, abs=6))
    assert bench.log.count("start of the watch: not yet") == bench.log.count("start of the watch: works again") == 1


@pytest.mark.parametrize("source", ["now", "step"])
def test_a_turn_that_fails_is_tried_again(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    booted(bench)
    farm.states = {}
    place: Any = FactsOfNode if source == "now" else watch.watch_rules
    original, fails = getattr(place, source), [False] + [True] * 10

    def sometimes(*words: Any) -> Any:
        if fails and fails.pop(0):
            raise ZeroDivisionError("oops")
        return original(*words)

    monkeypatch.setattr(place, source, sometimes)
    assert watch.watch(bench.machine)["event"] in ("idle", "manager_gone")
    assert bench.log.count("ZeroDivisionError: oops") == 1 and bench.log.count("watch: works again") == 1


def test_a_node_whose_turns_all_fail_ends(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, monkeypatch: pytest.MonkeyPatch
) -> None:
    booted(bench)
    farm.states = {HANDLE: manager.ABSENT}
    turns: list[float] = []

    def never(self: FactsOfNode) -> Facts:
        turns.append(bench.clock.passed)
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(FactsOfNode, "now", never)
    result = watch.watch(bench.machine)
    assert (result["event"], result["code"], result["phase"]) == ("failed", "unexpected", "watch")
    assert turns == [5.0 * number for number in range(181)] and farm.deleted == [HANDLE]
    assert bench.log.count("ZeroDivisionError: oops\n") == 1
    assert bench.windows.called("shutdown.exe")


@pytest.mark.parametrize(("takes", "pause"), [(0.0, 5.0), (3.0, 2.0), (4.375, 0.625), (4.5, 0.625), (60.0, 0.625)])
def test_a_turn_begins_every_few_seconds_whatever_it_takes(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, monkeypatch: pytest.MonkeyPatch, takes: float, pause: float
) -> None:
    booted(bench)
    pauses: list[float] = []

    def work(self: watch.NodeWatch) -> None:
        bench.clock.passed += takes

    def sleep(seconds: float) -> None:
        bench.clock.passed += seconds
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.NodeWatch, "_turn", work)
    monkeypatch.setattr(bench.clock, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch.watch(bench.machine)
    assert pauses == [pause] * 3


def stubborn(bench: Bench, tasks: Tasks, *, until_killed: bool) -> None:
    """A service that stops only after its renderer was killed, or never; ``taskkill`` finds no renderer."""
    service = bench.windows.services[SERVER]
    gone = Completed(128, "", 'ERROR: The process "3dsmax.exe" not found.')

    def stop(words: list[str]) -> None:
        if words[:2] == ["sc.exe", "stop"]:
            service.state = 1 if until_killed and bench.windows.called("taskkill.exe") else 3
        if words[0] == "taskkill.exe" and "adp" in words[-1]:
            tasks.rows = []

    bench.windows.on_call = stop
    bench.windows.answers[("sc.exe", "stop")] = Completed(0, "", "")
    bench.windows.answers[("taskkill.exe", "/f", "/im", "3dsmax.exe")] = gone


HUNG = [("maxadapter.adp.exe", 16, 0), ("3dsmax.exe", 20, 0)]


def test_backburner_is_started_though_it_stopped_late(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench)
    tasks.rows = list(HUNG)
    stubborn(bench, tasks, until_killed=True)
    started: list[bool] = []
    at_start = bench.windows.on_call

    def on_call(words: list[str]) -> None:
        at_start(words)
        if words[:2] == ["sc.exe", "start"]:
            started.append(bench.windows.services[SERVER].state == 1)

    bench.windows.on_call = on_call
    farm.states = {}
    assert watch.watch(bench.machine)["event"] == "idle"
    assert [line["event"] for line in said(bench)] == ["hung", "idle"]
    assert started == [True], "it was stopped a second time, and then started"
    assert "stop: works again" in bench.log and "taskkill" not in bench.log


def test_last_words_do_not_wait_for_a_second_stop(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench, watch_limits='{"deadline":0,"idle":0,"hung":0}')
    tasks.rows = list(HUNG)
    stubborn(bench, tasks, until_killed=False)
    farm.states = {}
    imds.pages["meta-data/spot/instance-action"] = b'{"action": "terminate", "time": "2027-01-15T08:02:00Z"}'
    assert watch.watch(bench.machine)["event"] == "forgotten"
    words = said(bench)[0]
    assert words["event"] == "interrupted" and 60 <= words["seconds"] < 62
    assert len(bench.windows.called("sc.exe", "stop")) == 2


@pytest.mark.parametrize("broken", ["sc.exe stop", "taskkill.exe", "tasklist.exe"])
def test_the_start_is_tried_whatever_went_wrong_before(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds, broken: str
) -> None:
    booted(bench)
    tasks.rows = [("3dsmax.exe", 20, 0)]
    farm.states = {}
    starts: list[list[str]] = []

    def on_call(words: list[str]) -> None:
        if words[:2] == ["sc.exe", "stop"]:
            bench.windows.answers[tuple(broken.split())] = Completed(1, "", "broken")
        if words[:2] == ["sc.exe", "start"]:
            starts.append(words)
            bench.windows.answers.clear()
            bench.windows.services[SERVER].state = 1
            tasks.rows = []

    bench.windows.on_call = on_call
    watch.watch(bench.machine)
    assert len(starts) == 1 and "broken" in bench.log


def test_a_quarantined_service_is_stopped_until_it_is(bench: Bench, tasks: Tasks, farm: Manager, imds: Imds) -> None:
    booted(bench, watch_limits=LIMITS.replace('"idle":60', '"idle":600'))
    tasks.rows = [("3dsmax.exe", 20, 0)]
    farm.states = {HANDLE: "busy"}
    service, stops = bench.windows.services[SERVER], []

    def on_call(words: list[str]) -> None:
        if words[:2] == ["sc.exe", "start"]:
            tasks.rows = [("3dsmax.exe", 40, 0)]
        quarantined = any(line["event"] == "quarantined" for line in said(bench))
        if words[:2] == ["sc.exe", "stop"]:
            stops.append(quarantined)
            bench.windows.answers.pop(("sc.exe", "stop"), None)
            if stops.count(True) < 2 and bench.windows.called("sc.exe", "start"):
                bench.windows.answers["sc.exe", "stop"] = Completed(5, "[SC] ControlService FAILED 5:", "")
            else:
                farm.states = {HANDLE: manager.ABSENT}

    bench.windows.on_call = on_call
    watch.watch(bench.machine)
    assert [line["event"] for line in said(bench)] == ["hung", "quarantined", "idle"]
    assert stops.count(True) >= 2 and service.state == 1 and farm.deleted
    assert "BACKBURNER_SRV_200 runs in quarantine" in bench.log


def test_a_service_that_somebody_starts_in_quarantine_is_stopped(
    bench: Bench, tasks: Tasks, farm: Manager, imds: Imds
) -> None:
    booted(bench)
    farm.states = {}
    told = parse_user_data(bench.metadata.answer.user_data)  # type: ignore[union-attr]
    assert told is not None
    node = watch.NodeWatch(bench.machine, told, bench.machine.state.load()["boot"], 0.0)
    bench.windows.services[SERVER].state = 1
    node._perform(StayStopped())
    assert bench.windows.called("sc.exe", "stop") == []
    bench.windows.services[SERVER].state = 4
    node._perform(StayStopped())
    assert bench.windows.services[SERVER].state == 1


def test_status_tells_what_the_watch_noted(bench: Bench) -> None:
    assert status(bench.machine)["watch"] is None
    watch.write_note(bench.machine, {"event": "working", "job": True})
    assert status(bench.machine)["watch"] == {"event": "working", "job": True}
    for text in ("{", "[]"):
        (bench.machine.folder / "watch.json").write_text(text)
        assert status(bench.machine)["watch"] is None


def test_the_log_is_beside_the_settings(bench: Bench) -> None:
    assert watch.log_beside(r"C:\a\backburner.xml") == bench.drive / "a" / "backburner.log"


# ------------------------------------------------------------------------------------------------------- the manager


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ip-10-0-0-21", True),
        ("IP-10-0-0-21.eu-central-1.compute.internal", True),
        ("10.9.0.3", True),
        ("ip-192-168-1-20", False),
        ("192.168.1.20", False),
        ("workstation", False),
        ("ip-999-0-0-1", False),
    ],
)
def test_which_servers_are_the_farms_own(name: str, expected: bool) -> None:
    told = parse_user_data((FARM % ("manager", "")).replace('"tunnel"', '"remote":"10.9.0.0/24","tunnel"').encode())
    assert told is not None
    networks = (told.networks["cloud"], told.networks["remote"])
    assert is_node(name, networks) is expected


@pytest.fixture
def watched(bench: Bench, farm: Manager, monkeypatch: pytest.MonkeyPatch) -> ManagerWatch:
    return manager_watch(bench)


def manager_watch(bench: Bench, more: str = "", event: str = "ready") -> ManagerWatch:
    told = parse_user_data((FARM % ("manager", f',"watch":{LIMITS}{more}')).encode())
    assert told is not None
    return ManagerWatch(bench.machine, told, {"role": "manager", "event": event, "mac": "06:00:00:00:00:10"})


def turn(watched: ManagerWatch, bench: Bench, rounds: int, seconds: float = 10.0) -> None:
    for _ in range(rounds):
        watched.round()
        bench.clock.passed += seconds


def test_ghosts_are_swept_when_they_are_old(watched: ManagerWatch, bench: Bench, farm: Manager) -> None:
    farm.states = {HANDLE: "absent", "A" * 16: "absent", "B" * 16: "idle"}
    farm.names = {HANDLE: "ip-10-0-0-21", "A" * 16: "pc7", "B" * 16: "ip-10-0-0-22"}
    turn(watched, bench, 10)
    assert farm.deleted == []
    turn(watched, bench, 1)
    assert farm.deleted == [HANDLE]
    assert set(farm.states) == {"A" * 16, "B" * 16}


def test_a_node_that_comes_back_is_no_ghost(watched: ManagerWatch, bench: Bench, farm: Manager) -> None:
    for state in ("absent", "idle", "absent"):
        farm.states = {HANDLE: state}
        turn(watched, bench, 8)
    assert farm.deleted == []


def test_a_failure_is_logged_once_and_harms_nothing_else(watched: ManagerWatch, bench: Bench, farm: Manager) -> None:
    farm.up = False
    turn(watched, bench, 5)
    farm.up = True
    turn(watched, bench, 1)
    assert bench.log.count("list of servers: no answer") == 1
    assert bench.log.count("list of servers: works again") == 1


def settings(bench: Bench, **more: Any) -> None:
    data = {
        "host": "mail.example", "port": 587, "tls": "starttls", "user": "u", "password": "p", "sender": "a@example",
        "recipients": ["b@example"], "farm": "studio", "minutes": 30, "prices": {"manager": 0.5, "node": 2.0},
        "end": "ansible-playbook farm-down.yml",
    }  # fmt: skip
    place = bench.machine.folder / "secrets"
    place.mkdir(parents=True, exist_ok=True)
    (place / "reminder.json").write_text(json.dumps(data | more))


@pytest.fixture
def mails(bench: Bench, farm: Manager, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Subject and text of each mail about a manager with one node."""
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(reminder, "send", lambda settings, subject, text: sent.append((subject, text)))
    settings(bench)
    farm.names = {HANDLE: "ip-10-0-0-21"}
    return sent


def test_reminders_come_when_they_are_due(watched: ManagerWatch, bench: Bench, mails: list[tuple[str, str]]) -> None:
    turn(watched, bench, 361)  # an hour, and the round at its end
    assert [subject for subject, _ in mails] == [
        "Render farm studio: manager and 1 node run, 1.25 USD",
        "Render farm studio: manager and 1 node run, 2.50 USD",
    ]
    assert "ip-10-0-0-21 runs for 1 h 00 min" in mails[1][1]


def test_cost_goes_on_after_a_reboot_of_the_manager(
    watched: ManagerWatch, bench: Bench, mails: list[tuple[str, str]]
) -> None:
    turn(watched, bench, 179)
    turn(manager_watch(bench), bench, 182)
    assert mails[-1][0] == "Render farm studio: manager and 1 node run, 2.49 USD"
    assert "Since 2027-01-15 08:00 UTC: 1.0 manager hours, 1.0 node hours." in mails[-1][1]
    (bench.machine.folder / "ledger.json").write_text("{")
    turn(manager_watch(bench), bench, 181)
    assert "hours and cost are counted anew from now on: ledger.json is not understood" in bench.log
    assert "Since 2027-01-15 09:00 UTC: 0.5 manager hours, 0.5 node hours." in mails[-1][1]


def test_a_full_disk_keeps_no_manager_from_its_duties(
    watched: ManagerWatch, bench: Bench, farm: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise FarmNodeError("disk_full", "no room")

    monkeypatch.setattr(reminder.files, "write", full)
    farm.states, farm.names = {HANDLE: "absent"}, {HANDLE: "ip-10-0-0-21"}
    turn(watched, bench, 20)
    assert bench.log.count("ledger: no room") == 1 and farm.deleted == [HANDLE]
    assert "list of servers" not in bench.log


@pytest.mark.parametrize("error", [FarmNodeError("reminder", "no mail"), ZeroDivisionError()])
def test_a_mail_that_fails_harms_nothing(
    watched: ManagerWatch, bench: Bench, farm: Manager, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries: list[float] = []

    def send(*_: object) -> None:
        tries.append(bench.clock.passed)
        raise error

    monkeypatch.setattr(reminder, "send", send)
    settings(bench)
    farm.states, farm.names = {HANDLE: "absent"}, {HANDLE: "ip-10-0-0-21"}
    turn(watched, bench, 400)
    assert tries == [1800, 3600] and farm.deleted == [HANDLE]
    assert "reminder: works again" not in bench.log
    if isinstance(error, FarmNodeError):
        assert bench.log.count("reminder: no mail") == 1


@pytest.mark.parametrize("minutes", [0, None])
def test_no_reminder_when_nobody_wants_one(
    watched: ManagerWatch, bench: Bench, monkeypatch: pytest.MonkeyPatch, minutes: int | None
) -> None:
    monkeypatch.setattr(reminder, "send", lambda *_: pytest.fail("a mail was sent"))
    if minutes is not None:
        settings(bench, minutes=minutes)
    turn(watched, bench, 400)


def powershell(bench: Bench, *answers: Completed) -> list[str]:
    """The scripts that are run; each is answered by the next answer, the last one again and again."""
    left, scripts = list(answers), []

    def answer(*words: str) -> Completed:
        scripts.append(words[-1])
        return left.pop(0) if len(left) > 1 else left[0]

    bench.windows.__dict__["_WindowsPowerShell/v1.0/powershell"] = answer
    return scripts


@pytest.mark.parametrize(
    ("more", "event"), [("", "ready"), (',"renders":false', "ready"), (',"renders":true', "failed")]
)
@pytest.mark.usefixtures("farm")
def test_a_manager_renders_only_when_it_shall_and_can(bench: Bench, more: str, event: str) -> None:
    scripts = powershell(bench, Completed(0, "0\r\n", ""))
    turn(manager_watch(bench, more, event), bench, 3)
    assert scripts == [] and bench.windows.services[SERVER].state == 1


@pytest.mark.usefixtures("farm")
def test_a_manager_that_renders_begins_when_the_share_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    share = {"unc": r"\\10.0.0.10\farm", "drive": "F:", "port": 3240, "certificate": "PEM"}
    tries: list[str] = []

    def fetch(share: Any) -> tuple[str, str]:
        tries.append(share.server)
        if len(tries) < 3:
            raise FarmNodeError("no_share", "nothing to tell yet")
        return "renderfarm", "secret"

    monkeypatch.setattr(drives, "fetch", fetch)
    scripts = powershell(bench, Completed(0, "", ""), Completed(0, "0\r\n0\r\n", ""))
    watched = manager_watch(bench, f',"renders":true,"share":{json.dumps(share)}')
    turn(watched, bench, 2)
    assert bench.windows.services[SERVER].state == 1, "no frame may come before the share"
    turn(watched, bench, 3)
    assert bench.windows.services[SERVER].state == 4 and tries == ["10.0.0.10"] * 3
    mapping, priority = scripts
    assert "-LocalPath 'F:'" in mapping and "SetPriority -Arguments @{ Priority = 16384 }" in priority
    assert bench.log.count("nothing to tell yet") == 1 and bench.log.count("rendering: works again") == 1


@pytest.mark.parametrize(
    "answer", [Completed(1, "", "Access denied"), Completed(0, "0\r\n2\r\n", ""), Completed(0, "", "")]
)
@pytest.mark.usefixtures("farm")
def test_a_priority_that_stays_is_tried_again(bench: Bench, answer: Completed) -> None:
    scripts = powershell(bench, answer, answer, Completed(0, "0\r\n", ""))
    turn(manager_watch(bench, ',"renders":true'), bench, 5)
    assert len(scripts) == 3
    assert bench.log.count("the priority of Backburner's server cannot be lowered") == 1


@pytest.mark.usefixtures("farm")
def test_a_server_that_was_started_anew_gets_its_low_priority_again(bench: Bench) -> None:
    scripts = powershell(bench, Completed(0, "0\r\n", ""))
    watched, server = manager_watch(bench, ',"renders":true'), bench.machine.services
    turn(watched, bench, 5)
    assert len(scripts) == 1
    server.stop(SERVER)
    turn(watched, bench, 3)
    assert len(scripts) == 1 and server.describe(SERVER) == "stopped", "who stopped it, wanted that"
    server.start(SERVER)
    turn(watched, bench, 3)
    server.stop(SERVER)
    server.start(SERVER)
    turn(watched, bench, 3)
    assert len(scripts) == 3


def test_a_manager_that_renders_is_no_node_of_the_mail(
    watched: ManagerWatch, bench: Bench, farm: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    subjects: list[str] = []
    monkeypatch.setattr(reminder, "send", lambda _, subject, text: subjects.append(subject))
    farm.states, farm.names = {"0600000000100000": "idle"}, {"0600000000100000": "ip-10-0-0-10"}
    settings(bench)
    turn(watched, bench, 200)
    assert subjects and all("manager and 0 nodes run" in subject for subject in subjects)


@pytest.mark.parametrize("boot", [{}, {"boot": {"event": "failed", "phase": "metadata"}}])
def test_the_managers_watch_goes_round_and_round(
    bench: Bench, farm: Manager, monkeypatch: pytest.MonkeyPatch, boot: dict[str, Any]
) -> None:
    booted(bench, role="manager")
    bench.machine.state.update(**boot)
    rounds: list[float] = []

    def one(self: ManagerWatch) -> None:
        rounds.append(bench.clock.passed)
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ManagerWatch, "round", one)
    with pytest.raises(KeyboardInterrupt):
        watch.watch(bench.machine)
    assert rounds == [0, 10, 20]


def test_every_event_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "last-words.md").read_text("utf-8")
    assert [event for event in Event if f"`{event}`" not in text] == []
