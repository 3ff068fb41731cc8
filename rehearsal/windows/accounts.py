"""Local users and groups of a host, with the accounts that Windows itself has."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rehearsal.windows.errors import WindowsError

# Well-known accounts (reference: Microsoft, "Well-known SIDs").
WELL_KNOWN = {
    "NT AUTHORITY\\SYSTEM": "S-1-5-18",
    "NT AUTHORITY\\LOCAL SERVICE": "S-1-5-19",
    "NT AUTHORITY\\NETWORK SERVICE": "S-1-5-20",
    "NT AUTHORITY\\Authenticated Users": "S-1-5-11",
    "NT AUTHORITY\\INTERACTIVE": "S-1-5-4",
    "NT AUTHORITY\\ANONYMOUS LOGON": "S-1-5-7",
    "Everyone": "S-1-1-0",
    "CREATOR OWNER": "S-1-3-0",
    "BUILTIN\\Administrators": "S-1-5-32-544",
    "BUILTIN\\Users": "S-1-5-32-545",
    "BUILTIN\\Guests": "S-1-5-32-546",
    "BUILTIN\\Backup Operators": "S-1-5-32-551",
    "BUILTIN\\Remote Desktop Users": "S-1-5-32-555",
    "BUILTIN\\Network Configuration Operators": "S-1-5-32-556",
    "BUILTIN\\Performance Monitor Users": "S-1-5-32-558",
    "BUILTIN\\Remote Management Users": "S-1-5-32-580",
}
_BY_SID = {sid: name for name, sid in WELL_KNOWN.items()}
_ALIASES = {
    "localsystem": "S-1-5-18",
    "system": "S-1-5-18",
    "localservice": "S-1-5-19",
    "local service": "S-1-5-19",
    "nt authority\\localservice": "S-1-5-19",
    "networkservice": "S-1-5-20",
    "network service": "S-1-5-20",
    "nt authority\\networkservice": "S-1-5-20",
}
ADMINISTRATORS = "S-1-5-32-544"
REMOTE_MANAGEMENT = "S-1-5-32-580"
SERVICE_ACCOUNTS = frozenset({"S-1-5-18", "S-1-5-19", "S-1-5-20"})


@dataclass
class User:
    """A local user. ``groups`` are security identifiers."""

    name: str
    rid: int
    password: str = ""
    full_name: str = ""
    description: str = ""
    disabled: bool = False
    password_expired: bool = False
    password_never_expires: bool = False
    cannot_change_password: bool = False
    expires: str = "never"
    home_directory: str = ""
    login_script: str = ""
    profile: str = ""
    groups: list[str] = field(default_factory=list)


@dataclass
class Group:
    """A local group that is not built in."""

    name: str
    rid: int
    description: str = ""


def new_machine_sid() -> str:
    """A machine identifier, as the specialize pass of Windows set-up makes one."""
    return "S-1-5-21-" + "-".join(str(secrets.randbelow(2**32 - 2**30) + 2**30) for _ in range(3))


class Accounts:
    """Users and groups; names are compared without regard to case."""

    def __init__(self, state: dict[str, Any], computer_name: Callable[[], str], changed: Callable[[], None]) -> None:
        """``state``: ``machine_sid``, ``users``, ``groups``, ``next_rid`` of the host's saved state."""
        self._state = state
        self._computer_name = computer_name
        self._changed = changed
        state.setdefault("machine_sid", new_machine_sid())
        state.setdefault("next_rid", 1000)
        self.users = {name.lower(): User(**user) for name, user in state.get("users", {}).items()}
        self.groups = {name.lower(): Group(**group) for name, group in state.get("groups", {}).items()}

    def save(self) -> None:
        """Put users and groups into the host's saved state."""
        self._state["users"] = {user.name: asdict(user) for user in self.users.values()}
        self._state["groups"] = {group.name: asdict(group) for group in self.groups.values()}
        self._changed()

    @property
    def machine_sid(self) -> str:
        """The identifier that the identifiers of local accounts start with."""
        return str(self._state["machine_sid"])

    def renew_machine_sid(self) -> None:
        """Give the machine a new identifier (the specialize pass after Sysprep does)."""
        self._state["machine_sid"] = new_machine_sid()
        self._changed()

    def _next_rid(self) -> int:
        rid = int(self._state["next_rid"])
        self._state["next_rid"] = rid + 1
        return rid

    # ------------------------------------------------------------------------------------------------------- changing

    def add_user(self, name: str, password: str = "", *, rid: int | None = None, **properties: Any) -> User:
        """Make a local user (member of Users); WindowsError 1078 when the name is taken."""
        if name.lower() in self.users or name.lower() in self.groups:
            raise WindowsError(1078, "The account already exists.")
        user = User(name, self._next_rid() if rid is None else rid, password, **properties)
        if not user.groups:
            user.groups = [WELL_KNOWN["BUILTIN\\Users"]]
        self.users[name.lower()] = user
        self.save()
        return user

    def remove_user(self, name: str) -> None:
        """Delete a local user; KeyError when there is none."""
        del self.users[name.lower()]
        self.save()

    def add_group(self, name: str, description: str = "") -> Group:
        """Make a local group."""
        group = Group(name, self._next_rid(), description)
        self.groups[name.lower()] = group
        self.save()
        return group

    # -------------------------------------------------------------------------------------------------------- looking

    def user(self, name: str) -> User | None:
        """The local user of that name (``COMPUTER\\name`` and ``.\\name`` too)."""
        domain, _, bare = name.rpartition("\\")
        if domain and domain.lower() not in (".", self._computer_name().lower()):
            return None
        return self.users.get(bare.lower())

    def sid_of_user(self, user: User) -> str:
        """The security identifier of a local user."""
        return f"{self.machine_sid}-{user.rid}"

    def sid(self, name: str) -> str:
        """The security identifier of an account by name or identifier; WindowsError 1332 when there is none."""
        if name.upper().startswith("S-1-"):
            self.name(name.upper())
            return name.upper()
        lowered = name.lower()
        if lowered in _ALIASES:
            return _ALIASES[lowered]
        domain, _, bare = lowered.rpartition("\\")
        own = domain in ("", ".", self._computer_name().lower())
        if own and bare in self.users:
            return self.sid_of_user(self.users[bare])
        if own and bare in self.groups:
            return f"{self.machine_sid}-{self.groups[bare].rid}"
        for full, sid in WELL_KNOWN.items():
            known_domain, _, known = full.lower().rpartition("\\")
            if known == bare and domain in ("", known_domain):
                return sid
            if known == bare and known_domain == "builtin" and own:
                return sid
        raise WindowsError(1332, "Some or all identity references could not be translated.")

    def name(self, sid: str) -> str:
        """``DOMAIN\\name`` of a security identifier; WindowsError 1332 when it is not known."""
        if sid in _BY_SID:
            return _BY_SID[sid]
        for user in self.users.values():
            if self.sid_of_user(user) == sid:
                return f"{self._computer_name()}\\{user.name}"
        for group in self.groups.values():
            if f"{self.machine_sid}-{group.rid}" == sid:
                return f"{self._computer_name()}\\{group.name}"
        raise WindowsError(1332, "Some or all identity references could not be translated.")

    def is_local_group(self, sid: str) -> bool:
        """Whether the identifier names a group of this machine (built in or made)."""
        return sid.startswith("S-1-5-32-") or any(
            f"{self.machine_sid}-{group.rid}" == sid for group in self.groups.values()
        )

    def check_password(self, name: str, password: str) -> bool:
        """Whether that user could log on with that password now."""
        user = self.user(name)
        return user is not None and not user.disabled and not user.password_expired and user.password == password

    def remote_users(self) -> dict[str, str]:
        """Name -> password of those who may log on over WinRM: administrators and remote management users."""
        return {
            user.name: user.password
            for user in self.users.values()
            if user.password and not user.disabled and {ADMINISTRATORS, REMOTE_MANAGEMENT} & set(user.groups)
        }
