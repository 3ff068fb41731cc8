"""win_stat, win_find, win_file, win_copy, slurp."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import ntpath
import zipfile
from datetime import UTC, datetime
from typing import Any

from rehearsal.windows.errors import WindowsError
from rehearsal.windows.files import Entry, Files
from rehearsal.windows.modules.base import Call


def checksum(files: Files, path: str, algorithm: str = "sha1") -> str:
    """The hash of a file in hexadecimal digits."""
    return hashlib.new(algorithm, files.read_bytes(path), usedforsecurity=False).hexdigest()


def win_stat(call: Call) -> None:
    """What is known of a file or folder. There are no links."""
    files = call.host.files
    path = call.path("path")
    call.result["stat"] = {"exists": False}
    if not files.exists(path):
        return
    entry = files.entry(path)
    name = ntpath.basename(entry.path)
    stat: dict[str, Any] = {
        "exists": True,
        "attributes": ", ".join(entry.attributes),
        "isarchive": "Archive" in entry.attributes,
        "isdir": entry.is_directory,
        "ishidden": "Hidden" in entry.attributes,
        "isjunction": False,
        "islnk": False,
        "isreadonly": "ReadOnly" in entry.attributes,
        "isreg": not entry.is_directory,
        "isshared": False,
        "nlink": 1,
        "hlnk_targets": [],
        "creationtime": entry.created,
        "lastaccesstime": entry.accessed,
        "lastwritetime": entry.written,
        "path": entry.path,
        "filename": name,
        "owner": "BUILTIN\\Administrators",
    }
    if entry.is_directory:
        share = next((s for s in call.host.shares.values() if s["path"].lower() == entry.path.lower()), None)
        if share is not None:
            stat.update(isshared=True, sharename=share["name"])
        if call.get("get_size"):
            stat["size"] = sum(child.size for child in files.walk(path))
    else:
        stat["extension"] = ntpath.splitext(name)[1]
        if call.get("get_checksum"):
            stat["checksum"] = checksum(files, path, call.text("checksum_algorithm"))
        if call.get("get_size"):
            stat["size"] = entry.size
    call.result["stat"] = stat


def win_find(call: Call) -> None:
    """The files directly in folders, by path. Nothing of their content is looked at but the checksum."""
    files = call.host.files
    for option, plain in (("age", None), ("patterns", None), ("size", None), ("depth", None), ("recurse", False)):
        if call.get(option) not in (plain, None, False):
            raise call.fail(f"rehearsal: the option {option} of win_find is not modelled")
    if call.get("hidden") or call.get("file_type") != "file":
        raise call.fail("rehearsal: win_find finds only files that are not hidden")
    found: list[dict[str, Any]] = []
    examined = 0
    for path in call.get("paths"):
        folder = call.expand(str(path))
        if not files.is_directory(folder):
            raise call.fail(
                f"Argument path '{folder}' does not exist" + ("" if not files.exists(folder) else " or is a file")
            )
        for name in files.names(folder):
            entry = files.entry(ntpath.join(folder, name))
            examined += 1
            if entry.is_directory or "Hidden" in entry.attributes:
                continue
            found.append(
                {
                    "path": entry.path,
                    "filename": ntpath.basename(entry.path),
                    "extension": ntpath.splitext(entry.path)[1],
                    "attributes": ", ".join(entry.attributes),
                    "isdir": False,
                    "isreg": True,
                    "ishidden": False,
                    "isreadonly": "ReadOnly" in entry.attributes,
                    "size": entry.size,
                    "creationtime": entry.created,
                    "lastaccesstime": entry.accessed,
                    "lastwritetime": entry.written,
                    "owner": "BUILTIN\\Administrators",
                }
            )
            if call.get("get_checksum"):
                found[-1]["checksum"] = checksum(files, entry.path, call.text("checksum_algorithm"))
    call.result.update(examined=examined, matched=len(found), files=sorted(found, key=lambda each: str(each["path"])))


def _time(call: Call, option: str, default: str) -> float | None:
    value = call.text(option) or default
    if value == "preserve":
        return None
    if value == "now":
        return call.host.clock()
    if call.text(f"{option}_format") != "yyyy-MM-dd HH:mm:ss":
        raise call.fail(f"rehearsal: only the format yyyy-MM-dd HH:mm:ss of {option}_format is modelled")
    try:
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise call.fail(f"Invalid {option} '{value}'") from None


def win_file(call: Call) -> None:
    """Make, touch or delete a file or folder."""
    files = call.host.files
    path = call.path("path")
    state = call.get("state")
    if files.is_directory(path) and call.get("_original_basename") is not None:
        path = ntpath.join(path, call.text("_original_basename"))
    default = "now" if state == "touch" else "preserve"
    written, accessed = _time(call, "modification_time", default), _time(call, "access_time", default)
    if call.get("_diff_peek") is not None:
        binary = files.is_file(path) and b"\0" in files.read_bytes(path)[:8192]
        call.result = {
            "path": path,
            "change": False,
            "changed": False,
            "appears_binary": binary,
            "state": "file" if files.exists(path) else "absent",
        }
        return

    def touch() -> None:
        if written is not None or accessed is not None:
            if not call.check_mode:
                files.set_times(path, accessed=accessed, written=written)
            call.changed()

    try:
        if state == "touch":
            if not files.exists(path):
                call.changed()
                if not call.check_mode:
                    files.write_bytes(path, b"")
            touch()
        if files.exists(path):
            if state == "absent":
                if not call.check_mode:
                    files.delete(path, force=True)
                call.changed()
            elif state == "directory" and not files.is_directory(path):
                raise call.fail(f"path {path} is not a directory")
            elif state == "file" and files.is_directory(path):
                raise call.fail(f"path {path} is not a file")
            return
        if state is None:
            state = "file" if ntpath.basename(path) else "directory"
        if state == "directory":
            if not call.check_mode:
                files.make_directory(path)
            call.changed()
            if not call.check_mode:
                touch()
        elif state == "file":
            raise call.fail(f"path {path} will not be created")
    except WindowsError as error:
        raise call.fail(str(error)) from error


def slurp(call: Call) -> None:
    """The content of a file in base64."""
    files = call.host.files
    path = call.path("src")
    if files.is_file(path):
        call.result.update(content=base64.b64encode(files.read_bytes(path)).decode(), encoding="base64")
    elif files.is_directory(path):
        raise call.fail(f"Path {path} is a directory")
    else:
        raise call.fail(f"Path {path} is not found")


# ------------------------------------------------------------------------------------------------------------ win_copy


def win_copy(call: Call) -> None:
    """The four jobs of the script behind the actions win_copy and win_template."""
    modes = {"query": _query, "single": _single, "explode": _explode, "remote": _remote}
    if call.diff_mode:
        call.result["diff"] = {}
    modes[call.text("_copy_mode")](call)


def _backup(call: Call, path: str) -> str | None:
    files = call.host.files
    if not files.is_file(path):
        return None
    stamp = datetime.fromtimestamp(call.host.clock(), UTC).strftime("%Y%m%d-%H%M%S")
    backup = f"{path}.{4000 + call.host.winrm_commands}.{stamp}.bak"
    if not call.check_mode:
        files.write_bytes(backup, files.read_bytes(path))
    return backup


def _query(call: Call) -> None:
    files, dest = call.host.files, call.path("dest")
    wanted_files, wanted_folders = [], []
    for entry in call.get("files") or []:
        path = ntpath.join(dest, entry["dest"])
        if files.is_directory(path):
            path = ntpath.join(path, entry["src"].replace("\\", "/").rpartition("/")[2])
        if files.is_directory(path):
            raise call.fail(f"cannot copy file to dest '{path}': object at path is already a directory")
        if not files.is_file(path) or (call.get("force") and checksum(files, path) != entry["checksum"]):
            wanted_files.append(entry)
    for entry in call.get("directories") or []:
        path = ntpath.join(dest, entry["dest"])
        if files.is_file(ntpath.dirname(path)):
            raise call.fail(f"cannot copy folder to dest '{path}': object at parent directory path is already a file")
        if files.is_file(path):
            raise call.fail(f"cannot copy folder to dest '{path}': object at path is already a file")
        if not files.is_directory(path):
            wanted_folders.append(entry)
    call.result.update(files=wanted_files, directories=wanted_folders, symlinks=[])


def _target(call: Call, dest: str, name: str) -> str:
    """Where a single file goes; its folder is made when ``dest`` is a folder, else it must exist."""
    files = call.host.files
    path = ntpath.join(dest, name) if dest.endswith(("\\", "/")) or files.is_directory(dest) else dest
    parent = ntpath.dirname(path) or call.host.home(call.user)
    if files.is_file(parent):
        raise call.fail(f"object at destination parent dir '{parent}' is currently a file")
    if not files.is_directory(parent):
        if path == dest:
            raise call.fail(f"Destination directory '{parent}' does not exist")
        files.make_directory(parent)
    return ntpath.join(parent, ntpath.basename(path))


def _single(call: Call) -> None:
    files, source = call.host.files, call.path("src")
    if not files.is_file(source):
        raise call.fail(f"Cannot copy src file: '{source}' as it does not exist")
    path = _target(call, call.path("dest"), call.text("_original_basename"))
    if call.get("backup"):
        call.result["backup_file"] = _backup(call, path)
    _replace(files, path, files.read_bytes(source))
    call.changed()


def _replace(files: Files, path: str, content: bytes) -> None:
    """Copy-Item -Force: a read-only file is replaced too, and stays read-only."""
    read_only = files.is_file(path) and "ReadOnly" in files.entry(path).attributes
    if read_only:
        files.set_attributes(path, read_only=False)
    files.write_bytes(path, content)
    if read_only:
        files.set_attributes(path, read_only=True)


def _explode(call: Call) -> None:
    files, source, dest = call.host.files, call.path("src"), call.path("dest")
    if not files.is_file(source):
        raise call.fail(f"Cannot expand src zip file: '{source}' as it does not exist")
    with zipfile.ZipFile(io.BytesIO(files.read_bytes(source))) as archive:
        for entry in archive.infolist():
            encoded = entry.filename.rstrip("/\\")
            try:
                name = base64.b64decode(encoded, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise call.fail(f"invalid base64 archive name '{entry.filename}'") from None
            path = ntpath.join(dest, name)
            if entry.filename.endswith(("/", "\\")):
                files.make_directory(path)
            else:
                files.make_directory(ntpath.dirname(path))
                _replace(files, path, archive.read(entry))
    call.changed()


def _remote(call: Call) -> None:
    files, source, dest = call.host.files, call.path("src"), call.path("dest")
    call.result.update(src=source, dest=dest)
    if not files.exists(source):
        raise call.fail(f"Cannot copy src file: '{source}' as it does not exist")
    diff: list[str] = []
    target = dest
    if files.is_directory(source):
        call.result["operation"] = "folder_copy"
        if source.endswith(("\\", "/")):
            for name in files.names(source):
                _copy_entry(call, files.entry(ntpath.join(source, name)), ntpath.join(dest, name), diff)
        else:
            target = ntpath.join(dest, ntpath.basename(files.shown(source)))
            call.result["dest"] = target
            _copy_entry(call, files.entry(source), target, diff)
    else:
        name = ntpath.basename(files.shown(source))
        call.result.update(operation="file_copy", original_basename=name)
        target = _target(call, dest, name)
        call.result["dest"] = target
        _copy_entry(call, files.entry(source), target, diff)
        call.result["checksum"] = checksum(files, source) if call.get("force") else None
    call.result["size"] = _size(files, target) if files.exists(target) else None
    if call.diff_mode:
        call.result["diff"]["prepared"] = "".join(diff)


def _size(files: Files, path: str) -> int:
    entry = files.entry(path)
    return sum(child.size for child in files.walk(path)) if entry.is_directory else entry.size


def _copy_entry(call: Call, source: Entry, target: str, diff: list[str]) -> None:
    files = call.host.files
    if source.is_directory:
        if files.is_file(target):
            raise call.fail(f"cannot copy folder from '{source.path}' to '{target}': dest is already a file")
        if not files.is_directory(target):
            if not call.check_mode:
                files.make_directory(target)
            diff.append(f"+{target}\\\n")
            call.changed()
        for name in files.names(source.path):
            _copy_entry(call, files.entry(ntpath.join(source.path, name)), ntpath.join(target, name), diff)
        return
    if files.is_directory(target):
        raise call.fail(f"cannot copy file from '{source.path}' to '{target}': dest is already a folder")
    exists = files.is_file(target)
    if exists and not (call.get("force") and checksum(files, source.path) != checksum(files, target)):
        return
    parent = ntpath.dirname(target)
    if files.is_file(parent):
        raise call.fail(
            f"cannot copy file from '{source.path}' to '{target}': object at dest parent dir is not a folder"
        )
    if not files.is_directory(parent):
        if not call.check_mode:
            files.make_directory(parent)
        diff.append(f"+{parent}\\\n")
    if call.get("backup"):
        call.result["backup_file"] = _backup(call, target)
    if exists:
        diff.append(f"-{target}\n")
    diff.append(f"+{target}\n")
    if not call.check_mode:
        _replace(files, target, files.read_bytes(source.path))
    call.changed()
