"""What the farm tells a machine: the ``<farm>{json}</farm>`` part of its user data, and the role that follows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from farmnode import drives, watch_rules
from farmnode.drives import Share
from farmnode.errors import FarmNodeError

ROLES: Final = ("manager", "render_node", "remote_node", "builder")

#: Roles that cost money for nothing when they cannot work: such a machine ends itself.
ROLES_THAT_END: Final = ("render_node", "remote_node")

_PART = re.compile(rb"<farm>(.*?)</farm>", re.DOTALL)


@dataclass(frozen=True)
class Limits:
    """Seconds that a phase of the boot may take. The farm may set others.

    ``setup`` is for each of the phases that wait for nobody else (identity, routes): so long they are tried again.
    """

    manager: float = 600.0
    service: float = 60.0
    registration: float = 180.0
    setup: float = 60.0
    tunnel: float = 900.0


@dataclass(frozen=True)
class Farm:
    """The farm as a machine is told about it."""

    name: str
    role: str | None = None
    manager: str | None = None
    manager_port: int = 3234
    server_port: int = 3233
    networks: Mapping[str, IPv4Network] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    watch: watch_rules.Limits = field(default_factory=watch_rules.Limits)
    share: Share | None = None
    renders: bool = False
    """Of the manager: it renders as well, at low priority."""


def parse_user_data(user_data: bytes) -> Farm | None:
    """The farm that ``user_data`` describes, None when it has no ``<farm>`` part.

    Raises FarmNodeError when the part is not exactly what this version understands: a node that obeys only half of what
    it was told would be worse than one that says so.
    """
    parts = _PART.findall(user_data)
    if not parts:
        return None
    if len(parts) > 1:
        raise FarmNodeError("bad_user_data", f"the user data has {len(parts)} <farm> parts; one is allowed.")
    try:
        data = json.loads(parts[0].decode("utf-8-sig"))
    except ValueError as error:
        raise FarmNodeError("bad_user_data", f"the <farm> part of the user data is not JSON: {error}.") from error
    return _Reader(data).farm()


class _Reader:
    """Checks the JSON of the ``<farm>`` part."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, dict):
            raise FarmNodeError("bad_user_data", "the <farm> part of the user data is not a JSON object.")
        self._data: dict[str, Any] = data

    def farm(self) -> Farm:
        data = self._data
        if data.get("version") != 1:
            raise FarmNodeError(
                "bad_user_data",
                f"the <farm> part has version {data.get('version')!r}, this image understands 1; bake a new image.",
            )
        known = {"version", "farm", "role", "manager", "manager_port", "server_port", "networks", "limits"}
        self._refuse_unknown("<farm>", set(data) - known - {"watch", "share", "renders"})
        role = data.get("role")
        if role is not None and role not in ROLES:
            raise FarmNodeError("bad_user_data", f"the role {role!r} is none of {', '.join(ROLES)}.")
        renders = data.get("renders", False)
        if not isinstance(renders, bool):
            raise FarmNodeError("bad_user_data", f"renders of the <farm> part must be true or false, not {renders!r}.")
        defaults = Farm(name="")
        return Farm(
            name=self._text("farm", required=True) or "",
            role=role,
            manager=self._text("manager"),
            manager_port=self._port("manager_port", defaults.manager_port),
            server_port=self._port("server_port", defaults.server_port),
            networks=self._networks(),
            limits=self._limits(),
            watch=self._watch(),
            share=drives.share_from_json(data["share"]) if "share" in data else None,
            renders=renders,
        )

    def _refuse_unknown(self, where: str, names: set[str]) -> None:
        if names:
            raise FarmNodeError(
                "bad_user_data",
                f"{where} has {', '.join(sorted(names))}, unknown to this image; bake a new image or leave it out.",
            )

    def _text(self, key: str, *, required: bool = False) -> str | None:
        value = self._data.get(key)
        if value is None and not required:
            return None
        if not isinstance(value, str) or not value:
            raise FarmNodeError("bad_user_data", f"{key} of the <farm> part must be text, not {value!r}.")
        return value

    def _port(self, key: str, default: int) -> int:
        value = self._data.get(key, default)
        if not is_port(value):
            raise FarmNodeError("bad_user_data", f"{key} of the <farm> part must be a port, not {value!r}.")
        return int(value)

    def _networks(self) -> dict[str, IPv4Network]:
        networks = self._object("networks")
        try:
            return {str(name): IPv4Network(value) for name, value in networks.items()}
        except (ValueError, TypeError) as error:
            raise FarmNodeError("bad_user_data", f"networks of the <farm> part: {error}.") from error

    def _limits(self) -> Limits:
        limits = self._object("limits")
        self._refuse_unknown("limits", set(limits) - set(Limits.__dataclass_fields__))
        for name, value in limits.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86400:
                raise FarmNodeError("bad_user_data", f"limit {name} must be seconds up to a day, not {value!r}.")
        return Limits(**{name: float(value) for name, value in limits.items()})

    def _watch(self) -> watch_rules.Limits:
        limits = self._object("watch")
        self._refuse_unknown("watch", set(limits) - watch_rules.LIMITS)
        for name, value in limits.items():
            least = 0.0 if name in watch_rules.OPTIONAL else 0.1
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 2_678_400:
                raise FarmNodeError("bad_user_data", f"watch {name} must be seconds up to 31 days, not {value!r}.")
        return watch_rules.Limits(**{name: float(value) for name, value in limits.items()})

    def _object(self, key: str) -> dict[str, Any]:
        value = self._data.get(key, {})
        if not isinstance(value, dict):
            raise FarmNodeError("bad_user_data", f"{key} of the <farm> part must be a JSON object, not {value!r}.")
        return value


def is_port(value: object) -> bool:
    """Is ``value`` a number that TCP admits as a port?"""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def decide_role(farm: Farm | None, tag: str | None, address: IPv4Address) -> str:
    """The role of the machine at ``address``: told by user data, else by the tag, else by its address.

    The manager's address makes the manager, the cloud network makes a render node, any other place a remote node.
    """
    if farm is not None and farm.role is not None:
        return farm.role
    if tag:
        if tag not in ROLES:
            raise FarmNodeError("bad_user_data", f"the tag renderfarm:role is {tag!r}, none of {', '.join(ROLES)}.")
        return tag
    if farm is None:
        raise FarmNodeError(
            "bad_user_data",
            "neither a <farm> part in the user data nor a tag renderfarm:role says what this machine is for; "
            "start it with the farm's launch template, and allow tags in the instance metadata.",
        )
    if farm.manager == str(address):
        return "manager"
    cloud = farm.networks.get("cloud")
    return "render_node" if cloud is not None and address in cloud else "remote_node"
