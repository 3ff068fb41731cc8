from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from farmnode_fakes import BUILDER, Bench, FakeClock, FakeMetadata, FakeWindows

from farmnode import paths
from farmnode.machine import Machine


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is drive C: of a machine, and the environment of a process there."""
    c = tmp_path / "c"
    (c / "Windows" / "System32").mkdir(parents=True)
    for name, place in {
        "SystemDrive": "",
        "SystemRoot": "Windows",
        "ProgramData": "ProgramData",
        "ProgramFiles": "Program Files",
        "ProgramFiles(x86)": "Program Files (x86)",
    }.items():
        monkeypatch.setenv(name, str(c / place))
    monkeypatch.setenv("COMPUTERNAME", "EC2AMAZ-BUILD01")
    return c


@pytest.fixture
def bench(drive: Path) -> Iterator[Bench]:
    """A machine that was cloned from the builder's image and did not boot yet. It may only say what is documented."""
    windows, clock, metadata = FakeWindows(real=paths.real), FakeClock(), FakeMetadata()
    machine = Machine(programs=windows, clock=clock, metadata=metadata)  # type: ignore[arg-type]
    machine.state.remember_image(BUILDER)
    profile = drive / "Windows" / "ServiceProfiles" / "LocalService" / "AppData" / "Local"
    made = Bench(drive, windows, clock, metadata, machine, profile / "backburner" / "backburner.xml")
    made.put()
    yield made
    assert windows.undocumented == []
