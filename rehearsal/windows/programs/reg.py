"""reg.exe: query, add, delete (reference: Microsoft, reg; layouts as it prints them)."""

from __future__ import annotations

from rehearsal.interfaces import Outcome
from rehearsal.windows.programs.base import Invocation, console, failure, refuse
from rehearsal.windows.registry import HIVES, TYPES, Registry, Value

_NOT_FOUND = "ERROR: The system was unable to find the specified registry key or value.\n"
_DONE = "The operation completed successfully.\n\n"


async def main(invocation: Invocation) -> Outcome:
    """``query KEY [/v NAME|/ve] [/s]``, ``add KEY [/v NAME|/ve] [/t TYPE] [/d DATA] [/f]``,
    ``delete KEY [/v NAME|/ve|/va] [/f]``."""
    words = invocation.arguments
    if len(words) < 2:
        return refuse(invocation)
    verb, path = words[0].lower(), words[1]
    options = _options(words[2:])
    allowed = {
        "query": {"/v", "/ve", "/s"},
        "add": {"/v", "/ve", "/t", "/d", "/f"},
        "delete": {"/v", "/ve", "/va", "/f"},
    }
    if verb not in allowed or options is None or set(options) - allowed[verb]:
        return refuse(invocation)
    try:
        path = Registry.normal(path)
    except ValueError:
        return failure('ERROR: Invalid key name.\nType "REG QUERY /?" for usage.\n')
    name = "" if "/ve" in options else options.get("/v")
    registry = invocation.host.registry
    if verb == "query":
        return _query(registry, path, name, recurse="/s" in options)
    if "/f" not in options:
        return refuse(invocation, "without /f reg.exe may ask a question and wait")
    if verb == "add":
        return _add(invocation, path, name, options)
    return _delete(invocation, path, name, everything="/va" in options)


def _options(words: list[str]) -> dict[str, str] | None:
    options: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        key = word.lower()
        if key in ("/v", "/t", "/d"):
            value = next(remaining, None)
            if value is None:
                return None
            options[key] = value
        elif key in ("/ve", "/va", "/s", "/f"):
            options[key] = ""
        else:
            return None
    return options


def _long(path: str) -> str:
    hive, _, rest = path.partition("\\")
    return HIVES[hive] + ("\\" + rest if rest else "")


def _data(value: Value) -> str:
    if value.type in ("REG_DWORD", "REG_QWORD"):
        return f"0x{value.data:x}"
    if value.type == "REG_MULTI_SZ":
        return "\\0".join(value.data)
    if value.type in ("REG_BINARY", "REG_NONE"):
        return "".join(f"{byte:02X}" for byte in value.data)
    return str(value.data)


def _line(value: Value) -> str:
    return f"    {value.name or '(Default)'}    {value.type}    {_data(value)}"


def _query(registry: Registry, path: str, name: str | None, *, recurse: bool) -> Outcome:
    if not registry.exists(path):
        return failure(_NOT_FOUND)
    if name is not None and recurse:
        return failure("rehearsal: reg query /v together with /s is not modelled\n")
    if name is not None:
        value = registry.get(path, name)
        if value is None:
            return failure(_NOT_FOUND)
        return console(f"\n{_long(registry.shown(path))}\n{_line(value)}\n\n")
    blocks = []
    pending = [registry.shown(path)]
    while pending:
        key = pending.pop(0)
        values = [_line(value) for value in registry.values(key)]
        children = [f"{key}\\{child}" for child in registry.subkeys(key)]
        if values:
            blocks.append("\n".join(["", _long(key), *values, ""]))
        if recurse:
            pending = children + pending
        else:
            blocks.append("\n".join(["", *(_long(child) for child in children)]) if children else "")
    return console("\n".join(blocks) + "\n")


def _add(invocation: Invocation, path: str, name: str | None, options: dict[str, str]) -> Outcome:
    registry = invocation.host.registry
    kind = options.get("/t", "REG_SZ").upper()
    text = options.get("/d", "")
    if kind not in TYPES:
        return failure('ERROR: Invalid syntax. Specify valid type.\nType "REG ADD /?" for usage.\n')
    if name is None:
        if "/d" in options or "/t" in options:
            name = ""
        else:
            registry.create(path)
            return console(_DONE)
    try:
        data: object = text
        if kind in ("REG_DWORD", "REG_QWORD"):
            data = int(text or "0", 0)
            if not 0 <= int(text or "0", 0) < (2**32 if kind == "REG_DWORD" else 2**64):
                raise ValueError
        elif kind == "REG_MULTI_SZ":
            data = text.split("\\0")
        elif kind in ("REG_BINARY", "REG_NONE"):
            data = list(bytes.fromhex(text))
    except ValueError:
        return failure("ERROR: Invalid syntax. Specify valid numeric value for '/d'.\nType \"REG ADD /?\" for usage.\n")
    registry.set(path, name, kind, data)
    return console(_DONE)


def _delete(invocation: Invocation, path: str, name: str | None, *, everything: bool) -> Outcome:
    registry = invocation.host.registry
    if everything:
        if not registry.exists(path):
            return failure(_NOT_FOUND)
        for value in list(registry.values(path)):
            registry.unset(path, value.name)
        return console(_DONE)
    done = registry.delete(path) if name is None else registry.exists(path) and registry.unset(path, name)
    return console(_DONE) if done else failure(_NOT_FOUND)
