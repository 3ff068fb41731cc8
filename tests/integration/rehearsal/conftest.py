"""A rehearsal for tests: started by its command line, asked through it, seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]
LAB = Path(__file__).with_name("lab.py")
CONNECT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.0):
        print("open")
except OSError as error:
    print(type(error).__name__)
"""


class World:
    """One rehearsal in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run ``python -m rehearsal NAME --dir FOLDER ARGUMENTS``."""
        return subprocess.run(
            [sys.executable, "-m", "rehearsal", name, "--dir", str(self.folder), *arguments],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def must(self, name: str, *arguments: str, **options: Any) -> str:
        done = self.command(name, *arguments, **options)
        assert done.returncode == 0, done.stderr + (self.folder / "daemon.log").read_text()
        return done.stdout

    def lab(self, do: str, **request: Any) -> Any:
        """Have ``lab.py`` do something on the controller."""
        answer = self.must("exec", "--", sys.executable, str(LAB), input=json.dumps({"do": do, **request}))
        return json.loads(answer)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def machine(self, name: str) -> dict[str, Any] | None:
        return next((machine for machine in self.state()["machines"] if machine["name"] == name), None)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
        """Wait for a condition; fails with the rehearsal's own words."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError(f"{what} did not happen: {self.command('status').stdout}")

    def running(self, name: str) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            machine = self.machine(name)
            return machine if machine and machine["state"] == "running" else None

        found: dict[str, Any] = self.until(ready, f"{name} running")
        return found

    def inside(self, namespace: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the network of a machine, with the files that programs of the rehearsal see."""
        state = self.state()
        path = Path(state["controller_namespace_path"]).with_name(namespace)
        files = f"--mount=/proc/{state['daemon_pid']}/ns/mnt"
        return subprocess.run(
            ["nsenter", files, f"--net={path}", "--", *argv], capture_output=True, text=True, timeout=30, check=False
        )

    def connect(self, namespace: str, address: str, port: int) -> str:
        """``open``, or the name of the error."""
        return self.inside(namespace, sys.executable, "-c", CONNECT, address, str(port)).stdout.strip()


def processes_of(folder: Path) -> list[str]:
    """The command lines of every process that names the folder of a rehearsal."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            if str(folder) in command:
                found.append(command)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world") / "rehearsal")
    try:
        made.must("up")
        yield made
    finally:
        made.must("down")
    assert processes_of(made.folder) == []
