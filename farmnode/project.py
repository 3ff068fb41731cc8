r"""On the workstation: copies the studio's project folder to the farm's share, one way, with Windows' own robocopy.

A scheduled task runs it.  ``project.json`` in `farmnode.drives_keys.FOLDER`, which only SYSTEM and Administrators may
read: ``folder`` (``C:\Projects``), ``unc`` of the share, ``drive`` (a letter that is free here), ``user`` and
``password``.  The copy is ``<share>\Projects``.

Nothing is deleted on the share, and what is newer there stays: nodes write their frames into the same folders.  A run
that ends early (no tunnel, no farm, no power) is taken up by the next one.

``project.json`` beside ``farmnode.log`` tells of the last run: ``outcome`` (``running``, ``done`` or ``failed``),
``began`` (UTC), and at the end ``seconds``, ``copied`` and ``not_copied`` (files), ``bytes``, as far as robocopy
counted, and ``reason`` when it failed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from farmnode import drives, files, manager, paths
from farmnode.drives_keys import secrets_folder
from farmnode.errors import FarmNodeError, reading_failed
from farmnode.machine import Machine
from farmnode.programs import Completed

FILE: Final = "project.json"
#: File sharing: what does not answer here is a farm that is down, or a tunnel that is.
_SMB: Final = 445
#: A run that takes longer is ended, and taken up by the next one.
_SECONDS: Final = 86400.0
#: robocopy's exit code is made of bits; from 8 on something was not copied (Microsoft, "Robocopy", exit return codes).
_NOT_COPIED: Final = 8

_FOLDER = re.compile(r'[Cc]:(?:\\[^\\/:*?"<>|]+)+')
#: ``   Files :         2         1  …``: total, copied, skipped, mismatch, failed, extras. The labels are translated,
#: their order is not: folders, files, bytes.
_COUNTS = re.compile(r"^\s*[^:\n]+:" + r"\s+(\d+)" * 6 + r"\s*$", re.MULTILINE)

#: Microsoft, "Robocopy". /E subfolders, also empty ones; /XO leaves what is newer at the destination; /XJ follows no
#: junctions, which may go in circles; /Z takes up a file where its copy ended; /R and /W tries again, twice after ten
#: seconds, where the default is a million times; /NP /NDL no progress and no folders in the log; /BYTES sizes in full.
_OPTIONS: Final = ("/E", "/XO", "/XJ", "/Z", "/R:2", "/W:10", "/NP", "/NDL", "/BYTES")


@dataclass(frozen=True)
class Settings:
    """What is copied, and to where."""

    folder: str
    unc: str
    drive: str
    user: str
    password: str = field(repr=False)

    @property
    def server(self) -> str:
        return self.unc.split("\\")[2]

    @property
    def destination(self) -> str:
        """The folder of the same name on the share."""
        return self.drive + "\\" + self.folder.rpartition("\\")[2]


def settings_from(path: Path) -> Settings:
    """The settings in ``path``. FarmNodeError unless they are exactly that."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise reading_failed(error, paths.shown(path)) from error
    except ValueError:
        # Without the text of the error, which may quote the file, and so the password.
        raise FarmNodeError("project", f"{FILE} is not JSON: run farm-up.yml again.") from None
    known = {each.name for each in fields(Settings)}
    if not isinstance(data, dict) or set(data) != known or not all(isinstance(text, str) for text in data.values()):
        raise FarmNodeError("project", f"{FILE} must have exactly {', '.join(sorted(known))}: run farm-up.yml again.")
    settings = Settings(**data)
    if not _FOLDER.fullmatch(settings.folder):
        raise FarmNodeError("project", f"{settings.folder} is no folder on C: (farm_project_folder).")
    return settings


def copy(machine: Machine) -> dict[str, Any]:
    """One run; returns what is noted of it. FarmNodeError when something was not copied, which is noted as well."""
    note: dict[str, Any] = {"outcome": "running", "began": machine.clock.stamp()}
    begun = machine.clock.monotonic()
    write_note(machine, note)
    try:
        done, counts = _copied(machine)
        note |= counts
        if not 0 <= done.rc < _NOT_COPIED:
            number = f"{counts['not_copied']} files were" if counts else "something was"
            raise FarmNodeError(
                "project",
                f"robocopy ended with {done.rc}: {number} not copied; see {paths.shown(_log(machine))}. "
                "The next run tries again.",
            )
        note["outcome"] = "done"
    except FarmNodeError as error:
        note |= {"outcome": "failed", "reason": error.message}
        machine.log.error(f"project: {error.message}")
        raise
    finally:
        write_note(machine, note | {"seconds": round(machine.clock.monotonic() - begun, 3)})
    return note


def _copied(machine: Machine) -> tuple[Completed, dict[str, int]]:
    """How robocopy ended, and what it counted."""
    settings = settings_from(secrets_folder(machine.folder) / FILE)
    if not paths.real(settings.folder).is_dir():
        raise FarmNodeError("project", f"{settings.folder} does not exist; see farm_project_folder.")
    if not manager.listens(settings.server, _SMB):
        raise FarmNodeError("project", f"{settings.server} does not answer: the farm is down, or the tunnel is.")
    log = _log(machine)
    log.unlink(missing_ok=True)
    drives.map_drive(settings.unc, settings.drive, settings.user, settings.password, machine.programs)
    try:
        words = [settings.folder, settings.destination, *_OPTIONS, f"/UNILOG:{paths.shown(log)}"]
        done = machine.programs.run("robocopy.exe", words, timeout=_SECONDS)
    finally:
        try:
            drives.unmap_drive(settings.drive, machine.programs)
        except FarmNodeError as error:
            machine.log.error(error.message)  # the next run takes it away before it maps anew
    return done, counts_in(log)


def _log(machine: Machine) -> Path:
    return machine.folder / "robocopy.log"


def counts_in(log: Path) -> dict[str, int]:
    """Files copied, files failed and bytes copied, as the summary at the end of robocopy's log counts them.

    Empty when there is none: robocopy was ended, or did not begin.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))  # an even number: a character has two bytes
            tail = file.read()
    except OSError:
        return {}
    rows = [[int(number) for number in row] for row in _COUNTS.findall(tail.decode("utf-16-le", "replace"))]
    if len(rows) < 3:
        return {}
    _, of_files, of_bytes = rows[-3:]
    return {"copied": of_files[1], "not_copied": of_files[4], "bytes": of_bytes[1]}


def write_note(machine: Machine, note: dict[str, Any]) -> None:
    """Tell of the run in project.json. A full disk must not keep the project from being copied."""
    try:
        files.write(machine.folder / FILE, (json.dumps(note, indent=1) + "\n").encode("ascii"))
    except FarmNodeError as error:
        machine.log.error(error.message)


def read_note(machine: Machine) -> dict[str, Any] | None:
    """What is noted of the last run; None when there was none, or the note cannot be read."""
    try:
        found = json.loads((machine.folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
