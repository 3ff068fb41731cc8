# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine of the farm is told at its first boot: the EC2 user data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..module_utils.fleet import ROLES

VERSION = 1
# EC2 takes no more, counted before the base64 encoding (EC2 User Guide, "Run commands when you launch an instance").
LIMIT_BYTES = 16384

# key of "networks" -> setting
_NETWORKS: Mapping[str, str] = {
    "lan": "farm_lan_network",
    "cloud": "farm_cloud_network",
    "tunnel": "farm_tunnel_network",
}
# key of "watch" -> setting, seconds of its unit, least value that is not 0, greatest, whether 0 switches it off
_WATCH: Mapping[str, tuple[str, float, float, float, bool]] = {
    "idle": ("farm_idle_minutes", 60, 1, 1440, True),
    "deadline": ("farm_max_hours", 3600, 0.1, 720, True),
    "hung": ("farm_hung_minutes", 60, 1, 1440, True),
    "manager": ("farm_manager_gone_minutes", 60, 1, 1440, False),
}
_FURTHER = "farm_watch"

# Remote nodes are told, whose own address in the tunnel is from it, and the manager, which they ask for the share.
_REMOTE = "farm_remote_network"


class UserDataError(ValueError):
    """User data that EC2 or the machine would not understand; the text is for the user."""


def farm_document(settings: Mapping[str, Any], role: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The facts about farm and role that a machine reads at boot. ``extra`` adds keys, it replaces none."""
    if role not in ROLES:
        raise UserDataError(f"role is {role!r}: roles are {', '.join(ROLES)}")
    needed = ["farm_name", "farm_manager_address", *_NETWORKS.values()]
    missing = [name for name in needed if not settings.get(name)]
    if missing:
        raise UserDataError(f"{', '.join(missing)} must be set to make user data")
    networks = {key: str(settings[name]) for key, name in _NETWORKS.items()}
    if settings.get(_REMOTE):
        networks["remote"] = str(settings[_REMOTE])
    document = {
        "version": VERSION,
        "farm": str(settings["farm_name"]),
        "role": role,
        "manager": str(settings["farm_manager_address"]),
        "networks": networks,
    }
    watch = watch_limits(settings)
    if watch:
        document["watch"] = watch
    replaced = sorted(set(extra or {}) & set(document))
    if replaced:
        raise UserDataError(f"extra may not replace {', '.join(replaced)}")
    return {**document, **(extra or {})}


def watch_limits(settings: Mapping[str, Any]) -> dict[str, float]:
    """The limits of a machine's watch in seconds, from those of the settings that are there. UserDataError names the
    setting that is out of its range. What ``farm_watch`` names in seconds goes before."""
    limits: dict[str, float] = {}
    for key, (name, unit, least, greatest, optional) in _WATCH.items():
        if settings.get(name) is None:
            continue
        try:
            value = float(settings[name])
        except (TypeError, ValueError):
            raise UserDataError(f"{name} is {settings[name]!r}, not a number") from None
        if not (least <= value <= greatest or (optional and value == 0)):
            zero = ", or 0 for never" if optional else ""
            raise UserDataError(f"{name} is {value:g}: it must be {least:g} to {greatest:g}{zero}")
        limits[key] = value * unit
    further = settings.get(_FURTHER) or {}
    try:
        return limits | {str(key): float(value) for key, value in further.items()}
    except (AttributeError, TypeError, ValueError):
        raise UserDataError(f"{_FURTHER} is {further!r}: it must be names of limits with seconds") from None


def farm_user_data(
    settings: Mapping[str, Any], role: str, bootstrap: str | None = None, extra: Mapping[str, Any] | None = None
) -> str:
    """User data as EC2Launch (``<powershell>``, run once) and farmnode (``<farm>``, one line of JSON) read it.

    UserDataError when it is larger than EC2 takes or a part would end the other's tag.
    """
    # "<" only ever occurs in strings; escaped there, no value can look like a tag.
    document = json.dumps(farm_document(settings, role, extra), separators=(",", ":")).replace("<", "\\u003c")
    text = f"<farm>{document}</farm>\n"
    if bootstrap and bootstrap.strip():
        tag = re.search(r"</?(powershell|farm|persist|script)>", bootstrap, re.IGNORECASE)
        if tag:
            raise UserDataError(f"the bootstrap text contains {tag.group()}, which EC2Launch would take for a tag")
        text = f"<powershell>\n{bootstrap.strip()}\n</powershell>\n{text}"
    size = len(text.encode())
    if size > LIMIT_BYTES:
        raise UserDataError(
            f"the user data of role {role} has {size} bytes, but EC2 takes {LIMIT_BYTES}: shorten the bootstrap text"
        )
    return text
