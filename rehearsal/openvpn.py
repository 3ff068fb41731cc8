r"""OpenVPN's services on a Windows host: they run the real ``openvpn`` in the machine's network.

Sources: OpenVPN/openvpnserv2 and the MSI of OpenVPN/openvpn-build (2.6.22). The automatic service reads
``HKLM\SOFTWARE\OpenVPN``, starts one process for each configuration file that it finds below
``autostart_config_dir``, and starts a process that ended again after ten seconds.

The configuration is used as it is.  Only what the service itself says on the command line differs: the folder is the
one that stands for ``C:\…``, directives that exist on Windows alone are let pass, and a tun device is opened where
Windows names an adapter.  A path of Windows inside the file cannot be opened by the program, so it is refused by name.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any, Protocol

from rehearsal.interfaces import Platform, RehearsalError, ServiceProgram
from rehearsal.windows import network
from rehearsal.windows.errors import WindowsError

KEY = r"HKLM\SOFTWARE\OpenVPN"
RESTART_DELAY = 10.0
"""Seconds until a process that ended is started again (openvpnserv2, Service.cs)."""
STOP_TIME = 5.0
"""Seconds that a process has to end by itself when the service stops."""
WINDOWS_ONLY = ("windows-driver", "ip-win32", "register-dns", "block-outside-dns", "route-method")
"""Directives that OpenVPN knows on Windows alone. (``dev-node`` it knows here too, with another meaning.)"""

_TUN_DEVICE = "/dev/net/tun"
_WINDOWS_PATH = re.compile(r"(?:^|[\s\"'])([A-Za-z]:[\\/]\S*|\\\\\S+)")
_INLINE = re.compile(r"\s*<(/?)([a-z0-9-]+)>\s*")


class Files(Protocol):
    """The ``C:`` of a host, as far as the service needs it."""

    def exists(self, path: str) -> bool: ...
    def is_directory(self, path: str) -> bool: ...
    def read_bytes(self, path: str) -> bytes: ...
    def make_directory(self, path: str) -> str: ...
    def real(self, path: str) -> Path: ...
    def windows(self, real: Path) -> str: ...


class Registry(Protocol):
    def exists(self, path: str) -> bool: ...
    def data(self, path: str, name: str = "", default: Any = None) -> Any: ...
    def values(self, path: str) -> Any: ...


class Host(Protocol):
    """The part of a Windows host that OpenVPN's services see."""

    @property
    def name(self) -> str: ...
    @property
    def files(self) -> Files: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def platform(self) -> Platform: ...
    def log(self, text: str) -> None: ...


class AutomaticService:
    """The program of ``OpenVPNService`` (openvpnserv2.exe)."""

    def __init__(self, *, binary: str | None = None, restart_delay: float = RESTART_DELAY) -> None:
        """``binary``: the real program, by default the ``openvpn`` that is found; ``restart_delay``: seconds."""
        self._binary = binary
        self._restart_delay = restart_delay

    async def __call__(self, host: Host, service: str) -> None:
        """Run until cancelled. WindowsError 1067 when OpenVPN is not installed as the service expects it."""
        folder = _text(host, "autostart_config_dir")
        extension = _text(host, "config_ext")
        program = _text(host, "exe_path")
        for path in (folder, program):
            if not host.files.exists(path):
                raise WindowsError(1067, f"{service}: {path} does not exist")
        host.files.make_directory(_text(host, "log_dir"))
        binary = self._binary or find_binary()
        found = configurations(host.files, folder, extension)
        host.log(f"service {service}: {len(found)} configurations below {folder}")
        try:
            async with asyncio.TaskGroup() as group:
                for configuration in found:
                    group.create_task(self._keep_running(host, service, binary, configuration))
                group.create_task(asyncio.Event().wait())  # without a configuration the service runs and does nothing
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _keep_running(self, host: Host, service: str, binary: str, configuration: Path) -> None:
        shown = host.files.windows(configuration)
        while True:
            problem = foreign_path(configuration.read_bytes())
            if problem is not None:
                host.log(
                    f"rehearsal: {shown} names {problem}: the openvpn that stands in cannot open a path of Windows; "
                    "put the content inline or name a file beside it"
                )
            else:
                await self._run_once(host, service, binary, configuration, shown)
            await asyncio.sleep(self._restart_delay)

    async def _run_once(self, host: Host, service: str, binary: str, configuration: Path, shown: str) -> None:
        log = host.files.real(_text(host, "log_dir")) / f"{configuration.stem}.log"
        append = _text(host, "log_append") == "1"
        await network.prepare_tunnel_adapters(host)
        process = await host.platform.daemon(
            command_line(binary, configuration, log, append=append),
            env={"PATH": _search_path()},
            cwd=configuration.parent,
            log=log,
        )
        host.log(f"service {service}: openvpn for {shown} started")
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            host.log(f"service {service}: openvpn for {shown} ended")
            raise
        host.log(f"service {service}: openvpn for {shown} ended with {code}; again in {self._restart_delay:g} s")


class InteractiveService:
    """The program of ``OpenVPNServiceInteractive`` (openvpnserv.exe): it waits for a desktop that never asks."""

    async def __call__(self, host: Host, service: str) -> None:
        """Run until cancelled."""
        await asyncio.Event().wait()


SERVICE_PROGRAMS: dict[str, ServiceProgram] = {
    "openvpnserv2.exe": AutomaticService(),
    "openvpnserv.exe": InteractiveService(),
}


def configurations(files: Files, folder: str, extension: str) -> list[Path]:
    """The files of that extension in ``folder`` and below it, sorted (case does not matter, as on Windows)."""
    suffix = f".{extension.lower()}"
    root = files.real(folder)
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name.lower().endswith(suffix))


def command_line(binary: str, configuration: Path, log: Path, *, append: bool) -> list[str]:
    """How the service starts one process; options after ``--config`` win over the file."""
    return [
        binary,
        "--log-append" if append else "--log",
        str(log),
        "--cd",
        str(configuration.parent),
        "--ignore-unknown-option",
        *WINDOWS_ONLY,
        "--config",
        configuration.name,
        "--dev-node",
        _TUN_DEVICE,
        "--pull-filter",
        "ignore",
        "route-method",
    ]


def foreign_path(configuration: bytes) -> str | None:
    """The first path of Windows in a configuration (comments and inline files left out); None when there is none."""
    inline = ""
    for line in configuration.decode("utf-8-sig", errors="replace").splitlines():
        tag = _INLINE.fullmatch(line)
        if tag is not None:
            inline = "" if tag[1] else tag[2]
            continue
        if inline or line.lstrip().startswith(("#", ";")):
            continue
        match = _WINDOWS_PATH.search(line)
        if match is not None:
            return match[1].strip("\"'")
    return None


def find_binary() -> str:
    """The real openvpn. RehearsalError when it is not installed."""
    binary = shutil.which("openvpn", path=_search_path())
    if binary is None:
        raise RehearsalError("openvpn is not installed: sudo apt-get install openvpn")
    return binary


def _search_path() -> str:
    return os.pathsep.join(
        dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/sbin", "/usr/bin"])
    )


def _text(host: Host, name: str) -> str:
    value = host.registry.data(KEY, name)
    if value is None:
        raise WindowsError(1067, f"{KEY} has no value {name}: OpenVPN is not installed or damaged")
    return str(value).rstrip("\\")  # folders end with it


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let a process say goodbye to its peer (explicit-exit-notify), then kill it."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_TIME):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
