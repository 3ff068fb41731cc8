"""From power-on to ready, in order, and what happens when it does not work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from farmnode_fakes import BUILDER, FARM, LAN, NODE, SAMPLE, TUNNEL, Bench, instance

from farmnode import boot, converge, manager
from farmnode.boot import Boot
from farmnode.errors import FarmNodeError
from farmnode.identity import Identity
from farmnode.manager import Server
from farmnode.programs import Completed
from farmnode.services import MANAGER, SERVER
from farmnode.state import State

MANAGER_IDENTITY = Identity("06:00:00:00:00:10", "ip-10-0-0-10", "10.0.0.10")
Listing = Callable[[], list[Server]]


class FakeManager:
    """A manager that listens after ``up_at`` seconds and lists a node ``slow`` seconds after its service started."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.up_at = 0.0
        self.slow = 1.0
        self.state = "idle"
        self.problem: Exception | None = None
        self.asked: list[tuple[str, int]] = []
        self.running_since: float | None = None
        self.ghost = False
        """Whether it lists the node from an earlier boot, absent."""
        self.deleted: list[str] = []

    def listens(self, address: str, port: int, *, timeout: float = 3.0) -> bool:
        self.asked.append((address, port))
        return self.bench.clock.passed >= self.up_at

    def servers(self, address: str, port: int, clock: object, *, timeout: float = 15.0) -> list[Server]:
        if self.problem:
            raise self.problem
        if self.bench.windows.services[SERVER].state != 4:
            return [Server(NODE.handle, "absent", NODE.name)] if self.ghost else []
        if self.running_since is None:
            self.running_since = self.bench.clock.passed
        state = self.state if self.bench.clock.passed >= self.running_since + self.slow else "absent"
        return [Server("06FFFFFFFFFF0000", "idle", "other"), Server(NODE.handle, state, NODE.name)]

    def delete(self, address: str, port: int, handle: str, clock: object) -> None:
        assert (address, port) == ("10.0.0.10", 3234)
        assert self.ghost and self.bench.windows.services[SERVER].state != 4, "only who is absent is deleted"
        if self.problem:
            raise self.problem
        self.deleted.append(handle)
        self.ghost = False


@pytest.fixture
def farm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    made = FakeManager(bench)
    monkeypatch.setattr(manager, "listens", made.listens)
    monkeypatch.setattr(manager, "servers", made.servers)
    monkeypatch.setattr(manager, "delete", made.delete)
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    return made


def said(bench: Bench) -> dict[str, Any]:
    *_, line = bench.windows.serial
    assert line.endswith(b"\r\n")
    return json.loads(line.removeprefix(b"RENDERFARM-NODE "))  # type: ignore[no-any-return]


def remembered(bench: Bench) -> dict[str, Any]:
    return bench.machine.state.load()["boot"]  # type: ignore[no-any-return]


def outcomes(bench: Bench) -> dict[str, str]:
    return {phase["name"]: phase["outcome"] for phase in remembered(bench)["phases"]}


def test_a_render_node_comes_up(bench: Bench, farm: FakeManager) -> None:
    farm.up_at = 5.0
    event = Boot(bench.machine).run()
    assert event == said(bench)
    assert event == {
        "event": "ready",
        "version": 1,
        "time": event["time"],
        "instance": "i-0123456789abcdef0",
        "role": "render_node",
        "name": "ip-10-0-0-21",
        "mac": "06:11:22:33:44:5f",
        "address": "10.0.0.21",
        "seconds": pytest.approx(6.4, abs=1.5),
    }
    assert list(outcomes(bench)) == [
        "metadata", "role", "identity", "routes", "drives", "manager", "services", "registration",
    ]  # fmt: skip
    assert outcomes(bench).pop("drives") == "skipped"
    assert set(outcomes(bench).values()) == {"done", "skipped"}
    assert bench.windows.persistent == {LAN, TUNNEL} == bench.machine.state.routes()
    assert farm.asked[0] == ("10.0.0.10", 3234)
    text = bench.file.read_text("utf-8")
    assert "<ManagerName>10.0.0.10<" in text and NODE.mac in text and BUILDER.mac not in text.lower()
    assert remembered(bench)["event"] == "ready" and remembered(bench)["phase"] == "registration"
    assert not bench.windows.called("shutdown.exe")


def test_the_service_starts_only_after_the_file_is_right(bench: Bench, farm: FakeManager) -> None:
    files: list[bytes] = []
    bench.windows.on_call = lambda words: files.append(bench.file.read_bytes()) if words[1] == "start" else None
    Boot(bench.machine).run()
    assert len(files) == 1 and NODE.mac.encode() in files[0]
    lines = bench.log.splitlines()
    right = next(line for line in lines if "phase identity done" in line)
    start = next(line for line in lines if f"starting {SERVER}" in line)
    assert lines.index(right) < lines.index(start) and right[:24] <= start[:24]


def test_a_second_boot_changes_nothing(bench: Bench, farm: FakeManager) -> None:
    Boot(bench.machine).run()
    before = bench.file.read_bytes()
    bench.windows.services[SERVER].state = 1
    bench.windows.calls.clear()
    assert Boot(bench.machine).run()["event"] == "ready"
    assert bench.file.read_bytes() == before
    assert not bench.windows.called("route.exe", "-p") and len(bench.windows.called("sc.exe", "start")) == 1
    assert "as it was" in remembered(bench)["phases"][2]["detail"]


def test_the_manager_runs_its_own_service(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("manager", ""), identity=MANAGER_IDENTITY)
    event = Boot(bench.machine).run()
    assert (event["event"], event["role"]) == ("ready", "manager")
    assert list(outcomes(bench)) == ["metadata", "role", "identity", "services", "manager"]
    assert farm.asked == [("127.0.0.1", 3234)]
    assert bench.windows.services[MANAGER].state == 4 and bench.windows.services[SERVER].state == 1
    assert "<ManagerName>10.0.0.10<" in bench.file.read_text("utf-8")
    assert not bench.windows.called("route.exe")


REMOTE = (FARM % ("remote_node", "")).replace('"tunnel":', '"remote":"10.9.0.0/24","tunnel":')


def test_a_remote_node_waits_for_its_tunnel_and_is_called_by_its_address_there(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(REMOTE)

    def dial(words: list[str]) -> None:
        if bench.clock.passed > 30:
            bench.windows.tunnel = "10.9.0.2"

    bench.windows.on_call = dial
    assert Boot(bench.machine).run()["event"] == "ready"
    assert b"<ServerName>10.9.0.2</ServerName>" in bench.file.read_bytes()
    assert list(outcomes(bench))[2:4] == ["tunnel", "identity"]
    assert remembered(bench)["phases"][2]["detail"] == "10.9.0.2 in 10.9.0.0/24"
    assert all(words[1:] == ["PRINT", "-4"] for words in bench.windows.called("route.exe")), "routes are the tunnel's"


def test_a_remote_node_without_a_tunnel_says_so_and_ends(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(REMOTE)
    event = Boot(bench.machine).run()
    assert (event["event"], event["code"], event["phase"]) == ("failed", "no_tunnel", "tunnel")
    assert bench.windows.called("shutdown.exe")
    bench.metadata.answer = instance(FARM % ("remote_node", ""))
    assert Boot(bench.machine).run()["code"] == "bad_user_data"


@pytest.mark.parametrize("user_data", ["", FARM % ("builder", "")])
def test_a_builder_only_reports(bench: Bench, farm: FakeManager, user_data: str) -> None:
    bench.metadata.answer = instance(user_data, tag="builder")
    before = bench.file.read_bytes()
    event = Boot(bench.machine).run()
    assert (event["event"], event["role"]) == ("ready", "builder")
    assert bench.file.read_bytes() == before
    assert [words[0] for words in bench.windows.calls] == ["cmd.exe"]


def test_routes_are_left_to_the_vpc_when_the_gateway_is_elsewhere(bench: Bench, farm: FakeManager) -> None:
    stale = replace(LAN, network=IPv4Network("192.168.77.0/24"))
    bench.windows.persistent = bench.windows.active = {stale}
    bench.machine.state.update(routes=[stale.as_json()])
    bench.metadata.answer = instance((FARM % ("render_node", "")).replace("10.0.0.10", "10.0.1.10"))
    assert Boot(bench.machine).run()["event"] == "ready"
    assert outcomes(bench)["routes"] == "skipped"
    assert "10.0.1.10 is in another subnet" in remembered(bench)["phases"][3]["detail"]
    assert bench.windows.persistent == set() and bench.machine.state.routes() == frozenset()


def test_no_other_networks_need_no_routes(bench: Bench, farm: FakeManager) -> None:
    user_data = FARM % ("render_node", "")
    start, end = user_data.index('"networks"'), user_data.index("}}")
    bench.metadata.answer = instance(user_data[:start] + '"networks":{"cloud":"10.0.0.0/24"' + user_data[end:])
    assert Boot(bench.machine).run()["event"] == "ready"
    assert "no routes wanted" in remembered(bench)["phases"][3]["detail"]


# ------------------------------------------------------------------------------------------------------------ failures


def failing(bench: Bench) -> dict[str, Any]:
    event = Boot(bench.machine).run()
    assert event == said(bench) and event["event"] == "failed"
    assert event["reason"] and event["phase"] and event["code"]
    return event


def test_metadata_never(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = None
    event = failing(bench)
    assert (event["phase"], event["code"], event["reason"]) == (
        "metadata",
        "metadata",
        "the metadata service is silent.",
    )
    assert "instance" not in event and "role" not in event
    assert len(bench.windows.called("shutdown.exe")) == 1
    assert outcomes(bench) == {"metadata": "failed"}


def test_a_manager_that_knew_its_role_stays_up(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("manager", ""), identity=MANAGER_IDENTITY)
    Boot(bench.machine).run()
    bench.metadata.answer = None
    for _ in range(3):
        failing(bench)
        assert not bench.windows.called("shutdown.exe")


def test_a_manager_that_fails_says_so_and_stays_up(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("manager", ""), identity=MANAGER_IDENTITY)
    bench.file.write_text("<broken")
    event = failing(bench)
    assert (event["role"], event["phase"], event["code"]) == ("manager", "identity", "broken_xml")
    assert not bench.windows.called("shutdown.exe") and not bench.windows.called("sc.exe", "start")


@pytest.mark.parametrize(
    ("user_data", "phase", "code", "reason"),
    [
        ("", "role", "bad_user_data", "neither a <farm> part"),
        ("<farm>{}</farm>", "role", "bad_user_data", "version None"),
        (
            FARM.replace('"manager":"10.0.0.10",', "") % ("render_node", ""),
            "identity",
            "bad_user_data",
            "names no manager",
        ),
        (
            FARM.replace("10.0.0.10", "no.manager.invalid") % ("render_node", ""),
            "identity",
            "unknown_manager",
            "resolve",
        ),
    ],
)
def test_what_it_is_told_makes_no_sense(
    bench: Bench, farm: FakeManager, user_data: str, phase: str, code: str, reason: str
) -> None:
    bench.metadata.answer = instance(user_data)
    event = failing(bench)
    assert (event["phase"], event["code"]) == (phase, code) and reason in event["reason"]
    assert len(bench.windows.called("shutdown.exe")) == 1 and not bench.windows.called("sc.exe", "start")


def test_a_tag_alone_does_not_tell_the_manager(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance("", tag="render_node")
    assert "has no <farm> part" in failing(bench)["reason"]


def test_an_image_that_was_not_sealed(bench: Bench, farm: FakeManager) -> None:
    bench.machine.state.image_path.unlink()
    event = failing(bench)
    assert event["code"] == "not_sealed" and "Bake the image with 'farmnode seal'" in event["reason"]


def test_the_manager_never_listens(bench: Bench, farm: FakeManager) -> None:
    farm.up_at = 1e9
    bench.metadata.answer = instance(FARM % ("render_node", ',"limits":{"manager":30}'))
    event = failing(bench)
    assert (event["phase"], event["code"]) == ("manager", "manager_unreachable")
    assert "nothing took a connection at 10.0.0.10:3234 for 30 seconds" in event["reason"]
    assert event["seconds"] == 30
    assert not bench.windows.called("sc.exe", "start")
    assert len(bench.windows.called("shutdown.exe")) == 1


@pytest.mark.parametrize(
    ("state", "problem", "reason"),
    [
        ("absent", None, "the manager lists it as absent"),
        ("idle", FarmNodeError("manager_protocol", "gibberish."), "gibberish."),
    ],
)
def test_never_registered(
    bench: Bench, farm: FakeManager, state: str, problem: FarmNodeError | None, reason: str
) -> None:
    farm.state, farm.problem = state, problem
    event = failing(bench)
    assert (event["phase"], event["code"], event["seconds"]) == ("registration", "not_registered", 180)
    assert f"({NODE.mac}) is not registered at 10.0.0.10 after 180 seconds: {reason}" in event["reason"]


def test_not_in_the_list_at_all(bench: Bench, farm: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "servers", lambda *_: [])
    assert "the manager does not list it" in failing(bench)["reason"]


def test_a_service_that_does_not_start(bench: Bench, farm: FakeManager) -> None:
    del bench.windows.services[SERVER]
    farm_limits = ',"limits":{"service":7}'
    bench.metadata.answer = instance(FARM % ("render_node", farm_limits))
    event = failing(bench)
    assert (event["phase"], event["code"]) == ("services", "service")
    assert bench.machine.services.limit == 7


def test_a_defect_is_reported_like_any_failure(
    bench: Bench, farm: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(converge, "apply", defect)
    event = failing(bench)
    assert (event["phase"], event["code"], event["reason"]) == ("identity", "unexpected", "ZeroDivisionError: oops")
    assert "Traceback" in bench.log and len(bench.windows.called("shutdown.exe")) == 1


@pytest.mark.parametrize(("role", "identity"), [("manager", MANAGER_IDENTITY), ("render_node", NODE)])
def test_a_state_that_cannot_be_understood_is_set_aside(
    bench: Bench, farm: FakeManager, role: str, identity: Identity
) -> None:
    bench.metadata.answer = instance(FARM % (role, ""), identity=identity)
    path = bench.machine.state.path
    path.write_text("{")
    assert Boot(bench.machine).run()["event"] == "ready"
    assert path.with_name("state.json.broken").read_text() == "{"
    memory = bench.machine.state.load()
    assert r"Set aside as C:\ProgramData\RenderFarm\state.json.broken" in memory["memory"]
    assert memory["memory"] in bench.log and (memory["role"], memory["boot"]["event"]) == (role, "ready")


def test_without_its_memory_a_machine_that_finds_no_role_stays_until_one_is_known(
    bench: Bench, farm: FakeManager
) -> None:
    bench.machine.state.path.write_text("{")
    bench.metadata.answer = None
    for _ in range(2):
        failing(bench)
        assert not bench.windows.called("shutdown.exe"), "it may have been the manager"
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    assert Boot(bench.machine).run()["event"] == "ready"
    bench.metadata.answer = None
    failing(bench)
    assert bench.windows.called("shutdown.exe")


def test_a_state_that_another_program_holds_is_waited_for(
    bench: Bench, farm: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.machine.state.update(role="manager")
    bench.metadata.answer = None
    load = State.load

    def held(self: State) -> dict[str, Any]:
        if bench.clock.passed < 3:
            raise FarmNodeError("missing_file", "cannot read state.json: it is held.")
        return load(self)

    monkeypatch.setattr(State, "load", held)
    failing(bench)
    assert not bench.windows.called("shutdown.exe") and "it is held" not in bench.log
    assert not list(bench.machine.folder.glob("*.broken"))


def test_a_state_that_cannot_be_read_at_all_ends_no_manager(
    bench: Bench, farm: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: State) -> dict[str, Any]:
        raise FarmNodeError("missing_file", "cannot read state.json: bad sector.")

    monkeypatch.setattr(State, "load", broken)
    bench.metadata.answer = None
    failing(bench)
    assert not bench.windows.called("shutdown.exe") and "bad sector" in bench.log


def test_a_refused_note_stops_no_phase(bench: Bench, farm: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virus scanner holds state.json each time that a phase begins, and a moment longer at the end."""
    update = State.update

    def refusing(self: State, **values: Any) -> None:
        boot = values.get("boot", {})
        if boot.get("event") == "booting" or (boot and bench.clock.passed < 3):
            raise FarmNodeError("unwritable_file", "cannot write state.json: it is held.")
        update(self, **values)

    monkeypatch.setattr(State, "update", refusing)
    assert Boot(bench.machine).run()["event"] == "ready"
    assert bench.log.count("it is held") == 8, "once for each phase"
    assert (remembered(bench)["event"], bench.machine.state.load()["role"]) == ("ready", "render_node")


def test_a_full_disk_does_not_silence_it(bench: Bench, farm: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise FarmNodeError("disk_full", "no room.")

    monkeypatch.setattr(type(bench.machine.state), "update", lambda self, **values: full())
    event = failing(bench)
    assert event["code"] == "disk_full"
    assert "ERROR no room." in bench.log


def test_a_shutdown_that_fails_is_logged(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = None

    def refuse(words: list[str]) -> None:
        if words[0] == "shutdown.exe":
            raise FarmNodeError("program", "shutdown.exe is tired.")

    bench.windows.on_call = refuse
    failing(bench)
    assert "ERROR shutdown.exe is tired." in bench.log


def test_a_remembered_role_that_is_none(bench: Bench, farm: FakeManager) -> None:
    bench.machine.state.update(role=5)
    bench.metadata.answer = None
    failing(bench)
    assert len(bench.windows.called("shutdown.exe")) == 1


def backburner_writes(bench: Bench, sections: dict[str, str]) -> Callable[[list[str]], None]:
    """Backburner's services, each of which makes the file what ``sections`` says for it when it starts first."""

    def started(words: list[str]) -> None:
        if words[:2] == ["sc.exe", "start"] and words[2] in sections:
            bench.put(sections.pop(words[2]))

    return started


def test_a_missing_file_is_written_by_backburner_and_then_edited(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    bench.file.unlink()
    bench.windows.on_call = backburner_writes(bench, {SERVER: SAMPLE})
    stops = []
    assert Boot(bench.machine).run()["event"] == "ready"
    text = bench.file.read_text("utf-8")
    assert "<ManagerName>10.0.0.10<" in text and f"<ServerName>{NODE.name}<" in text
    stops = [words[1:] for words in bench.windows.called("sc.exe") if words[1] in ("start", "stop")]
    assert stops == [["start", SERVER], ["stop", SERVER], ["start", SERVER]], "stopped while it is edited"
    assert "so that it writes its part of backburner.xml" in bench.log


def test_a_missing_file_may_need_both_services(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ',"limits":{"service":5}'))
    bench.file.unlink()
    half = SAMPLE.replace("NetworkMask>", "OtherMask>")
    bench.windows.on_call = backburner_writes(bench, {SERVER: half, MANAGER: SAMPLE})
    assert Boot(bench.machine).run()["event"] == "ready"
    assert bench.windows.services[MANAGER].state == 1


def test_a_file_that_backburner_does_not_write_ends_the_node(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ',"limits":{"service":5}'))
    bench.file.unlink()
    event = failing(bench)
    assert (event["phase"], event["code"]) == ("identity", "missing_file")
    assert bench.windows.services[SERVER].state == 1 and bench.windows.called("shutdown.exe")


# ------------------------------------------------------------------------------------- what an earlier boot registered


def test_a_node_that_fails_leaves_no_ghost(bench: Bench, farm: FakeManager) -> None:
    bench.file.write_text("<broken")
    farm.ghost = True
    assert failing(bench)["code"] == "broken_xml"
    assert farm.deleted == [NODE.handle]
    assert f"{NODE.handle} is not on the manager's list" in bench.log


def test_a_node_that_never_registered_stops_before_it_leaves(bench: Bench, farm: FakeManager) -> None:
    farm.state, farm.ghost = "absent", True
    assert failing(bench)["code"] == "not_registered"
    assert farm.deleted == [NODE.handle] and bench.windows.services[SERVER].state == 1


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (FarmNodeError("manager_unreachable", "nobody."), f"ERROR {NODE.handle} stays on the manager's list: nobody."),
        (ZeroDivisionError("oops"), "ZeroDivisionError: oops"),
    ],
)
def test_a_ghost_that_stays_hides_no_failure(bench: Bench, farm: FakeManager, problem: Exception, said: str) -> None:
    bench.file.write_text("<broken")
    farm.ghost, farm.problem = True, problem
    event = failing(bench)
    assert (event["code"], event["seconds"]) == ("broken_xml", 0)
    assert said in bench.log and bench.clock.passed <= 41
    assert len(bench.windows.called("shutdown.exe")) == 1


def test_nobody_waits_for_a_manager_that_is_away(bench: Bench, farm: FakeManager) -> None:
    bench.file.write_text("<broken")
    farm.ghost, farm.up_at = True, 1e9
    failing(bench)
    assert farm.deleted == [] and bench.clock.passed == 0
    assert f"{NODE.handle} may stay on the manager's list: nothing answers at 10.0.0.10" in bench.log


def test_a_manager_that_fails_deletes_nobody(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("manager", ""), identity=MANAGER_IDENTITY)
    bench.file.write_text("<broken")
    farm.ghost = True
    failing(bench)
    assert farm.deleted == []


# ------------------------------------------------------------------------------------------------- tries and patience


def test_what_may_pass_is_tried_again(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    refused = Completed(1053, "[SC] StartService FAILED 1053:\r\n\r\nThe service did not respond.\r\n", "")
    bench.windows.answers[("sc.exe", "start", SERVER)] = refused

    def heal(words: list[str]) -> None:
        if len(bench.windows.called("sc.exe", "start")) == 4:
            bench.windows.answers.clear()

    bench.windows.on_call = heal
    assert Boot(bench.machine).run()["event"] == "ready"
    tries = {phase["name"]: phase["tries"] for phase in remembered(bench)["phases"]}
    assert tries == {
        "metadata": 1,
        "role": 1,
        "identity": 1,
        "routes": 1,
        "drives": 1,
        "manager": 1,
        "services": 4,
        "registration": 1,
    }
    assert "phase services, try 3: sc.exe start" in bench.log
    assert remembered(bench)["phases"][6]["seconds"] == 3.5, "pauses of 0.5, 1 and 2 seconds"


def test_tries_end_with_the_limit_of_the_phase(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ',"limits":{"setup":20}'))
    bench.file.chmod(0o444)
    event = failing(bench)
    assert (event["phase"], event["code"]) == ("identity", "unwritable_file")
    assert remembered(bench)["phases"][-1]["tries"] == 7 and 15 <= event["seconds"] <= 20
    (waiting,) = [json.loads(line.split(b" ", 1)[1]) for line in bench.windows.serial[:-1]]
    assert (waiting["event"], waiting["phase"]) == ("waiting", "identity") and "read-only" in waiting["reason"]


def test_what_cannot_pass_is_not_tried_again(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    bench.file.write_text("<broken")
    assert failing(bench)["code"] == "broken_xml"
    assert remembered(bench)["phases"][-1]["tries"] == 1 and bench.clock.passed == 0


def test_a_long_wait_is_told_once(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    farm.up_at = 120.0
    assert Boot(bench.machine).run()["event"] == "ready"
    events = [json.loads(line.split(b" ", 1)[1]) for line in bench.windows.serial]
    assert [event["event"] for event in events] == ["waiting", "ready"]
    assert events[0]["reason"] == "nothing takes a connection at 10.0.0.10:3234 yet"
    assert 10 <= events[0]["seconds"] < 13 and events[0]["instance"] == "i-0123456789abcdef0"


def test_the_phase_is_remembered_while_it_runs(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    seen = []

    def look(words: list[str]) -> None:
        boot = bench.machine.state.load()["boot"]
        seen.append((boot["phase"], boot["phases"][-1]["outcome"]))

    bench.windows.on_call = look
    Boot(bench.machine).run()
    assert {("identity", "running"), ("routes", "running"), ("services", "running")} <= set(seen)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_an_hour_breaks_no_wait(bench: Bench, farm: FakeManager, jump: float) -> None:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    farm.up_at = 120.0
    now = bench.clock.now
    bench.clock.now = lambda: now() + (jump if bench.clock.passed > 60 else 0.0)  # type: ignore[method-assign]
    event = Boot(bench.machine).run()
    assert event["event"] == "ready" and 120 <= event["seconds"] < 125
    assert all(0 <= phase["seconds"] < 125 for phase in remembered(bench)["phases"])
    farm.up_at = 1e9
    bench.windows.services[SERVER].state = 1
    event = failing(bench)
    assert event["code"] == "manager_unreachable" and 600 <= event["seconds"] < 605


def test_a_node_of_no_use_tries_hard_to_end(bench: Bench, farm: FakeManager) -> None:
    bench.metadata.answer = None

    def refuse(words: list[str]) -> None:
        if words[0] == "shutdown.exe" and len(bench.windows.called("shutdown.exe")) < 4:
            raise FarmNodeError("program", "shutdown.exe is tired.")

    bench.windows.on_call = refuse
    failing(bench)
    assert len(bench.windows.called("shutdown.exe")) == 4 and bench.clock.passed == 30


@pytest.mark.parametrize("boot", [[], "x", {"role": ["manager"]}])
def test_a_strange_memory_of_the_role_does_not_keep_a_node_up(bench: Bench, farm: FakeManager, boot: object) -> None:
    bench.machine.state.update(boot=boot, role=boot)
    bench.metadata.answer = None
    failing(bench)
    assert bench.windows.called("shutdown.exe")


def test_every_phase_exists() -> None:
    for names in boot._PHASES.values():
        assert all(callable(getattr(Boot, f"_{name}")) for name in names)
