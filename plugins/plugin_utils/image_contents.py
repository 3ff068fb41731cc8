# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an image is made of: the list of contents for people, and one hash that tells whether a bake would change it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from .installers import flat

PROJECT = Path(__file__).resolve().parents[2]
# Whose tasks run on the builder. Their text is part of what an image is made of; their documentation is not.
RECIPES = (
    "ami_bake",
    "backburner",
    "backburner_manager",
    "node_agent",
    "render_node",
    "vpn_gateway",
    "windows_package",
)
_PARTS = ("defaults", "files", "tasks", "templates", "vars")
# EC2 User Guide, "Tag your resources": values of up to 256 characters.
LONGEST_TAG = 256


def image_contents(installers: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``hash`` (16 hexadecimal digits), ``items`` and ``summary`` (for a tag).

    ``installers`` is farm_installers; ``settings`` is all else that an image depends on. Where an installer comes from,
    under which name, and which version it is said to be, is no part of the hash: its SHA-256 says what it is.
    """
    items = [_item(name, source) for name, source in flat(installers)]
    code = {"farmnode": _hash_of(sorted((PROJECT / "farmnode").glob("*.py"))), "recipe": _hash_of(_recipe())}
    same = [{key: value for key, value in item.items() if key not in ("package", "version")} for item in items]
    whole = json.dumps([same, code, settings], sort_keys=True, default=str)
    summary = ", ".join(
        " ".join(filter(None, (item["name"], item.get("version"), item["sha256"][:8]))) for item in items
    )
    return {
        "hash": hashlib.sha256(whole.encode()).hexdigest()[:16],
        "items": items,
        "code": code,
        "summary": summary if len(summary) <= LONGEST_TAG else summary[: LONGEST_TAG - 3] + "...",
    }


def _item(name: str, source: Mapping[str, Any]) -> dict[str, str]:
    kept = ("sha256", "file", "arguments", "product_id", "creates_path", "version")
    place = str(source.get("url") or source.get("path") or "")
    return {
        "name": name,
        "package": PurePosixPath(urlsplit(place).path).name,
        **{key: str(source[key]) for key in kept if source.get(key)},
        "sha256": str(source.get("sha256", "")).lower(),
    }


def _recipe() -> list[Path]:
    folders = [PROJECT / "roles" / role / part for role in RECIPES for part in _PARTS]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def _hash_of(paths: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        whole.update(f"{path.relative_to(PROJECT)} {len(data)}\n".encode() + data)
    return whole.hexdigest()[:16]
