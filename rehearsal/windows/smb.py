"""File sharing between hosts: shares with their accounts, global mappings, and paths that lead to another host.

SMB itself is not spoken.  On TCP 445 one JSON line asks and one answers, which is ours; what is modelled is who may do
what: account, password, share and its permissions, with the error codes of Windows (System Error Codes).
"""

from __future__ import annotations

import asyncio
import base64
import json
import ntpath
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rehearsal.windows.errors import WindowsError
from rehearsal.windows.files import Entry

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

PORT = 445
SECONDS = 10.0
_UNC = re.compile(r"\\\\([^\\]+)\\([^\\]+)(?:\\(.*))?")

KEPT = r"C:\Windows\System32\config\systemprofile\AppData\Local\Microsoft\Credentials\global-mappings.json"
"""Persistent mappings with their passwords. Windows' own form is encrypted, with a key that is on the same disk."""

ACCESS_DENIED, BAD_NETPATH, BAD_NET_NAME, LOGON_FAILURE = 5, 53, 67, 1326


@dataclass(frozen=True)
class Mapping:
    """A share that is open for all accounts of a host."""

    unc: str
    user: str
    password: str


async def serve(host: WindowsHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what other hosts ask of this one's shares."""
    try:
        while line := await reader.readline():
            try:
                request = json.loads(line)
            except ValueError:
                break  # no host of this rehearsal
            try:
                answer = {"code": 0, **_answer(host, request)}
            except WindowsError as error:
                answer = {"code": error.code}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, ValueError) as error:
        host.log(f"file sharing: a connection ended: {error}")
    finally:
        writer.close()


def _answer(host: WindowsHost, request: dict[str, Any]) -> dict[str, Any]:
    name = str(request["user"]).rpartition("\\")[2]
    user = host.accounts.user(name)
    if user is None or user.password != request["password"]:
        host.log(f"file sharing: {name} is refused: no such account, or another password")
        raise WindowsError(LOGON_FAILURE)
    share = host.shares.get(str(request["share"]).lower())
    if share is None:
        raise WindowsError(BAD_NET_NAME)
    rights = {
        entry["right"]
        for entry in share["access"]
        if entry["type"] == "Allow" and entry["account"].rpartition("\\")[2].lower() in (name.lower(), "everyone")
    }
    path = ntpath.join(share["path"], str(request.get("path", "")))
    match request["do"]:
        case "open" if rights:
            return {}
        case "stat" if rights:
            exists = host.files.is_file(path)
            return {"size": len(host.files.read_bytes(path)) if exists else None}
        case "list" if rights:
            inside = [host.files.entry(ntpath.join(path, each)) for each in host.files.names(path)]
            return {"entries": [_row(entry) for entry in inside]}
        case "make" if rights & {"Change", "Full"}:
            host.files.make_directory(path)
            return {}
        case "date" if rights & {"Change", "Full"}:
            host.files.set_times(path, written=float(request["written"]))
            return {}
        case "write" if rights & {"Change", "Full"}:
            host.files.make_directory(ntpath.dirname(path))
            data = base64.b64decode(request["data"])
            if request.get("append"):
                host.files.append_bytes(path, data)
            else:
                host.files.write_bytes(path, data)
            return {}
    raise WindowsError(ACCESS_DENIED)


def _row(entry: Entry) -> list[Any]:
    return [ntpath.basename(entry.path), entry.is_directory, entry.size, entry.written]


class Client:
    """A host's way to the shares of others.

    A global mapping is persistent unless it is told not to be: it outlives a boot, and its credentials are saved in the
    Credential Manager (kubernetes-csi/csi-driver-smb, issue 219; "persisted by default & will error if already mapped",
    microsoft/K8s-Storage-Plugins, pull request 8).
    """

    def __init__(self, host: WindowsHost) -> None:
        self._host = host
        self.mappings: dict[str, Mapping] = {}
        """By drive letter, such as ``F:``."""

    def power_on(self) -> None:
        """What is mapped after a boot."""
        self.mappings = self._kept()

    async def map(self, drive: str, mapping: Mapping, *, persistent: bool) -> None:
        """Make a global mapping. WindowsError as Windows would refuse it."""
        if drive in self.mappings:
            raise WindowsError(85)
        await self._ask(mapping, "open", "")
        self.mappings[drive] = mapping
        if persistent:
            self._keep({**self._kept(), drive: mapping})

    def unmap(self, drive: str) -> None:
        """Take a global mapping away, for good."""
        del self.mappings[drive]
        kept = self._kept()
        if kept.pop(drive, None) is not None:
            self._keep(kept)

    def _kept(self) -> dict[str, Mapping]:
        if not self._host.files.is_file(KEPT):
            return {}
        return {drive: Mapping(**values) for drive, values in json.loads(self._host.files.read_bytes(KEPT)).items()}

    def _keep(self, mappings: dict[str, Mapping]) -> None:
        self._host.files.make_directory(ntpath.dirname(KEPT))
        rows = {drive: asdict(mapping) for drive, mapping in mappings.items()}
        self._host.files.write_bytes(KEPT, json.dumps(rows).encode())

    def leads_away(self, path: str) -> bool:
        """Is ``path`` on another host?"""
        return path.startswith("\\\\") or not path.upper().startswith("C:")

    async def write(self, path: str, data: bytes, *, append: bool = False) -> None:
        """Write a file of another host, by UNC name or drive letter. WindowsError as Windows would fail."""
        await self._ask(*self._place(path), data=base64.b64encode(data).decode(), append=append)

    async def size(self, path: str) -> int | None:
        """How long a file of another host is; None when there is none."""
        mapping, _, rest = self._place(path)
        found = (await self._ask(mapping, "stat", rest))["size"]
        return None if found is None else int(found)

    async def names(self, path: str) -> dict[str, tuple[bool, int, float]]:
        """What is in a folder of another host: name -> is a folder, size, time written. WindowsError 3: no folder."""
        mapping, _, rest = self._place(path)
        rows = (await self._ask(mapping, "list", rest))["entries"]
        return {str(name): (bool(folder), int(size), float(written)) for name, folder, size, written in rows}

    async def make_directory(self, path: str) -> None:
        """Make a folder of another host, and those above it."""
        mapping, _, rest = self._place(path)
        await self._ask(mapping, "make", rest)

    async def set_written(self, path: str, written: float) -> None:
        """Set when a file of another host was written, in seconds since 1970."""
        mapping, _, rest = self._place(path)
        await self._ask(mapping, "date", rest, written=written)

    def _place(self, path: str) -> tuple[Mapping, str, str]:
        if path.startswith("\\\\"):
            match = _UNC.fullmatch(path)
            if match is None:
                raise WindowsError(BAD_NETPATH)
            unc = f"\\\\{match[1]}\\{match[2]}"
            mapping = next((each for each in self.mappings.values() if each.unc.lower() == unc.lower()), None)
            if mapping is None:
                raise WindowsError(ACCESS_DENIED)  # Local Service shows itself as nobody, and no share lets nobody in
            return mapping, "write", match[3] or ""
        mapping = self.mappings.get(path[:2].upper())
        if mapping is None:
            raise WindowsError(3)
        return mapping, "write", path[3:]

    async def _ask(self, mapping: Mapping, do: str, path: str, **more: Any) -> dict[str, Any]:
        match = _UNC.fullmatch(mapping.unc)
        if match is None:
            raise WindowsError(BAD_NETPATH)
        request = {
            "do": do,
            "share": match[2],
            "user": mapping.user,
            "password": mapping.password,
            "path": path,
            **more,
        }
        try:
            async with asyncio.timeout(SECONDS):
                reader, writer = await self._host.platform.connect(match[1], PORT, timeout=SECONDS)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    await writer.drain()
                    answer = json.loads(await reader.readline() or b'{"code": 64}')
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise WindowsError(BAD_NETPATH) from error
        if answer["code"]:
            raise WindowsError(int(answer["code"]))
        found: dict[str, Any] = answer
        return found
