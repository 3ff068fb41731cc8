"""The probe job on a builder: what is run, what must come of it, and that nothing of it stays."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import BUILDER, Bench, instance

from farmnode import manager, smoke
from farmnode.errors import FarmNodeError
from farmnode.manager import Server
from farmnode.services import MANAGER, SERVER


@pytest.fixture
def builder(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """A sealed builder whose Backburner works, but for what a test takes away."""
    bench.metadata.answer = instance("", tag="builder", identity=BUILDER)
    handle = BUILDER.handle
    monkeypatch.setattr(manager, "listens", lambda address, port: True)
    monkeypatch.setattr(manager, "servers", lambda address, port, clock: [Server(handle, "idle", BUILDER.name)])
    monkeypatch.setenv("ProgramFiles(x86)", str(tmp_path))
    return bench


def cmdjob(frames: int, rc: int = 0) -> Any:
    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert words[0].endswith("cmdjob.exe")
        assert words[1:5] == ["-manager:127.0.0.1", "-port:3234", "-jobName:renderfarm-smoke", "-numTasks:2"]
        folder, number = words[-2:]
        assert number == "%tn"
        for task in range(1, frames + 1):
            smoke.write_frame(folder, str(task), "BUILDER")
        return subprocess.CompletedProcess(words, rc, b"", b"Manager not found")

    return run


def test_probe_job_leaves_nothing(builder: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke.subprocess, "run", cmdjob(2))
    before = None

    def remember(words: list[str]) -> None:
        nonlocal before
        if words[:3] == ["sc.exe", "start", MANAGER]:
            before = True
            (builder.file.parent / "Jobs").mkdir(exist_ok=True)

    builder.windows.on_call = remember
    text = builder.file.read_bytes()
    result = smoke.smoke(builder.machine)
    assert (result["frames"], result["changed"]) == (2, False)
    assert before
    assert builder.file.read_bytes() == text
    assert not (builder.file.parent / "Jobs").exists()
    assert {builder.windows.services[name].state for name in (MANAGER, SERVER)} == {1}
    assert not list(builder.machine.folder.glob("smoke*"))
    assert not builder.machine.state.path.exists()
    (rights,) = builder.windows.called("icacls.exe", r"C:\ProgramData\RenderFarm\smoke")
    assert "*S-1-5-32-545:(OI)(CI)M" in rights, "the service's account writes there"


@pytest.mark.parametrize(("frames", "rc", "message"), [(1, 0, "frames"), (2, 3, "cmdjob.exe ended with 3.*not found")])
def test_failure_is_told_and_all_is_put_back(
    builder: Bench, monkeypatch: pytest.MonkeyPatch, frames: int, rc: int, message: str
) -> None:
    monkeypatch.setattr(smoke.subprocess, "run", cmdjob(frames, rc))
    text = builder.file.read_bytes()
    with pytest.raises(FarmNodeError, match=message):
        smoke.smoke(builder.machine)
    assert builder.file.read_bytes() == text
    assert not list(builder.machine.folder.glob("smoke*"))


def test_server_that_does_not_register(builder: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "servers", lambda address, port, clock: [Server(BUILDER.handle, "absent", "x")])
    with pytest.raises(FarmNodeError, match="does not register"):
        smoke.smoke(builder.machine)


def test_frame_needs_a_number(builder: Bench) -> None:
    with pytest.raises(FarmNodeError, match="%tn"):
        smoke.write_frame(r"C:\ProgramData\RenderFarm\smoke", "%tn", "BUILDER")
