"""The folder of a rehearsal: who holds it, what is in it, and ``state.json``, which tells what stands."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rehearsal import control
from rehearsal.interfaces import RehearsalError

DEFAULT = Path(".rehearsal")
STATE = "state.json"
LOG = "daemon.log"
CALLS = "cloud.log"
_LOCK = "rehearsal.lock"
_MADE_ANEW = ("machines", "images", "downloads", "inventory", "controller", "logs", STATE, CALLS)


class Folder:
    """One folder, one rehearsal at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: int | None = None
        self._written = ""

    @property
    def controller(self) -> Path:
        """Where the controller keeps keys, pinned certificates and the PKI (``RENDERFARM_STATE``)."""
        return self.path / "controller"

    @property
    def inventory(self) -> Path:
        """The inventory source that adapts the user's settings to the rehearsal."""
        return self.path / "inventory"

    def prepare(self) -> None:
        """Make the folder. RehearsalError when it holds something else than a rehearsal."""
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / _LOCK).exists():
            raise RehearsalError(
                f"{self.path} is not empty and not of a rehearsal: its contents would be lost; name another --dir"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise RehearsalError(f"{self.path} is a file; name another --dir") from None
        (self.path / _LOCK).touch()

    def held(self) -> bool:
        """Whether a rehearsal holds the folder (the kernel frees it when that rehearsal's last process ends)."""
        try:
            handle = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def hold(self) -> None:
        """Hold the folder until this process and its forks end. RehearsalError when another rehearsal holds it."""
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RehearsalError(already_up(self.path)) from None

    def clear(self) -> None:
        """Remove what an earlier rehearsal left."""
        for name in _MADE_ANEW:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace ``state.json`` as a whole, when it changed."""
        text = json.dumps(state, indent=1) + "\n"
        if text != self._written:
            write_atomically(self.path / STATE, text)
            self._written = text

    def remove_state(self) -> None:
        """Say that nothing stands any more."""
        (self.path / STATE).unlink(missing_ok=True)

    def read_state(self) -> dict[str, Any]:
        """What stands. NotUp when no rehearsal is up."""
        if not self.held():
            raise control.NotUp(
                f"no rehearsal is up in {self.path}; start it with: python -m rehearsal up --dir {self.path}"
            )
        try:
            state: dict[str, Any] = json.loads((self.path / STATE).read_text())
        except FileNotFoundError:
            raise control.NotUp(f"the rehearsal in {self.path} is still starting; try again in a moment") from None
        return state


def already_up(path: Path) -> str:
    """What to say when a folder is taken."""
    return (
        f"a rehearsal is up in {path} already; end it with: python -m rehearsal down --dir {path} "
        "(or run a second one beside it with another --dir)"
    )


def write_atomically(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file: readers see the old or the new text, never a part."""
    new = path.with_name(f".{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    new.replace(path)
