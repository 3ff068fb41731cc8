"""What a machine remembers, and what it says."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from farmnode_fakes import BUILDER, LAN, NODE, Bench

from farmnode import lock
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.programs import Completed
from farmnode.report import event_line
from farmnode.state import State


def test_a_new_machine_remembers_nothing(bench: Bench) -> None:
    state = State(bench.drive / "new", bench.clock)
    assert state.load() == {"version": 1}
    assert (state.identity(), state.routes(), state.image()) == (None, frozenset(), None)


def test_values_are_kept_beside_each_other(bench: Bench) -> None:
    state = bench.machine.state
    state.update(identity=NODE.as_json())
    state.update(routes=[LAN.as_json()])
    assert state.identity() == NODE and state.routes() == {LAN} and state.image() == BUILDER
    assert json.loads(state.path.read_text()) == {
        "version": 1,
        "identity": {"mac": NODE.mac, "name": NODE.name, "address": NODE.address},
        "routes": [{"network": "192.168.1.0/24", "gateway": "10.0.0.10", "metric": 1}],
    }


def test_an_update_waits_for_another_one(bench: Bench) -> None:
    state = State(bench.machine.folder, Clock())
    late = threading.Thread(target=state.update, kwargs={"identity": NODE.as_json()})
    with lock.held(state.folder / "state.lock", state.clock, 1):
        late.start()
        late.join(0.3)
        state.path.write_text(json.dumps({"version": 1, "routes": [LAN.as_json()]}))
    late.join()
    assert state.identity() == NODE and state.routes() == {LAN}


def test_an_update_does_not_wait_for_ever(bench: Bench) -> None:
    state = bench.machine.state
    with (
        lock.held(state.folder / "state.lock", bench.clock, 1),
        pytest.raises(FarmNodeError, match=r"holds C:\\ProgramData\\RenderFarm\\state.lock .* 10 seconds") as caught,
    ):
        state.update(routes=[])
    assert (caught.value.reason, bench.clock.passed) == ("busy", 10)
    state.update(routes=[])


def test_a_file_beside_that_cannot_be_deleted_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "a virus scanner has it")

    monkeypatch.setattr(Path, "unlink", refuse)
    bench.machine.state.update(routes=[])
    assert bench.machine.state.load() == {"version": 1, "routes": []}


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not JSON"), ("[]", "is not a JSON object"), ('{"version": 2}', "has version 2, farmnode knows 1")],
)
def test_a_state_that_cannot_be_understood(bench: Bench, text: str, said: str) -> None:
    bench.machine.state.path.write_text(text)
    with pytest.raises(FarmNodeError, match=rf"C:\\ProgramData\\RenderFarm\\state.json {said}") as caught:
        bench.machine.state.load()
    assert caught.value.reason == "broken_state"


def test_wrong_values_name_the_file(bench: Bench) -> None:
    bench.machine.state.update(identity={"mac": 1}, routes=[{}])
    with pytest.raises(FarmNodeError, match="identity in C:"):
        bench.machine.state.identity()
    with pytest.raises(FarmNodeError, match="routes in C:"):
        bench.machine.state.routes()
    bench.machine.state.image_path.unlink()
    bench.machine.state.image_path.mkdir()
    with pytest.raises(FarmNodeError, match=r"cannot read .*image\.json: Is a directory"):
        bench.machine.state.image()


def test_the_log_has_utc_times_and_starts_anew_when_long(bench: Bench) -> None:
    log = bench.machine.log
    log.info("größer")
    bench.clock.sleep(0.0015)
    log.error("bad")
    assert bench.log == "2027-01-15T08:00:00.000Z INFO größer\n2027-01-15T08:00:00.001Z ERROR bad\n"
    with log.path.open("a") as file:
        file.write("x" * 1024 * 1024)
    log.info("new")
    assert bench.log.endswith("INFO new\n") and len(bench.log) < 100
    assert log.path.with_name("farmnode.log.1").stat().st_size > 1024 * 1024


def test_a_log_that_cannot_be_written_stops_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.log.path.mkdir()
    bench.machine.log.info("hello")
    assert "INFO hello (not in C:\\ProgramData\\RenderFarm\\farmnode.log: " in capsys.readouterr().err


def test_lines_on_the_serial_port(bench: Bench) -> None:
    bench.machine.serial.say({"event": "failed", "reason": "größer"})
    bench.machine.serial.say({"event": "x"})
    assert bench.windows.serial == [
        b'RENDERFARM-NODE {"event": "failed", "reason": "gr\\u00f6\\u00dfer"}\r\n',
        b'RENDERFARM-NODE {"event": "x"}\r\n',
    ]
    assert len(bench.windows.undocumented) >= 2, "a machine says more than that"
    bench.windows.undocumented.clear()
    assert bench.windows.calls[0] == [
        "cmd.exe", "/d", "/c", "copy", "/b", "C:\\ProgramData\\RenderFarm\\serial.txt", "\\\\.\\COM1",
    ]  # fmt: skip


def test_a_serial_port_that_another_program_has_is_waited_for(bench: Bench) -> None:
    bench.windows.answers[("cmd.exe",)] = Completed(1, "Access is denied.", "")
    bench.windows.on_call = lambda words: bench.windows.answers.clear() if len(bench.windows.calls) == 3 else None
    before = bench.machine.clock.monotonic()
    bench.machine.serial.say({"event": "x"})
    assert bench.windows.serial == [b'RENDERFARM-NODE {"event": "x"}\r\n']
    assert bench.machine.clock.monotonic() - before == pytest.approx(1.0)
    assert "ERROR" not in bench.log
    bench.windows.undocumented.clear()


def test_a_serial_port_that_is_not_there_is_logged(bench: Bench) -> None:
    bench.windows.answers[("cmd.exe",)] = Completed(1, "The system cannot find the file specified.", "")
    bench.machine.serial.say({"event": "x"})
    assert "ERROR the serial port took nothing: cmd.exe /d /c copy" in bench.log


def test_a_long_reason_is_cut() -> None:
    event = json.loads(event_line({"reason": "x" * 5000}).removeprefix("RENDERFARM-NODE "))
    assert event["reason"] == "x" * 597 + "..."
