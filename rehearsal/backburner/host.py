"""What the Backburner stand-ins use of a Windows host, and how they turn a name into an address."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Protocol

from rehearsal.interfaces import Outcome, Platform
from rehearsal.windows.errors import WindowsError

PROFILE = r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner"
"""Per-user application data of the Local Service account: where the services keep settings, log and queue.

Source: Autodesk creative-finishing setup guide, "Configuring the Backburner server/manager service"; the translation of
its Windows XP path to present Windows is ours.
"""
INSTALL_FOLDER = r"C:\Program Files (x86)\Autodesk\Backburner"
HOSTS_FILE = r"C:\Windows\System32\drivers\etc\hosts"

_VPC_NAME = re.compile(r"ip-(\d{1,3})-(\d{1,3})-(\d{1,3})-(\d{1,3})(\.[a-z0-9.-]+)?", re.IGNORECASE)


FILE_ERRORS = (OSError, WindowsError)
"""What the methods of Files raise: the rehearsal's own disk (full, read-only) or what Windows would refuse."""


class Files(Protocol):
    """The ``C:`` of a host; every path is a Windows path, every method may raise FILE_ERRORS."""

    def exists(self, path: str) -> bool: ...
    def names(self, path: str) -> list[str]: ...
    def read_bytes(self, path: str) -> bytes: ...
    def write_bytes(self, path: str, content: bytes) -> None: ...
    def append_bytes(self, path: str, content: bytes) -> None: ...
    def make_directory(self, path: str) -> str: ...
    def delete(self, path: str) -> None: ...


class Host(Protocol):
    """The part of a Windows host that a Backburner service sees."""

    @property
    def files(self) -> Files: ...
    @property
    def platform(self) -> Platform: ...
    @property
    def computer_name(self) -> str: ...
    def log(self, text: str) -> None: ...
    async def run(self, words: Sequence[str], *, user: str) -> Outcome: ...


def write_file(files: Files, path: str, data: bytes) -> None:
    """Write ``data`` to ``path`` and make its folder first. FILE_ERRORS pass through."""
    files.make_directory(ntpath.dirname(path))
    files.write_bytes(path, data)


def in_task_list(host: Host, images: Sequence[str], service: str) -> AbstractContextManager[Any]:
    """Show programs that a service started in the host's task list for as long as the context lasts.

    A host with a task list has ``show_processes(images, service)``, which gives the context.
    """
    show = getattr(host, "show_processes", None)
    if show is None:
        return nullcontext()
    shown: AbstractContextManager[Any] = show(images, service)
    return shown


async def write_output(host: Host, path: str, data: bytes) -> None:
    """Write a frame where a job wants it: on ``C:``, or on another host by drive letter or UNC name. FILE_ERRORS."""
    elsewhere = getattr(host, "network_files", None)
    if elsewhere is not None and elsewhere.leads_away(path):
        await elsewhere.write(path, data)
    else:
        write_file(host.files, path, data)


def resolve(host: Host, name: str) -> str | None:
    """The IPv4 address of ``name`` as seen from ``host``; None when nothing knows it.

    Tried in order: the address itself, localhost, the host's own name, its hosts file, and the names that the resolver
    of a VPC answers (``ip-10-0-0-21`` with or without a domain). NetBIOS and LLMNR are broadcasts; a VPC carries none.
    """
    try:
        return str(IPv4Address(name))
    except AddressValueError:
        pass
    wanted = name.lower()
    if wanted == "localhost":
        return "127.0.0.1"
    if wanted == host.computer_name.lower():
        return str(host.platform.nic.address)
    listed = _hosts_file(host).get(wanted)
    if listed is not None:
        return listed
    match = _VPC_NAME.fullmatch(wanted)
    if match is None:
        return None
    try:
        return str(IPv4Address(".".join(match.group(1, 2, 3, 4))))
    except AddressValueError:
        return None


def _hosts_file(host: Host) -> dict[str, str]:
    if not host.files.exists(HOSTS_FILE):
        return {}
    names: dict[str, str] = {}
    for line in host.files.read_bytes(HOSTS_FILE).decode("utf-8", errors="replace").splitlines():
        fields = line.split("#", 1)[0].split()
        for name in fields[1:]:
            names.setdefault(name.lower(), fields[0])
    return names
