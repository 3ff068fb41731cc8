r"""``backburner.xml`` on the disk: which file it is, reading it, computing a new text, writing it safely.

The folders are those that Autodesk documents: the profile of the account that runs the service ("per-user application
data directory of the Local Service user", Creative Finishing set-up guide), of the user for the desktop programs
(``AppData\Local\backburner``), and ``Network`` in the program's folder for old versions (3ds Max Help).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from farmnode import document, files, paths
from farmnode.errors import FarmNodeError, reading_failed
from farmnode.identity import Identity, replace_identity

#: Elements that every backburner.xml must have (Backburner User's Guide, "Configuring backburner.xml").
ELEMENTS: Final = ("ManagerName", "ManagerPort", "ServerName", "ServerPort", "NetworkMask")

FILE: Final = "backburner.xml"


@dataclass(frozen=True)
class Edit:
    """A file as it is and as it shall be."""

    path: Path
    before: document.Encoded
    after: str
    changes: dict[str, tuple[str, str]]
    replaced: int

    @property
    def changed(self) -> bool:
        return self.after != self.before.text


def candidates() -> list[Path]:
    """Where the file may be, the most likely place first."""
    windows = Path(paths.environment("SystemRoot"))
    users = Path(paths.environment("SystemDrive") + os.sep, "Users")
    profiles = [
        windows / "ServiceProfiles" / "LocalService",
        windows / "ServiceProfiles" / "NetworkService",
        windows / "SysWOW64" / "config" / "systemprofile",
        windows / "System32" / "config" / "systemprofile",
        *(sorted(folder for folder in users.iterdir() if folder.is_dir()) if users.is_dir() else []),
    ]
    programs = [os.environ.get(name) for name in ("ProgramFiles(x86)", "ProgramFiles")]
    return [profile / "AppData" / "Local" / "backburner" / FILE for profile in profiles] + [
        Path(folder, "Autodesk", "Backburner", "Network", FILE) for folder in programs if folder
    ]


def find(places: Sequence[Path] | None = None) -> Path:
    """The newest of the files that exist; among equals the most likely place.

    Raises FarmNodeError that lists every place when there is none.
    """
    places = candidates() if places is None else places
    there = [place for place in places if place.is_file()]
    if not there:
        raise FarmNodeError(
            "missing_file",
            f"{FILE} is in none of {', '.join(map(paths.shown, places))}. Install Backburner and start its services "
            "once, so that it writes the file, or say by 'path' where it is.",
        )
    return max(there, key=lambda place: place.stat().st_mtime_ns)


def read(path: Path) -> document.Encoded:
    """The file's text. FarmNodeError when it is missing, unreadable or of unknown encoding."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FarmNodeError(
            "missing_file",
            f"{paths.shown(path)} does not exist. Start the Backburner service once, so that it writes the file, "
            "or say by 'path' where it is.",
        ) from None
    except OSError as error:
        raise reading_failed(error, paths.shown(path)) from error
    return document.decode(data, paths.shown(path))


def edit(path: Path, old: Iterable[Identity], new: Identity | None, wanted: Mapping[str, str]) -> Edit:
    """What the file at ``path`` must become: each identity of ``old`` replaced by ``new``, the elements ``wanted`` set.

    Nothing is written.  FarmNodeError when the file is missing, broken or lacks one of `ELEMENTS`.
    """
    shown = paths.shown(path)
    before = read(path)
    was = _known(before.text, shown)
    text, replaced = before.text, 0
    if new is not None:
        for each in old:
            text, count = document.map_content(text, partial(replace_identity, old=each, new=new), shown)
            replaced += count
    text = document.set_values(text, wanted, shown)
    now = _known(text, shown)
    changes = {name: (was[name], now[name]) for name in ELEMENTS if was[name] != now[name]}
    return Edit(path, before, text, changes, replaced)


def _known(text: str, shown: str) -> dict[str, str]:
    """The values of `ELEMENTS`, each of which must be there once."""
    return {name: element.value.strip() for name, element in document.only(text, ELEMENTS, shown).items()}


def require_writable(path: Path) -> None:
    """FarmNodeError when the file carries the read-only flag (which an atomic replacement would step over)."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise reading_failed(error, paths.shown(path)) from error
    if not mode & stat.S_IWRITE:
        raise FarmNodeError(
            "unwritable_file",
            f"{paths.shown(path)} is read-only. Clear the flag (attrib -R) or find out who set it.",
        )


def write(change: Edit) -> Path:
    """Put the new text in the place of the old, whose copy is ``<file>.bak`` then; returns that copy's path.

    Each file is either the old one whole or the new one whole, at every moment.
    """
    require_writable(change.path)
    backup = change.path.with_name(change.path.name + ".bak")
    before = change.before.encode(change.before.text)
    put = change.before.encode(change.after)
    # Both need room before either takes its place.
    with files.beside(change.path, put) as new, files.beside(backup, before) as copy:
        files.move(copy, backup)
        files.move(new, change.path)
    return backup
