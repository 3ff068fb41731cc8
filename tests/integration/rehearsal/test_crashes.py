"""Whatever ends a rehearsal, nothing of it is left; two rehearsals do not meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.rehearsal.conftest import REPOSITORY, World, processes_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root")]


def namespaces(pid: int) -> set[tuple[str, int]]:
    """The identities of the namespaces that a process lives in and of those that it keeps by name."""
    own = {(kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino) for kind in ("mnt", "net", "pid")}  # noqa: PTH116
    return own | {("net", path.stat().st_ino) for path in Path(f"/proc/{pid}/root/run/netns").iterdir()}


def inhabited(wanted: set[tuple[str, int]]) -> list[str]:
    """The processes that live in one of the namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            for kind, number in wanted:
                try:
                    if (entry / "ns" / kind).stat().st_ino == number:
                        found.append(f"{entry.name} {kind}")
                except OSError:
                    break  # it ended meanwhile
    return found


def gone(world: World, wanted: set[tuple[str, int]]) -> None:
    world.until(lambda: not processes_of(world.folder) and not inhabited(wanted), "the end of every process", 10)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        assert str(world.folder) not in line
        assert " /run/rehearsal " not in line


@pytest.mark.parametrize("victim", ["worker", "first process", "unshare"])
def test_nothing_survives_a_killed_daemon(tmp_path: Path, victim: str) -> None:
    world = World(tmp_path / "r")
    world.must("up")
    pid = world.state()["daemon_pid"]
    wanted = namespaces(pid)
    assert len(wanted) >= 3 + 5
    assert inhabited(wanted)
    for _ in range(["worker", "first process", "unshare"].index(victim)):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(pid, signal.SIGKILL)
    gone(world, wanted)
    assert "python -m rehearsal up" in world.command("status").stderr
    assert world.command("exec", "--", "true").returncode == 1
    world.must("up")  # the folder can be used again at once
    world.must("down")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("when", ["network", "workstation"])
def test_nothing_survives_an_interrupted_start(tmp_path: Path, number: signal.Signals, when: str) -> None:
    world = World(tmp_path / "r")
    # A shell's background jobs ignore Ctrl-C, and so would what this test starts if it is one of them.
    listening = ["env", "--default-signal=INT"]
    start = subprocess.Popen(
        [*listening, sys.executable, "-m", "rehearsal", "up", "--dir", str(world.folder)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert start.stdout is not None
    for line in start.stdout:
        if when in line:
            break
    start.send_signal(number)
    start.communicate(timeout=20)
    if start.returncode == 0:
        world.must("down")
        pytest.skip("it was up before it could be interrupted")
    assert start.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    gone(world, set())
    assert "No rehearsal is up" in world.must("down")
    assert not (world.folder / "state.json").exists()


def test_signals_end_a_rehearsal(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    world.must("up")
    wanted = namespaces(world.state()["daemon_pid"])
    os.kill(world.state()["daemon_pid"], signal.SIGTERM)
    gone(world, wanted)
    assert not (world.folder / "state.json").exists()


def ended(command: list[str], folder: Path, begun: Path, number: signal.Signals) -> int:
    """The exit code of a command that gets a signal as soon as ``begun`` is there; nothing of it may be left."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    world = World(folder)
    try:
        world.until(lambda: begun.exists() or process.poll() is not None, str(begun), 60)
        process.send_signal(number)
        code = process.wait(timeout=60)
        world.until(lambda: not processes_of(folder), "the end of every process", 5)
        return code
    finally:
        process.kill()
        world.command("down")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_proof_with_its_rehearsal(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "r"
    command = ["rehearsal", "prove", "--dir", str(folder), "--nodes", "1"]
    assert ended(command, folder, folder / "logs/01-bake-ami.log", number) == 128 + number


def test_signals_end_a_test_run_with_its_rehearsal(tmp_path: Path) -> None:
    folder = tmp_path / "tests/world0/rehearsal"
    file = "tests/integration/rehearsal/test_machines.py"
    command = ["pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests"), file]
    assert ended(command, folder, folder / "state.json", signal.SIGTERM) == 128 + signal.SIGTERM


def test_down_ends_what_still_runs_on_the_controller(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    world.must("up")
    forgotten = ["import time", f"time.sleep(600)  # {world.folder}"]
    command = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(world.folder), "--", sys.executable, "-c"]
    process = subprocess.Popen([*command, "\n".join(forgotten)], cwd=REPOSITORY, start_new_session=True)
    try:
        world.until(lambda: any("time.sleep" in line for line in processes_of(world.folder)), "the command", 10)
        time.sleep(0.5)
        world.must("down")
        assert process.wait(timeout=10) == -signal.SIGTERM
    finally:
        process.kill()


def test_two_rehearsals_stand_side_by_side(tmp_path: Path) -> None:
    worlds = [World(tmp_path / name) for name in ("one", "two")]
    for world in worlds:
        world.must("up")
    worlds[0].lab("network")
    assert "10.0.0.0/24" in worlds[0].lab("vpcs")
    assert "10.0.0.0/24" not in worlds[1].lab("vpcs")
    assert not namespaces(worlds[0].state()["daemon_pid"]) & namespaces(worlds[1].state()["daemon_pid"])
    worlds[0].must("down")
    assert worlds[1].must("exec", "--", "echo", "still here") == "still here\n"
    worlds[1].must("down")


def test_the_machines_own_network_is_out_of_reach(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    world.must("up")
    try:
        listed = world.inside("inet", "ip", "-o", "link").stdout
        assert {line.split(":")[1].strip().split("@")[0] for line in listed.splitlines()} == {"lo", "home"}
        pid = world.state()["daemon_pid"]
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        started = time.monotonic()
        script = "import socket; socket.create_connection(('1.1.1.1', 443), timeout=5)"
        done = world.command("exec", "--", sys.executable, "-c", script)
        assert "unreachable" in done.stderr
        assert time.monotonic() - started < 4
    finally:
        world.must("down")
