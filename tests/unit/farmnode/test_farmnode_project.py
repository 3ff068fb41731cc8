"""The project folder's copy: what it is told, how robocopy is called, and what is noted of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import Bench

from farmnode import cli, manager, project
from farmnode.drives_keys import secrets_folder
from farmnode.errors import FarmNodeError
from farmnode.powershell import POWERSHELL
from farmnode.programs import Completed
from farmnode.status import status

PASSWORD = "correct horse 'battery' $staple"
TOLD = {
    "folder": r"C:\Projects",
    "unc": r"\\10.0.0.10\farm",
    "drive": "Y:",
    "user": "renderfarm",
    "password": PASSWORD,
}
LOG = r"""
-------------------------------------------------------------------------------
   ROBOCOPY     ::     Robust File Copy for Windows
-------------------------------------------------------------------------------

  Started : Monday, October 14, 2026 09:10:02
   Source : C:\Projects\
     Dest : Y:\Projects\

     New File            15    a : 1 2 3 4 5 6 7.max

------------------------------------------------------------------------------

               Total    Copied   Skipped  Mismatch    FAILED    Extras
    Dirs :         3         1         2         0         0         0
   Files :        12         4         7         0         1         9
   Bytes : 512000000 412000000  90000000         0  10000000        77
   Times :   0:00:41   0:00:39                       0:00:00   0:00:02
   Ended : Monday, October 14, 2026 09:10:43
"""
GERMAN = LOG.replace("Dirs ", "Verz.").replace("Files", "Dateien").replace("FAILED", "FEHLER")


class Windows:
    """robocopy.exe and powershell.exe; ``rc`` and ``log`` are what robocopy does."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.rc = 1
        self.log: str | None = LOG
        self.mapping = Completed(0, "", "")
        self.unmapping = Completed(0, "", "")
        self.stdin: list[bytes | None] = []
        bench.windows.__dict__["_robocopy"] = self.robocopy
        run = bench.windows.run

        def listened(name: str, arguments: Any, *, timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
            if name != POWERSHELL:
                return run(name, arguments, timeout=timeout, stdin=stdin)
            bench.windows.calls.append([name, *arguments])
            self.stdin.append(stdin)
            return self.mapping if stdin else self.unmapping

        bench.windows.__dict__["run"] = listened

    def robocopy(self, *arguments: str) -> Completed:
        self.bench.clock.passed += 40
        note = json.loads((self.bench.machine.folder / project.FILE).read_text())
        assert note == {"outcome": "running", "began": note["began"]}
        if self.log is not None:
            (self.bench.machine.folder / "robocopy.log").write_bytes(("\ufeff" + self.log).encode("utf-16-le"))
        return Completed(self.rc, "", "")


@pytest.fixture
def windows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Windows:
    tell(bench)
    (bench.drive / "Projects").mkdir()
    monkeypatch.setattr(manager, "listens", lambda address, port: (address, port) == ("10.0.0.10", 445))
    return Windows(bench)


def tell(bench: Bench, **change: Any) -> None:
    folder = secrets_folder(bench.machine.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / project.FILE).write_text(json.dumps(TOLD | change))


def noted(bench: Bench) -> dict[str, Any]:
    return json.loads((bench.machine.folder / project.FILE).read_text())  # type: ignore[no-any-return]


def test_the_folder_is_copied(bench: Bench, windows: Windows) -> None:
    project.copy(bench.machine)
    [words] = bench.windows.called("robocopy.exe")
    log = r"C:\ProgramData\RenderFarm\robocopy.log"
    assert words[1:3] == [r"C:\Projects", r"Y:\Projects"]
    assert words[3:] == [
        "/E", "/XO", "/XJ", "/Z", "/R:2", "/W:10", "/NP", "/NDL", "/BYTES", f"/UNILOG:{log}",
    ]  # fmt: skip
    note = noted(bench)
    assert note.pop("began").endswith("Z")
    assert note == {"outcome": "done", "copied": 4, "not_copied": 1, "bytes": 412000000, "seconds": 40}
    assert status(bench.machine)["project"] == noted(bench)


def test_the_password_goes_by_standard_input_only(bench: Bench, windows: Windows) -> None:
    project.copy(bench.machine)
    assert windows.stdin == [(PASSWORD + "\r\n").encode(), None]
    assert not any(PASSWORD in word for words in bench.windows.calls for word in words)
    assert PASSWORD not in json.dumps(noted(bench)) and PASSWORD not in repr(project.Settings(**TOLD))
    scripts = [words[-1] for words in bench.windows.calls if words[0] == POWERSHELL]
    assert r"-RemotePath '\\10.0.0.10\farm'" in scripts[0]
    assert scripts[1].endswith("Remove-SmbGlobalMapping -LocalPath 'Y:' -Force")


@pytest.mark.parametrize("log", [LOG, GERMAN, "x" * 9000 + LOG])
def test_the_summary_is_read_by_position(tmp_path: Path, log: str) -> None:
    path = tmp_path / "robocopy.log"
    path.write_bytes(("\ufeff" + log).encode("utf-16-le"))
    assert project.counts_in(path) == {"copied": 4, "not_copied": 1, "bytes": 412000000}


def test_a_log_without_a_summary_counts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "robocopy.log"
    assert project.counts_in(path) == {}
    path.write_bytes("ERROR 53".encode("utf-16-le"))
    assert project.counts_in(path) == {}


def failing(bench: Bench) -> str:
    with pytest.raises(FarmNodeError) as caught:
        project.copy(bench.machine)
    note = noted(bench)
    assert note["outcome"] == "failed" and note["reason"] == caught.value.message and "seconds" in note
    assert f"ERROR project: {caught.value.message}" in bench.log
    return caught.value.message


@pytest.mark.parametrize(("rc", "whole"), [(0, True), (7, True), (8, False), (16, False), (-1073741510, False)])
def test_exit_codes(bench: Bench, windows: Windows, rc: int, whole: bool) -> None:
    windows.rc = rc
    if whole:
        assert project.copy(bench.machine)["outcome"] == "done"
        return
    assert failing(bench).startswith(f"robocopy ended with {rc}: 1 files were not copied")
    assert noted(bench)["copied"] == 4
    assert bench.windows.called(POWERSHELL)[-1][-1].startswith("$ErrorAction"), "it is unmapped all the same"
    assert len(bench.windows.called(POWERSHELL)) == 2


def test_a_run_that_began_nothing(bench: Bench, windows: Windows) -> None:
    (bench.machine.folder / "robocopy.log").write_bytes(LOG.encode("utf-16-le"))
    windows.rc, windows.log = 16, None
    assert "something was not copied" in failing(bench), "the log before it does not count"
    assert "copied" not in noted(bench)


def test_no_farm_or_no_tunnel(bench: Bench, windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "listens", lambda *_: False)
    assert failing(bench) == "10.0.0.10 does not answer: the farm is down, or the tunnel is."
    assert not bench.windows.called("robocopy.exe") and not bench.windows.called(POWERSHELL)


def test_a_share_that_cannot_be_mapped(bench: Bench, windows: Windows) -> None:
    windows.mapping = Completed(1, "", f"New-SmbGlobalMapping : {PASSWORD} is wrong")
    assert "cannot be mapped to Y: as renderfarm: New-SmbGlobalMapping : *** is wrong" in failing(bench)


def test_a_mapping_that_stays_is_logged(bench: Bench, windows: Windows) -> None:
    windows.unmapping = Completed(1, "", "busy")
    assert project.copy(bench.machine)["outcome"] == "done"
    assert "ERROR Y: stays mapped: busy" in bench.log


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folder": r"D:\Projects"}, "no folder on C:"),
        ({"folder": "C:\\"}, "no folder on C:"),
        ({"folder": r"C:\a/b"}, "no folder on C:"),
        ({"folder": r"C:\Nothing"}, "does not exist"),
        ({"user": "x'; exit"}, "are not"),
        ({"password": 5}, "exactly"),
        ({"more": "x"}, "exactly"),
    ],
)
def test_what_it_is_told_makes_no_sense(bench: Bench, windows: Windows, change: dict[str, Any], said: str) -> None:
    tell(bench, **change)
    assert said in failing(bench) and PASSWORD not in failing(bench)


def test_settings_that_are_missing_or_broken(bench: Bench, windows: Windows) -> None:
    path = secrets_folder(bench.machine.folder) / project.FILE
    path.write_text(PASSWORD)
    assert failing(bench) == "project.json is not JSON: run farm-up.yml again."
    path.unlink()
    assert "does not exist" in failing(bench)


def test_a_full_disk_does_not_keep_it_from_copying(
    bench: Bench, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FarmNodeError("disk_full", "no room.")

    monkeypatch.setattr(project.files, "write", full)
    windows.bench.windows.__dict__["_robocopy"] = lambda *_: Completed(0, "", "")
    assert project.copy(bench.machine)["outcome"] == "done"
    assert bench.log.count("no room.") == 2


def test_no_note_to_read(bench: Bench) -> None:
    assert project.read_note(bench.machine) is None
    (bench.machine.folder / project.FILE).write_text("[]")
    assert project.read_note(bench.machine) is None


def test_the_command(bench: Bench, windows: Windows, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["project"], make_machine=lambda: bench.machine) == 0
    assert json.loads(capsys.readouterr().out)["copied"] == 4
    windows.rc = 8
    assert cli.main(["project"], make_machine=lambda: bench.machine) == 1
