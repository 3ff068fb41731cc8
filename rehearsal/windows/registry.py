"""The registry of a host: keys and typed values, compared without regard to case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# Long names of the hives as reg.exe prints them, and the short ones that it takes.
HIVES = {
    "HKLM": "HKEY_LOCAL_MACHINE",
    "HKCU": "HKEY_CURRENT_USER",
    "HKCR": "HKEY_CLASSES_ROOT",
    "HKU": "HKEY_USERS",
    "HKCC": "HKEY_CURRENT_CONFIG",
}
_SHORT = {long: short for short, long in HIVES.items()} | {short: short for short in HIVES}

TYPES = ("REG_SZ", "REG_EXPAND_SZ", "REG_MULTI_SZ", "REG_DWORD", "REG_QWORD", "REG_BINARY", "REG_NONE")
"""Data is a string for the first two, a list of strings, an integer (unsigned), or for the last two a list of bytes
(integers 0 to 255)."""

_HIVE = re.compile(r"^(HKEY_[A-Z_]+|HKLM|HKCU|HKCR|HKU|HKCC):?(?:\\+(.*))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Value:
    """One value of a key. The default value of a key has the name ""."""

    name: str
    type: str
    data: Any


class Registry:
    """Keys by path: ``HKLM\\SOFTWARE\\…``, also with ``HKLM:\\`` or ``HKEY_LOCAL_MACHINE\\`` in front."""

    def __init__(self, keys: dict[str, dict[str, Any]], changed: Callable[[], None]) -> None:
        """``keys``: path as created -> {value name: [type, data]}, shared with the host's saved state."""
        self._keys = keys
        self._index = {path.lower(): path for path in keys}
        self._changed = changed

    @staticmethod
    def normal(path: str) -> str:
        """``path`` with the short name of its hive; ValueError when it names no hive."""
        match = _HIVE.match(path)
        if match is None or match[1].upper() not in _SHORT:
            raise ValueError(f"{path} names no hive of the registry")
        rest = "\\".join(part for part in (match[2] or "").split("\\") if part)
        return _SHORT[match[1].upper()] + ("\\" + rest if rest else "")

    def exists(self, path: str) -> bool:
        """Whether the key exists (hives always do)."""
        normal = self.normal(path)
        return normal in HIVES or normal.lower() in self._index

    def shown(self, path: str) -> str:
        """The key's path with the case of its creation."""
        normal = self.normal(path)
        return self._index.get(normal.lower(), normal)

    def create(self, path: str) -> str:
        """Make a key and those above it; gives its path."""
        parts = self.normal(path).split("\\")
        current = parts[0]
        for part in parts[1:]:
            candidate = f"{current}\\{part}"
            known = self._index.get(candidate.lower())
            if known is None:
                self._keys[candidate] = {}
                self._index[candidate.lower()] = candidate
                known = candidate
                self._changed()
            current = known
        return current

    def delete(self, path: str) -> bool:
        """Delete a key with everything below it; False when it does not exist."""
        lowered = self.normal(path).lower()
        stale = [key for key in self._index if key == lowered or key.startswith(lowered + "\\")]
        for key in stale:
            del self._keys[self._index.pop(key)]
        if stale:
            self._changed()
        return bool(stale)

    def subkeys(self, path: str) -> list[str]:
        """Names of the keys right below ``path``, sorted."""
        prefix = self.normal(path).lower() + "\\"
        names = [
            shown[len(prefix) :]
            for lowered, shown in self._index.items()
            if lowered.startswith(prefix) and "\\" not in lowered[len(prefix) :]
        ]
        return sorted(names, key=str.lower)

    def values(self, path: str) -> Iterator[Value]:
        """The values of a key in the order of their creation (none when the key does not exist)."""
        key = self._index.get(self.normal(path).lower())
        for name, (kind, data) in list(self._keys.get(key or "", {}).items()):
            yield Value(name, kind, data)

    def get(self, path: str, name: str = "") -> Value | None:
        """One value, or None."""
        lowered = name.lower()
        return next((value for value in self.values(path) if value.name.lower() == lowered), None)

    def data(self, path: str, name: str = "", default: Any = None) -> Any:
        """The data of one value, or ``default``."""
        value = self.get(path, name)
        return default if value is None else value.data

    def set(self, path: str, name: str, kind: str, data: Any) -> None:
        """Set a value; the key is made when it does not exist."""
        if kind not in TYPES:
            raise ValueError(f"{kind} is no type of the registry")
        values = self._keys.setdefault(self.create(path), {})
        known = next((known for known in values if known.lower() == name.lower()), name)
        values[known] = [kind, data]
        self._changed()

    def unset(self, path: str, name: str) -> bool:
        """Delete a value; False when it does not exist."""
        value = self.get(path, name)
        if value is None:
            return False
        del self._keys[self.shown(path)][value.name]
        self._changed()
        return True
