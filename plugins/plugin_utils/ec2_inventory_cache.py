# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What EC2 said last about a farm, kept in a folder that only its owner can enter.

Plain JSON of EC2's own texts. None of them is a template before it is written, and none becomes one by being read:
ansible-core trusts a text only when it is told to.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .ec2_inventory import Instance

# Whoever changes what the environment says here may get other instances from EC2.
_TELLING_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


class UnsafeFolder(Exception):
    """Others can enter the folder, so they could write hosts into the inventory."""


class Kept(NamedTuple):
    """An earlier answer and its age in seconds."""

    instances: list[Instance]
    age: float


def file_for(folder: str, question: Mapping[str, Any], environment: Mapping[str, str]) -> Path:
    """The file that holds the answer to this question, asked by this user of AWS."""
    asked = {"question": question, "environment": {name: environment.get(name) for name in _TELLING_VARIABLES}}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return Path(folder).expanduser() / f"{digest[:32]}.json"


def write(path: Path, instances: Iterable[Instance]) -> None:
    """Keep an answer. Makes the folder, mode 0700, when there is none. Raises UnsafeFolder, OSError."""
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _check(path.parent)
    kept = {"fields": Instance._fields, "asked": time.time(), "instances": list(instances)}
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> Kept | None:
    """The answer that was kept; None when there is none that can be used. Raises UnsafeFolder."""
    try:
        _check(path.parent)
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["fields"] != list(Instance._fields):
            return None  # written by another version
        age = time.time() - kept["asked"]
        instances = [Instance(*values) for values in kept["instances"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Kept(instances, age) if age >= 0 else None


def _check(folder: Path) -> None:
    """The folder is this user's and nobody else's, as a file system says it (a symbolic link is not followed)."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UnsafeFolder(
            f"{folder} is not a folder of your own (nor is a link to one), so others could write hosts into it. "
            "Remedy: name another folder in cache_folder."
        )
    if status.st_mode & 0o077:
        raise UnsafeFolder(
            f"{folder} is not a folder that only its owner can enter, so others could write hosts into it. "
            f"Remedy: chmod 700 {folder}, or name another folder in cache_folder."
        )
