"""How long nodes needed, by their own notes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rehearsal.boot_times import BootTime, boot_time, boot_times, line
from rehearsal.proof import prove_boot_times
from rehearsal.session import ProofError, Rehearsal

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
    assert "2 nodes needed 1.65 s (median; the limit is 2 s), 1.90 s (most)" in line(times)
    assert "0.40 s (median), 0.50 s (most)" in line(times)
    assert line([]) == "no node became ready"


def rehearsed(machines: list[dict[str, Any]]) -> Rehearsal:
    return cast("Rehearsal", SimpleNamespace(machines=lambda: machines))


def test_the_proof_fails_when_nodes_boot_slowly_or_say_nothing(tmp_path: Path) -> None:
    def node(name: str, seconds: float) -> dict[str, Any]:
        return machine(tmp_path, name, "render_node", BOOT | {"seconds": seconds})

    quick, slow = node("quick", 5.0), node("slow", 15.0)
    assert "2 s" in prove_boot_times(rehearsed([quick, node("another", 5.1), slow]))
    with pytest.raises(ProofError, match=r"too slowly: .* 3 nodes needed 2\.10 s \(median"):
        prove_boot_times(rehearsed([quick, node("just", 5.7), slow]))
    with pytest.raises(ProofError, match="1 of 2 nodes noted that they became ready"):
        prove_boot_times(rehearsed([quick, machine(tmp_path, "new", "render_node", None)]))
    assert prove_boot_times(rehearsed([])) == "no node became ready"
