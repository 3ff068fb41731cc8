"""Puts the parts of the rehearsal together: which region, which hosts, which service programs, which installers."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from rehearsal import backburner, openvpn, packages
from rehearsal.cloud import Cloud, CloudSettings
from rehearsal.machine import Host, MachinePlatform
from rehearsal.windows import images
from rehearsal.windows.host import WindowsHost

SOCKETS = Path("/run/rehearsal")  # a mount of the daemon: the paths of sockets must be short (unix(7))
_TCPIP_KEY = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"


def start_cloud(listener: socket.socket, call_log: Path) -> Cloud:
    """Serve the simulated region on a listening socket, in threads."""
    cloud = Cloud(CloudSettings(call_log=call_log))
    cloud.serve(listener)
    return cloud


def write_installers(folder: Path, base_url: str) -> Mapping[str, Any]:
    """Write the installers that the download server offers; returns what ``farm_installers`` should be."""
    return packages.write_packages(folder, base_url)


class WindowsMachine:
    """A Windows host on a machine (``rehearsal.machine.Host``)."""

    def __init__(self, folder: Path, platform: MachinePlatform) -> None:
        self._platform = platform
        self._host = WindowsHost(folder, platform)
        self._host.service_programs.update(backburner.SERVICE_PROGRAMS)
        self._host.service_programs.update(openvpn.SERVICE_PROGRAMS)

    @property
    def computer_name(self) -> str:
        """The NetBIOS name."""
        return self._host.computer_name

    @property
    def winrm_commands(self) -> int:
        """Commands that came over WinRM."""
        return self._host.winrm_commands

    def hang_renders(self) -> int:
        """Let the programs that render now hang; how many that are."""
        return self._host.processes.hang()

    async def power_on(self) -> None:
        """Boot. Windows forwards from then on if its registry says so (value ``IPEnableRouter``)."""
        await self._platform.forwarding(self._host.registry.data(_TCPIP_KEY, "IPEnableRouter", 0) == 1)
        await self._host.serve_control(SOCKETS / f"{self._platform.namespace}.sock")
        await self._host.power_on()

    async def booted(self) -> None:
        """Wait until what starts with the machine has done its first work."""
        await self._host.booted()

    async def power_off(self) -> None:
        """End everything; the disk is complete afterwards."""
        await self._host.power_off()


def make_host(folder: Path, platform: MachinePlatform) -> Host:
    """The operating system of every machine with a disk."""
    return WindowsMachine(folder, platform)


def stock_server(folder: Path) -> None:
    """The disk of the stock Windows Server image."""
    images.stock_server(folder)


def stock_workstation(folder: Path, *, address: IPv4Address, password: str) -> None:
    """The disk of the workstation, prepared for Ansible as its user would have done it; ``winrm.pem`` beside it."""
    images.stock_workstation(folder, address=address, password=password)
