"""The drive C: of a host, kept in a folder of the machine that runs the rehearsal.

NTFS compares names without regard to case and keeps the case of creation; so does this.  The attribute ReadOnly is the
missing write permission of the real file (as Python's ``os.stat`` shows it on Windows too), other attributes are kept
by the host.
"""

from __future__ import annotations

import errno
import ntpath
import os
import re
import shutil
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rehearsal.windows.errors import WindowsError

_RESERVED_CHARACTERS = re.compile(r'[<>:"|?*\x00-\x1f]')
_RESERVED_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}
)


@dataclass(frozen=True)
class Entry:
    """What the file system knows of one file or folder. Times are seconds since 1970, UTC."""

    path: str
    is_directory: bool
    size: int
    created: float
    accessed: float
    written: float
    attributes: tuple[str, ...]


def _full(error: OSError) -> Exception:
    """What Windows says when the drive is full; any other error is the rehearsal's own and stays as it is."""
    return WindowsError(112) if error.errno in (errno.ENOSPC, errno.EDQUOT) else error


class Files:
    """Files of C: by their Windows paths.

    Every method takes an absolute Windows path (``C:\\folder\\file``; ``/`` is taken for ``\\``) and raises
    WindowsError as Windows would: 2 or 3 not found, 5 access denied, 112 drive full, 123 name not
    allowed.
    """

    def __init__(self, root: Path, attributes: dict[str, list[str]], changed: Callable[[], None]) -> None:
        """``attributes``: lower-case path -> attributes beyond ReadOnly, shared with the host's saved state."""
        self.root = root
        self._attributes = attributes
        self._changed = changed

    # ------------------------------------------------------------------------------------------------------- names

    def absolute(self, path: str) -> str:
        """The full form of ``path`` (``.`` and ``..`` resolved); WindowsError 3 or 123 when it is not on C:."""
        text = path.replace("/", "\\")
        text = text.removeprefix("\\\\?\\")
        drive, rest = ntpath.splitdrive(text)
        if drive.upper() != "C:" or (rest and not rest.startswith("\\")):
            raise WindowsError(3, f"Cannot find path '{path}': this host has the drive C: only.")
        parts = []
        for part in ntpath.normpath("C:\\" + rest.lstrip("\\"))[3:].split("\\"):
            name = part.rstrip(" .")  # Windows drops dots and spaces at the end of a name
            if _RESERVED_CHARACTERS.search(name) or name.split(".", 1)[0].strip().lower() in _RESERVED_NAMES:
                raise WindowsError(123)
            parts.append(name)
        return "C:\\" + "\\".join(part for part in parts if part)

    def real(self, path: str) -> Path:
        """The file of the rehearsal's own machine that stands for ``path``, whether it exists or not."""
        return self._locate(self.absolute(path))[0]

    def shown(self, path: str) -> str:
        """``path`` in full, with the case of the names as they were created."""
        return self._locate(self.absolute(path))[1]

    def windows(self, real: Path) -> str:
        """The Windows path of a file below the folder that stands for C:; ValueError when it is elsewhere."""
        relative = real.relative_to(self.root)
        return "C:\\" + "\\".join(relative.parts)

    def _locate(self, full: str) -> tuple[Path, str]:
        current = self.root
        shown = ["C:"]
        for part in [part for part in full[3:].split("\\") if part]:
            candidate = current / part
            name = part
            if not os.path.lexists(candidate):
                name = self._match(current, part) or part
                candidate = current / name
            current = candidate
            shown.append(name)
        return current, "\\".join(shown) if len(shown) > 1 else "C:\\"

    @staticmethod
    def _match(folder: Path, name: str) -> str | None:
        lowered = name.lower()
        try:
            with os.scandir(folder) as entries:
                return next((entry.name for entry in entries if entry.name.lower() == lowered), None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    # ------------------------------------------------------------------------------------------------------- looking

    def exists(self, path: str) -> bool:
        """Whether a file or folder of that name exists (False for names that Windows does not allow)."""
        try:
            return os.path.lexists(self.real(path))
        except WindowsError:
            return False

    def is_file(self, path: str) -> bool:
        """Whether ``path`` is a file."""
        try:
            return self.real(path).is_file()
        except WindowsError:
            return False

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a folder."""
        try:
            return self.real(path).is_dir()
        except WindowsError:
            return False

    def entry(self, path: str) -> Entry:
        """What is known of ``path``; WindowsError 2 when there is nothing."""
        real, shown = self._locate(self.absolute(path))
        try:
            status = real.stat()
        except FileNotFoundError:
            raise WindowsError(2, f"Cannot find path '{path}' because it does not exist.") from None
        directory = stat_module.S_ISDIR(status.st_mode)
        attributes = []
        if not directory and not status.st_mode & stat_module.S_IWUSR:
            attributes.append("ReadOnly")
        attributes += self._attributes.get(shown.lower(), [])
        attributes.append("Directory" if directory else "Archive")
        return Entry(
            path=shown,
            is_directory=directory,
            size=0 if directory else status.st_size,
            created=status.st_ctime,
            accessed=status.st_atime,
            written=status.st_mtime,
            attributes=tuple(attributes),
        )

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted without regard to case; WindowsError 3 when there is no such folder."""
        try:
            return sorted((child.name for child in self.real(path).iterdir()), key=str.lower)
        except FileNotFoundError:
            raise WindowsError(3, f"Could not find a part of the path '{path}'.") from None
        except NotADirectoryError:
            raise WindowsError(267) from None

    def walk(self, path: str) -> Iterator[Entry]:
        """Everything below a folder, parents before their content."""
        for name in self.names(path):
            child = ntpath.join(path, name)
            entry = self.entry(child)
            yield entry
            if entry.is_directory:
                yield from self.walk(child)

    def read_bytes(self, path: str) -> bytes:
        """The content of a file; WindowsError 2 or 3 when it does not exist, 5 when it is a folder."""
        try:
            return self.real(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if not self.is_directory(ntpath.dirname(self.absolute(path))):
                raise WindowsError(3, f"Could not find a part of the path '{path}'.") from None
            raise WindowsError(2, f"Could not find file '{path}'.") from None
        except IsADirectoryError:
            raise WindowsError(5, f"Access to the path '{path}' is denied.") from None

    # ------------------------------------------------------------------------------------------------------ changing

    def write_bytes(self, path: str, content: bytes) -> None:
        """Write a whole file; its folder must exist (WindowsError 3), it must not be read-only (WindowsError 5)."""
        self._write(path, content, "wb")

    def append_bytes(self, path: str, content: bytes) -> None:
        """Append to a file, which is made when it does not exist; errors as write_bytes."""
        self._write(path, content, "ab")

    def _write(self, path: str, content: bytes, mode: str) -> None:
        real = self.real(path)
        if real.is_dir() or self._read_only(real):
            raise WindowsError(5, f"Access to the path '{path}' is denied.")
        try:
            with real.open(mode) as stream:
                stream.write(content)
        except (FileNotFoundError, NotADirectoryError):
            raise WindowsError(3, f"Could not find a part of the path '{path}'.") from None
        except OSError as error:
            raise _full(error) from error

    @staticmethod
    def _read_only(real: Path) -> bool:
        try:
            status = real.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat_module.S_ISREG(status.st_mode) and not status.st_mode & stat_module.S_IWUSR

    def make_directory(self, path: str) -> str:
        """Make a folder and those above it; gives its full path. WindowsError 183 when a file has that name."""
        full = self.absolute(path)
        real, shown = self._locate(full)
        try:
            real.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise WindowsError(183, f"An item with the specified name {path} already exists.") from None
        except OSError as error:
            raise _full(error) from error
        return shown

    def delete(self, path: str, *, force: bool = False) -> None:
        """Delete a file, or a folder with its content. ``force`` deletes read-only files too (else WindowsError 5)."""
        full = self.absolute(path)
        real, shown = self._locate(full)
        if not os.path.lexists(real):
            raise WindowsError(2, f"Cannot find path '{path}' because it does not exist.")
        if real.is_dir() and not real.is_symlink():
            if not force:
                for entry in self.walk(full):
                    if "ReadOnly" in entry.attributes:
                        raise WindowsError(5, f"Access to the path '{entry.path}' is denied.")
            shutil.rmtree(real)
        else:
            if self._read_only(real) and not force:
                raise WindowsError(5, f"Access to the path '{path}' is denied.")
            real.unlink()
        lowered = shown.lower()
        stale = [name for name in self._attributes if name == lowered or name.startswith(lowered + "\\")]
        for name in stale:
            del self._attributes[name]
        if stale:
            self._changed()

    def set_times(self, path: str, *, accessed: float | None = None, written: float | None = None) -> None:
        """Set the times of a file or folder, in seconds since 1970."""
        entry = self.entry(path)
        os.utime(
            self.real(path),
            (entry.accessed if accessed is None else accessed, entry.written if written is None else written),
        )

    def set_attributes(self, path: str, *, read_only: bool | None = None, hidden: bool | None = None) -> None:
        """Set or clear the attributes of a file or folder; None leaves one as it is."""
        entry = self.entry(path)
        real = self.real(path)
        if read_only is not None and not entry.is_directory:
            mode = stat_module.S_IMODE(real.stat().st_mode)
            real.chmod(mode & ~0o222 if read_only else mode | stat_module.S_IWUSR)
        if hidden is not None:
            key = entry.path.lower()
            self._attributes.pop(key, None)
            if hidden:
                self._attributes[key] = ["Hidden"]
            self._changed()
