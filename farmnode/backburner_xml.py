r"""``backburner.xml`` on the disk: which file it is, reading it, computing a new text, writing it safely.

The folders are those that Autodesk documents: the profile of the account that runs the service ("per-user application
data directory of the Local Service user", Creative Finishing set-up guide), of the user for the desktop programs
(``AppData\Local\backburner``), and ``Network`` in the program's folder for old versions (3ds Max Help).  Where a
service's account has a file, the newest of its files counts, for that is what the service reads; otherwise the newest
of all.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
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

#: The switch "Automatic Search" of the dialogs, which lets a server take any manager that it finds.  Its element's name
#: is not documented; where one of these is there, it is switched off.
_AUTOMATIC_SEARCH: Final = re.compile(r"(?:use|enable)?auto(?:matic)?(?:manager)?search(?:manager)?", re.IGNORECASE)

#: Accounts of services that have no folder under ``Users``, by the last part of their name in lower case.  A 32-bit
#: program sees SysWOW64 in the place of System32.
_PROFILES: Final = {
    "localservice": (("ServiceProfiles", "LocalService"),),
    "networkservice": (("ServiceProfiles", "NetworkService"),),
    "localsystem": (("SysWOW64", "config", "systemprofile"), ("System32", "config", "systemprofile")),
}


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


@dataclass(frozen=True)
class Choice:
    """The file that counts, the other files that there are, and why it is this one."""

    path: Path
    others: tuple[Path, ...]
    why: str

    def __str__(self) -> str:
        text = f"{paths.shown(self.path)}, {self.why}"
        return text + (f" (there are also {', '.join(map(paths.shown, self.others))})" if self.others else "")


def profiles(account: str) -> list[Path]:
    """Where the profile of the service account ``account`` (as ``sc.exe qc`` names it) may be."""
    name = account.rpartition("\\")[2].replace(" ", "").lower()
    windows = Path(paths.environment("SystemRoot"))
    if name in _PROFILES:
        return [windows.joinpath(*parts) for parts in _PROFILES[name]]
    # A user principal name keeps the part before the sign; Windows appends the domain where two accounts share a name.
    name = name.partition("@")[0]
    return [user for user in _users() if user.name.lower() == name or user.name.lower().startswith(f"{name}.")]


def candidates() -> list[Path]:
    """Where the file may be, the most likely place first."""
    windows = Path(paths.environment("SystemRoot"))
    places = [windows.joinpath(*parts) for name in _PROFILES for parts in _PROFILES[name]] + _users()
    programs = [os.environ.get(name) for name in ("ProgramFiles(x86)", "ProgramFiles")]
    return [_in_profile(profile) for profile in places] + [
        Path(folder, "Autodesk", "Backburner", "Network", FILE) for folder in programs if folder
    ]


def _users() -> list[Path]:
    users = Path(paths.environment("SystemDrive") + os.sep, "Users")
    return sorted(folder for folder in users.iterdir() if folder.is_dir()) if users.is_dir() else []


def _in_profile(profile: Path) -> Path:
    return profile / "AppData" / "Local" / "backburner" / FILE


def find(account: str | None = None) -> Choice:
    """The file that counts for a service of ``account``: the newest of its own, without one the newest of all.

    Among equals the most likely place.  FarmNodeError that lists every place when there is none.
    """
    places = candidates()
    there = [place for place in places if place.is_file()]
    if not there:
        raise FarmNodeError(
            "missing_file",
            f"{FILE} is in none of {', '.join(map(paths.shown, places))}. Install Backburner and start its services "
            "once, so that it writes the file, or say by 'path' where it is.",
        )
    own = {_in_profile(profile) for profile in profiles(account)} if account else set()
    of_account = [place for place in there if place in own]
    chosen = max(of_account or there, key=lambda place: place.stat().st_mtime_ns)
    why = f"of {account}, whose services read it" if of_account else "the newest"
    return Choice(chosen, tuple(place for place in there if place != chosen), why)


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
    if "ManagerName" in wanted:
        text, switched = document.switch_off(text, _AUTOMATIC_SEARCH, shown)
        changes |= switched
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
