"""``host.json``: everything of a host that is on its disk but no file, so a copy of the folder is a clone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from rehearsal.interfaces import RehearsalError

VERSION = 1
SAVE_DELAY = 0.25  # seconds in which changes are gathered into one write


class State:
    """The saved state of a host as plain JSON values, written atomically some moments after a change."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; RehearsalError when it does not exist or was written by another version."""
        self.path = path
        try:
            self.values: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RehearsalError(f"{path} does not exist: a machine's folder is made from an image") from None
        except ValueError as error:
            raise RehearsalError(f"{path} is not readable ({error}): make the machine anew from its image") from None
        if self.values.get("version") != VERSION:
            raise RehearsalError(
                f"{path} has version {self.values.get('version')}, expected {VERSION}: make the image anew"
            )
        self._dirty = False
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def create(path: Path, values: dict[str, Any]) -> None:
        """Write a new host.json."""
        _write(path, {"version": VERSION, **values})

    def part(self, name: str, default: Any) -> Any:
        """One part of the state, made from ``default`` when it is missing; changes to it need ``changed``."""
        return self.values.setdefault(name, default)

    def changed(self) -> None:
        """Something changed: save soon (at once when no event loop runs)."""
        self._dirty = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.save()
            return
        if self._timer is None:
            self._timer = loop.call_later(SAVE_DELAY, self.save)

    def save(self) -> None:
        """Write what changed now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dirty:
            _write(self.path, self.values)
            self._dirty = False


def _write(path: Path, values: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(values, separators=(",", ":"), ensure_ascii=True))
    temporary.replace(path)
