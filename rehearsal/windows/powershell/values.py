"""Values of PowerShell as the interpreter holds them.

Strings, integers, booleans, ``None``, lists and dicts (hash tables, keys compared without case) are Python's own;
objects of Windows are PsObject.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class PsError(Exception):
    """A command failed; the text is what PowerShell prints as the error."""


class PsObject:
    """An object with properties and methods, whose names are compared without regard to case."""

    def __init__(
        self, type_name: str, properties: dict[str, Any], methods: dict[str, Callable[..., Any]] | None = None
    ) -> None:
        self.type_name = type_name
        self.properties = properties
        self._properties = {name.lower(): value for name, value in properties.items()}
        self._methods = {name.lower(): method for name, method in (methods or {}).items()}

    def get(self, name: str) -> Any:
        """A property; PsError when there is none (PowerShell gives null, which hides a spelling mistake)."""
        try:
            return self._properties[name.lower()]
        except KeyError:
            raise PsError(f"rehearsal: {self.type_name} has no property {name} here") from None

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Call a method; PsError when there is none."""
        if name.lower() not in self._methods:
            raise PsError(
                f"Method invocation failed because [{self.type_name}] does not contain a method named '{name}'."
            )
        try:
            return self._methods[name.lower()](*arguments)
        except TypeError:
            raise PsError(f'Cannot find an overload for "{name}" and the argument count: "{len(arguments)}".') from None

    def __str__(self) -> str:
        return self.type_name


def text(value: Any) -> str:
    """A value as PowerShell puts it into a string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (list, tuple)):
        return " ".join(text(item) for item in value)
    if isinstance(value, dict):
        return "System.Collections.Hashtable"
    if isinstance(value, bytes):
        return " ".join(str(byte) for byte in value)
    return str(value)


def lookup(table: dict[Any, Any], key: str) -> Any:
    """A value of a hash table by its key without regard to case; None when there is none."""
    return next((value for name, value in table.items() if str(name).lower() == key.lower()), None)
