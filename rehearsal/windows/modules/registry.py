"""win_regedit, win_reg_stat."""

from __future__ import annotations

import re
from typing import Any

from rehearsal.windows import commandline
from rehearsal.windows.modules.base import Call
from rehearsal.windows.registry import Value

_PATH = re.compile(r"^HK(CC|CR|CU|LM|U):\\", re.IGNORECASE)
_TYPES = {
    "none": ("REG_NONE", "None"),
    "binary": ("REG_BINARY", "Binary"),
    "dword": ("REG_DWORD", "DWord"),
    "expandstring": ("REG_EXPAND_SZ", "ExpandString"),
    "multistring": ("REG_MULTI_SZ", "MultiString"),
    "string": ("REG_SZ", "String"),
    "qword": ("REG_QWORD", "QWord"),
}
_NET_NAMES = dict(_TYPES.values())


def win_regedit(call: Call) -> None:
    """Set or remove a value, make or remove a key."""
    path, name, kind = call.text("path"), call.get("name"), call.text("type")
    call.result.update(data_changed=False, data_type_changed=False)
    call.diff = {"before": "", "after": ""}
    if name is None and kind != "string":
        call.warnings.append(
            "the data type when name is not specified can only be 'string', the type has automatically been converted"
        )
        kind = "string"
    if not _PATH.match(path):
        raise call.fail(f"path: {path} is not a valid powershell path, see module documentation for examples.")
    if call.get("hive"):
        raise call.fail("rehearsal: loading a hive is not modelled")
    name = None if name == "" else name
    if call.get("state") == "absent":
        _absent(call, path, name)
    else:
        _present(call, path, name, _TYPES[kind][0], _convert(call, kind, name))


def _convert(call: Call, kind: str, name: str | None) -> Any:
    """The data as it will be kept; None stands for no data at all (a key only)."""
    data = call.get("data")
    if kind in ("binary", "none"):
        if isinstance(data, int) and not isinstance(data, bool):
            if data > 255:
                raise call.fail(
                    f"cannot convert binary data '{data}' to byte array, please specify this value as a yaml byte "
                    "array or a comma separated hex value string"
                )
            return [data]
        return [int(byte) for byte in data] if isinstance(data, list) else _hexadecimal(str(data or ""))
    if kind in ("dword", "qword"):
        if isinstance(data, float) and data % 1:
            raise call.fail(
                f"data '{data}' cannot be a decimal or float value with a remainder when type is dword or qword"
            )
        number = int(data or "0", 0) if isinstance(data, str) else int(data or 0)
        bits = 32 if kind == "dword" else 64
        if number >= 2**bits:
            raise call.fail(f"data cannot be larger than 0x{2**bits - 1:x} when type is {kind}")
        return number % 2**bits
    if kind == "multistring":
        return [] if data is None else [str(item) for item in data] if isinstance(data, list) else [str(data)]
    if data is None:
        return "" if name else None
    return str(data)


def _hexadecimal(text: str) -> list[int]:
    """Bytes of the form that reg.exe exports: ``hex:be,ef``."""
    text = re.sub(r"[^a-f0-9\\,x\-:]", "", re.sub(r"^hex:", "", text.lower())).replace(",", ":")
    if ":" in text:
        return [int(part, 16) for part in re.split(":+", text)]
    if len(text) == 1:
        return [int(text, 16)]
    return [int(text[i : i + 2], 16) for i in range(0, len(text), 2)] if len(text) % 2 == 0 else []


def _shown(kind: str, data: Any) -> dict[str, Any]:
    """A value as the diff shows it."""
    if kind in ("REG_BINARY", "REG_NONE"):
        data = [f"0x{byte:02x}" for byte in data]
    elif kind == "REG_DWORD":
        data = f"0x{data:08x}"
    elif kind == "REG_QWORD":
        data = f"0x{data:016x}"
    return {"type": _NET_NAMES[kind], "value": data}


def _absent(call: Call, path: str, name: str | None) -> None:
    registry = call.host.registry
    if not registry.exists(path):
        return
    if call.get("delete_key") and not name:
        if not call.check_mode:
            registry.delete(path)
        call.changed()
        call.diff = {"before": {path: {}}, "after": {}}
        return
    value = registry.get(path, name or "")
    if value is None:
        return
    if not call.check_mode:
        registry.unset(path, name or "")
    call.changed()
    call.diff = {"before": {path: {name or "": _shown(value.type, value.data)}}, "after": {path: {}}}


def _present(call: Call, path: str, name: str | None, kind: str, data: Any) -> None:
    registry = call.host.registry
    key, before, after = name or "", {path: {}}, {path: {}}  # type: tuple[str, dict[str, Any], dict[str, Any]]
    call.diff = {"before": before, "after": after}
    if not registry.exists(path):
        call.changed()
        call.diff["before"] = {}
        if call.check_mode:
            return
        registry.create(path)
    if data is None:
        return
    value = registry.get(path, key)
    after[path][key] = _shown(kind, data)
    if value is not None:
        before[path][key] = _shown(value.type, value.data)
        call.result["data_type_changed"] = value.type != kind
        call.result["data_changed"] = value.data != data
        if value.type == kind and value.data == data:
            return
    if not call.check_mode:
        registry.set(path, key, kind, data)
    call.changed()


def win_reg_stat(call: Call) -> None:
    """What is known of a key or a value."""
    registry, path, name = call.host.registry, call.text("path"), call.get("name")
    if not _PATH.match(path):
        raise call.fail(f"path: {path} is not a valid registry path, see module documentation for examples.")
    call.result["exists"] = registry.exists(path)
    if not call.result["exists"]:
        return
    if name is None:
        call.result["properties"] = {value.name: _property(call, value) for value in registry.values(path)}
        call.result["sub_keys"] = registry.subkeys(path)
        return
    value = registry.get(path, name)
    call.result["exists"] = value is not None
    if value is not None:
        call.result.update(_property(call, value))


def _property(call: Call, value: Value) -> dict[str, Any]:
    raw, shown = value.data, value.data
    if value.type in ("REG_BINARY", "REG_NONE"):
        raw = [f"0x{byte:02x}" for byte in value.data]
    elif value.type == "REG_EXPAND_SZ":
        shown = commandline.expand(value.data, call.host.environment(call.user))
    return {"type": value.type, "value": shown, "raw_value": raw}
