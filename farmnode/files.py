"""Writing files so that a power cut or a full disk leaves either the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from farmnode import paths
from farmnode.errors import writing_failed


@contextlib.contextmanager
def beside(path: Path, data: bytes) -> Iterator[Path]:
    """A file with ``data`` on the disk, in the folder of ``path``; gone after the context unless it was moved away."""
    place = path.with_name(path.name + ".renderfarm")
    try:
        try:
            with place.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise writing_failed(error, paths.shown(path)) from error
        yield place
    finally:
        # Gone already when it was moved; and one that another program holds is written over by the next.
        with contextlib.suppress(OSError):
            place.unlink()


def move(new: Path, place: Path) -> None:
    """Let ``new`` take the place of ``place`` in one step (Windows: MoveFileEx, REPLACE_EXISTING)."""
    try:
        new.replace(place)
    except OSError as error:
        raise writing_failed(error, paths.shown(place)) from error


def write(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path``, whose folder is made when missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(error, paths.shown(path)) from error
    with beside(path, data) as new:
        move(new, path)
