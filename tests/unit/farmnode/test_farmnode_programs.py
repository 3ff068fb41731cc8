"""Starting programs, Windows paths, and time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from farmnode_fakes import FakeClock

from farmnode import paths
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.programs import Completed, Programs, command


def _program(drive: Path, name: str, text: str) -> None:
    path = drive / "Windows" / "System32" / name
    path.write_text(f"#!{sys.executable} -IS\nimport sys, time\n{text}\n")
    path.chmod(0o755)


def test_programs_come_from_system32_only(drive: Path) -> None:
    _program(drive, "sc.exe", "print(sys.argv[1:]); print('e', file=sys.stderr); sys.exit(3)")
    done = Programs().run("sc.exe", ["query", "a b", "*"])
    assert done == Completed(3, "['query', 'a b', '*']\n", "e\n")
    assert done.text == "['query', 'a b', '*'] e"
    with pytest.raises(FarmNodeError, match=r'sc.exe query "a b" ended with 3: '):
        Programs().check("sc.exe", ["query", "a b"])
    with pytest.raises(FarmNodeError, match=r"cannot start C:\\Windows\\System32\\ls: No such file"):
        Programs().run("ls", [])


def test_a_program_that_hangs_is_ended(drive: Path) -> None:
    _program(drive, "slow.exe", "time.sleep(60)")
    with pytest.raises(FarmNodeError, match=r"slow.exe now did not end within 0.2 seconds"):
        Programs().run("slow.exe", ["now"], timeout=0.2)


def test_output_that_is_no_text_is_still_shown(drive: Path) -> None:
    _program(drive, "x.exe", "sys.stdout.buffer.write(b'\\xff\\xfe' + b'y' * 1000)")
    assert Programs().check("x.exe", []).text == "\ufffd\ufffd" + "y" * 398
    assert Completed(0, "", " ").text == "no output"
    assert command("a.exe", ["b c", "d"]) == 'a.exe "b c" d'


def test_paths_map_to_the_machines_drive_and_back(drive: Path) -> None:
    assert paths.real(r"C:\ProgramData\RenderFarm") == drive / "ProgramData" / "RenderFarm"
    assert paths.real(r"c:\x") == drive / "x"
    assert paths.real("/elsewhere") == Path("/elsewhere")
    assert paths.shown(drive / "Program Files" / "x") == r"C:\Program Files\x"
    assert paths.shown(Path("/elsewhere")) == "/elsewhere"
    assert paths.shown(Path(f"{drive}2/x")) == f"{drive}2/x"
    with pytest.raises(FarmNodeError, match="no drive D:"):
        paths.real(r"D:\x")
    assert paths.state_folder() == drive / "ProgramData" / "RenderFarm"


def test_on_windows_paths_are_what_they_are(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "Path", str)
    monkeypatch.setattr(paths.os, "name", "nt")
    assert paths.real(r"D:\x") == r"D:\x"
    assert paths.shown(r"C:\x") == r"C:\x"  # type: ignore[arg-type]


def test_a_missing_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ProgramData", raising=False)
    with pytest.raises(FarmNodeError, match="environment lacks ProgramData"):
        paths.state_folder()


def test_waiting_asks_at_least_once_and_keeps_its_limit() -> None:
    clock = FakeClock()
    assert clock.wait(lambda: True, 0)
    assert not clock.wait(lambda: False, 0)
    assert clock.passed == 0
    asked: list[float] = []
    assert not clock.wait(lambda: asked.append(clock.passed), 10, first=1, most=4)  # type: ignore[func-returns-value]
    assert asked == [0, 1, 3, 7, 10]
    assert clock.wait(lambda: clock.passed > 12, 5)


def test_the_real_clock() -> None:
    clock = Clock()
    before = clock.monotonic()
    clock.sleep(0.001)
    assert clock.monotonic() > before
    assert abs(clock.now() - Clock().now()) < 60
    assert FakeClock().stamp() == "2027-01-15T08:00:00.000Z"
    assert clock.stamp().endswith("Z") and len(clock.stamp()) == 24


def test_reasons_are_documented_ones() -> None:
    with pytest.raises(ValueError, match="'typo' is not a documented reason"):
        FarmNodeError("typo", "x")
