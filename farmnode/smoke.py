r"""The proof, on the builder, that what the image is made of works: a manager, a server, and a job that writes frames.

Both Backburner services run for seconds on this one machine, `cmdjob.exe` (Backburner's command-line submitter) sends
a job, and its tasks must leave their files.  Afterwards everything is as it was: Backburner's folder, its services,
farmnode's memory.  The job runs as the account of the service, so its folder, unlike farmnode's, lets every user write.

Options of cmdjob.exe: Autodesk Backburner, "Command-line job submission" (``CMDJOB`` without arguments lists them).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from farmnode import backburner_xml, converge, files, manager, paths, services
from farmnode.converge import Desired
from farmnode.errors import FarmNodeError, writing_failed
from farmnode.machine import Machine
from farmnode.seal import seal

_CMDJOB: Final = ("Autodesk", "Backburner", "cmdjob.exe")
_PYTHON: Final = r"C:\RenderFarm\python\python.exe"
_TASKS: Final = 2
_LIMIT: Final = 120.0  # seconds for the registration, and for the job
_THIS: Final = "127.0.0.1"
#: SYSTEM and Administrators; Users, among them Local Service and Network Service. By their well-known identifiers.
_RIGHTS: Final = ("*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F", "*S-1-5-32-545:(OI)(CI)M")


def smoke(machine: Machine) -> dict[str, Any]:
    """Run the probe job; FarmNodeError says which step failed. Seals the machine first."""
    path = seal(machine)["path"]
    began = machine.clock.monotonic()
    frames = machine.folder / "smoke"
    with _put_back(machine, paths.real(path).parent), _scratch(frames, machine):
        own = machine.metadata.instance()
        converge.apply(Desired(manager=_THIS, identity=own.identity), machine)
        machine.services.start(services.MANAGER)
        _reach(machine, lambda: manager.listens(_THIS, manager.PORT), "the manager takes no connection on port 3234")
        machine.services.start(services.SERVER)
        _reach(
            machine, lambda: _registered(machine, own.identity.handle), "the server does not register at the manager"
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


def _registered(machine: Machine, handle: str) -> bool:
    listed = manager.servers(_THIS, manager.PORT, machine.clock)
    return any(server.handle == handle and server.state != manager.ABSENT for server in listed)


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
    """Stop both services at the end, then give Backburner's folder and farmnode's memory the content of before."""
    copy = machine.folder / "smoke-backup"
    memory = machine.state.path
    before = memory.read_bytes() if memory.exists() else None
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
        if before is None:
            memory.unlink(missing_ok=True)
        else:
            files.write(memory, before)


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
