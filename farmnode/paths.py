r"""Windows paths and where they really are.

On Windows both are the same.  Elsewhere drive ``C:`` is the folder that the environment variable ``SystemDrive`` names,
so that a rehearsal can give a process its own ``C:``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from farmnode.errors import FarmNodeError

_DRIVE = re.compile(r"^[A-Za-z]:")


def real(text: str) -> Path:
    r"""Where the Windows path ``text`` (``C:\...``) really is."""
    if os.name == "nt" or not _DRIVE.match(text):
        return Path(text)
    if text[0] not in "cC":
        raise FarmNodeError("missing_file", f"{text}: there is no drive {text[:2]}; name a file on C:.")
    return Path(environment("SystemDrive") + text[2:].replace("\\", os.sep))


def shown(path: Path) -> str:
    r"""The Windows path of ``path``, as programs of Windows and people know it."""
    text = str(path)
    if os.name == "nt":
        return text
    drive = environment("SystemDrive")
    return "C:" + text[len(drive) :].replace(os.sep, "\\") if text.startswith(drive + os.sep) else text


def environment(name: str) -> str:
    """A variable that Windows always sets.

    Raises FarmNodeError when it is missing: then this is not Windows, and not a stand-in for it.
    """
    value = os.environ.get(name)
    if not value:
        raise FarmNodeError("missing_file", f"the environment lacks {name}; farmnode runs on Windows only.")
    return value


def system_program(name: str) -> Path:
    """``name`` (such as ``sc.exe``) in Windows' own folder, so that no other program of that name is started."""
    return Path(environment("SystemRoot"), "System32", name)


def state_folder() -> Path:
    r"""``C:\ProgramData\RenderFarm``: what farmnode knows and wrote."""
    return Path(environment("ProgramData"), "RenderFarm")
