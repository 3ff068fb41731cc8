"""How long nodes needed, by their own notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rehearsal.boot_times import BootTime, boot_time, boot_times, line

LOG = """\
2026-10-14T08:00:00.000+00:00 power on: 10.0.0.21 06:11:22:33:44:5f
2026-10-14T09:00:01.000+00:00 power on: 10.0.0.21 06:11:22:33:44:5f
2026-10-14T09:00:01.200+00:00 task RenderFarm node starts
"""
BOOT: dict[str, Any] = {
    "event": "ready", "started": "2026-10-14T09:00:01.400Z", "seconds": 5.0, "processor_seconds": 0.3,
    "phases": [{"name": "metadata", "seconds": 0.5}, {"name": "manager", "seconds": 4.0}],
}  # fmt: skip


def test_it_counts_from_the_last_power_on_without_the_wait_for_the_manager() -> None:
    assert boot_time(BOOT, LOG) == BootTime(pytest.approx(1.4), 0.3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("boot", "log"), [(BOOT | {"event": "failed"}, LOG), ({}, LOG), (BOOT, "")])
def test_who_is_not_ready_does_not_count(boot: dict[str, Any], log: str) -> None:
    assert boot_time(boot, log) is None


def machine(folder: Path, name: str, role: str, boot: dict[str, Any] | None) -> dict[str, Any]:
    drive = folder / name / "c"
    drive.mkdir(parents=True)
    drive.with_name("machine.log").write_text(LOG)
    if boot is not None:
        (drive / "ProgramData/RenderFarm").mkdir(parents=True)
        (drive / "ProgramData/RenderFarm/state.json").write_text(json.dumps({"version": 1, "boot": boot}))
    return {"name": name, "role": role, "c": str(drive)}


def test_the_render_nodes_of_a_farm_in_one_line(tmp_path: Path) -> None:
    slow = BOOT | {"seconds": 5.5, "processor_seconds": 0.5}
    machines = [
        machine(tmp_path, "manager", "manager", BOOT), machine(tmp_path, "one", "render_node", BOOT),
        machine(tmp_path, "two", "render_node", slow), machine(tmp_path, "new", "render_node", None),
    ]  # fmt: skip
    times = boot_times(machines)
    assert len(times) == 2
    assert "2 nodes needed 1.65 s (median), 1.90 s (most)" in line(times)
    assert "0.40 s (median), 0.50 s (most)." in line(times)
    assert line([]) == "No node became ready."
