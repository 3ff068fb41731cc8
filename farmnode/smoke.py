r"""The proof, on the builder, that what the image is made of works: a manager, a node's boot, a job that writes frames.

Both Backburner services run for seconds on this one machine.  `farmnode.boot` makes it a render node of itself,
`cmdjob.exe` (Backburner's command-line submitter) sends a job, and its tasks must leave their files.  Afterwards
everything is as it was: Backburner's folder, its services, farmnode's memory.  The job runs as the account of the
service, so its folder, unlike farmnode's, lets every user write.

What a boot cannot do here: set routes, for the manager is on this machine, and map the share, for there is none.

Options of cmdjob.exe: Autodesk Backburner, "Command-line job submission" (``CMDJOB`` without arguments lists them).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from farmnode import backburner_xml, farm, files, manager, paths, services
from farmnode.boot import Boot
from farmnode.errors import FarmNodeError, writing_failed
from farmnode.machine import Machine
from farmnode.metadata import Instance, MetadataClient
from farmnode.report import Serial
from farmnode.seal import seal
from farmnode.state import State

_CMDJOB: Final = ("Autodesk", "Backburner", "cmdjob.exe")
_PYTHON: Final = r"C:\RenderFarm\python\python.exe"
_TASKS: Final = 2
_LIMIT: Final = 120.0  # seconds for the registration, and for the job
_THIS: Final = "127.0.0.1"
#: SYSTEM and Administrators; Users, among them Local Service and Network Service. By their well-known identifiers.
_RIGHTS: Final = ("*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F", "*S-1-5-32-545:(OI)(CI)M")


def smoke(machine: Machine) -> dict[str, Any]:
    """Boot as a node, run the probe job; FarmNodeError says which step failed. Seals the machine first."""
    path = seal(machine)["path"]
    began = machine.clock.monotonic()
    frames = machine.folder / "smoke"
    with _put_back(machine, paths.real(path).parent), _scratch(frames, machine):
        machine.services.start(services.MANAGER)
        event = Boot(_Node(machine, frames)).run()
        if event["event"] != "ready":
            raise FarmNodeError(
                "smoke", f"a node does not boot: {event['code']} in phase {event['phase']}: {event['reason']}"
            )
        _submit(frames)
        _reach(
            machine,
            lambda: len(list(frames.glob("frame*.txt"))) == _TASKS,
            f"the probe job wrote {len(list(frames.glob('frame*.txt')))} of {_TASKS} frames",
        )
    seconds = round(machine.clock.monotonic() - began, 1)
    machine.log.info(f"smoke: {_TASKS} frames in {seconds} s")
    return {"changed": False, "frames": _TASKS, "seconds": seconds, "path": path}


def write_frame(folder: str, number: str, computer: str) -> dict[str, Any]:
    """One task of the probe job: a file that says where it was made."""
    if not number.isdigit():
        raise FarmNodeError("smoke", f"the number of the task is {number!r}; cmdjob.exe replaces %tn by it.")
    path = paths.real(folder) / f"frame{int(number):04d}.txt"
    files.write(path, f"task {int(number)} on {computer}\r\n".encode("ascii", "replace"))
    return {"changed": True, "path": paths.shown(path)}


class _Node(Machine):
    """The builder as a render node whose manager it is itself. It tells nobody, and stays on when the boot fails."""

    def __init__(self, builder: Machine, memory: Path) -> None:
        """``memory`` is for what the boot remembers, so that who runs on the builder meanwhile does not read it."""
        told = _Told(builder)
        super().__init__(programs=builder.programs, clock=builder.clock, metadata=told, folder=builder.folder)
        self.state = State(memory, builder.clock)
        files.write(self.state.image_path, builder.state.image_path.read_bytes())
        self.serial = _Silent(self.folder, self.programs, self.log, self.clock)

    def shut_down(self) -> None:
        self.log.info("smoke: a node would end itself now")


class _Told(MetadataClient):
    """The builder's own metadata, with what a render node is told."""

    def __init__(self, builder: Machine) -> None:
        super().__init__(builder.clock)
        own = builder.metadata.instance()
        known = farm.parse_user_data(own.user_data)
        part = {
            "version": 1,
            "farm": known.name if known else "smoke",
            "role": "render_node",
            "manager": _THIS,
            "manager_port": manager.PORT,
            "networks": {name: str(network) for name, network in known.networks.items()} if known else {},
            "limits": {"manager": _LIMIT, "registration": _LIMIT},
        }
        self._own = replace(own, user_data=f"<farm>{json.dumps(part)}</farm>".encode())

    def instance(self) -> Instance:
        return self._own


class _Silent(Serial):
    """Who waits on the builder's console waits for no node."""

    def say(self, event: dict[str, Any]) -> None:
        pass


def _reach(machine: Machine, reached: Callable[[], bool], problem: str) -> None:
    if not machine.clock.wait(reached, _LIMIT, first=0.2):
        raise FarmNodeError(
            "smoke", f"{problem} after {_LIMIT:g} seconds; see backburner.log beside {backburner_xml.FILE}."
        )


def _submit(frames: Path) -> None:
    program = Path(paths.environment("ProgramFiles(x86)")).joinpath(*_CMDJOB)
    task = [_PYTHON, "-I", "-m", "farmnode", "frame", paths.shown(frames), "%tn"]
    options = [f"-manager:{_THIS}", f"-port:{manager.PORT}", "-jobName:renderfarm-smoke", f"-numTasks:{_TASKS}"]
    try:
        done = subprocess.run(
            [str(program), *options, *task], stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FarmNodeError("smoke", f"{paths.shown(program)} does not run: {error}") from error
    if done.returncode:
        text = (done.stdout + done.stderr).decode("ascii", "replace").split()
        raise FarmNodeError("smoke", f"cmdjob.exe ended with {done.returncode}: {' '.join(text)[:400] or 'no output'}")


@contextlib.contextmanager
def _put_back(machine: Machine, folder: Path) -> Iterator[None]:
    """Stop both services at the end, then give Backburner's folder the content of before."""
    copy = machine.folder / "smoke-backup"
    try:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
    except OSError as error:
        raise writing_failed(error, paths.shown(copy)) from error
    try:
        yield
    finally:
        for name in (services.SERVER, services.MANAGER):
            machine.services.stop(name)
        _restore(folder, copy)


def _restore(folder: Path, copy: Path) -> None:
    """The folder itself stays, with its rights; what is in it is replaced."""
    try:
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        shutil.copytree(copy, folder, dirs_exist_ok=True)
        shutil.rmtree(copy)
    except OSError as error:
        raise writing_failed(error, paths.shown(folder)) from error


@contextlib.contextmanager
def _scratch(folder: Path, machine: Machine) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        machine.programs.check("icacls.exe", [paths.shown(folder), "/inheritance:r", "/grant:r", *_RIGHTS])
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
