"""The disks of machines: cloned from images, filled up and freed by faults, thrown away."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from rehearsal.interfaces import RehearsalError
from rehearsal.network import netns

_SURVIVES = ("c", "host.json")  # what of a machine's folder is on its disk
_LOGS = ("console.log", "machine.log")
_FILLER = "rehearsal-filler.bin"
_MS_BIND = 0x1000


async def clone(source: Path, target: Path) -> None:
    """Copy a disk between two folders: complete, or not at all; blocks are shared where the file system can do that.

    RehearsalError when it cannot be copied.
    """
    target.mkdir(parents=True, exist_ok=True)
    part = target / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        files = [str(source / name) for name in _SURVIVES]
        outcome = await netns.run(["cp", "-a", "--reflink=auto", "--", *files, str(part)])
        if outcome.rc != 0:
            raise RehearsalError(f"{source} cannot be copied: {outcome.stderr.decode(errors='replace').strip()}")
        for name in _SURVIVES:
            (part / name).rename(target / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def make(write: Callable[[Path], object], target: Path) -> None:
    """Have ``write`` make a disk in a new folder that appears only when it is complete."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    part.rename(target)


def keep_logs(folder: Path, target: Path) -> None:
    """Move a machine's logs to ``target`` and remove the rest of its folder."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _LOGS:
        if (folder / name).exists():
            (folder / name).replace(target / name)
    shutil.rmtree(folder)


def fill(folder: Path) -> None:
    """Leave no space on a machine's drive: it becomes a small file system of its own that is full.

    Only the rehearsal's own processes see that file system; what the machine writes from now on is not in ``c/`` until
    :func:`free`. Files whose contents fit into blocks that they already have can still be changed.
    """
    disk, new = folder / "c", folder / "c.full"
    new.mkdir()
    size = sum(path.lstat().st_size + 8192 for path in disk.rglob("*")) + (1 << 20)
    netns.mount("rehearsal-disk", new, "tmpfs", data=f"size={size}")
    shutil.copytree(disk, new, symlinks=True, dirs_exist_ok=True)
    netns.mount(str(new), disk, "none", flags=_MS_BIND)
    netns.unmount(new)
    new.rmdir()
    with (disk / _FILLER).open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 65536)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def free(folder: Path) -> None:
    """Undo :func:`fill`; what was written meanwhile is kept."""
    disk, new = folder / "c", folder / "c.full"
    (disk / _FILLER).unlink()
    shutil.copytree(disk, new, symlinks=True)
    netns.unmount(disk)
    shutil.rmtree(disk)
    new.rename(disk)
