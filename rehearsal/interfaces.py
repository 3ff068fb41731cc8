"""What the parts of the rehearsal promise each other.

The cloud knows instances as records, the hypervisor turns records into machines, a machine gives a Windows host its
wires, its power and its serial port.  Each side sees the other only through the types of this file.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal, Protocol

StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RehearsalError(Exception):
    """The rehearsal met something that it does not model, or that a real system would refuse.

    The text is for the user: what was asked, why it cannot be answered, what to do.
    """


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code and what it wrote."""

    rc: int
    stdout: bytes = b""
    stderr: bytes = b""


# ------------------------------------------------------------------------------------------------ cloud -> hypervisor


@dataclass(frozen=True)
class SecurityRule:
    """One ingress or egress permission: tcp, udp, icmp or -1 (all); ports are -1 when not applicable."""

    protocol: str
    from_port: int
    to_port: int
    networks: tuple[IPv4Network, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecurityGroupView:
    group_id: str
    ingress: tuple[SecurityRule, ...]
    egress: tuple[SecurityRule, ...]


@dataclass(frozen=True)
class InterfaceView:
    """An elastic network interface as EC2 knows it."""

    interface_id: str
    mac: str
    subnet_id: str
    vpc_id: str
    private_address: IPv4Address
    public_address: IPv4Address | None
    source_dest_check: bool
    group_ids: tuple[str, ...]
    instance_id: str | None


@dataclass(frozen=True)
class SubnetView:
    subnet_id: str
    vpc_id: str
    network: IPv4Network
    zone: str


@dataclass(frozen=True)
class RouteView:
    """One route of a route table. ``target`` is ``local``, ``igw-…``, ``eni-…`` or ``blackhole``."""

    network: IPv4Network
    target: str


@dataclass(frozen=True)
class VpcView:
    """A VPC with its subnets and, per subnet, the routes of the table that is associated with it."""

    vpc_id: str
    network: IPv4Network
    region: str
    subnets: tuple[SubnetView, ...]
    routes: Mapping[str, tuple[RouteView, ...]]


@dataclass(frozen=True)
class InstanceView:
    """An instance as EC2 knows it; ``state`` already follows the clock (pending, running, …)."""

    instance_id: str
    image_id: str
    instance_type: str
    region: str
    zone: str
    state: Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]
    lifecycle: Literal["spot", "on-demand"]
    launch_time: float
    boots: int  # how often it was started or rebooted through the API; a change means: boot again
    interface: InterfaceView
    tags: Mapping[str, str]
    user_data: bytes
    key_name: str | None
    metadata_enabled: bool
    metadata_token_required: bool
    metadata_tags: bool
    spot_action_time: float | None = None  # epoch seconds at which a spot instance will be taken away
    metadata_hop_limit: int = 1  # HttpPutResponseHopLimit: 1 keeps tokens on the machine itself


@dataclass(frozen=True)
class ImageView:
    image_id: str
    name: str
    region: str
    source_instance_id: str | None  # None: a stock image
    platform: str
    state: Literal["pending", "available", "failed"]


@dataclass(frozen=True)
class CloudView:
    """One consistent picture of everything that concerns machines."""

    instances: tuple[InstanceView, ...]
    images: tuple[ImageView, ...]
    vpcs: tuple[VpcView, ...]
    security_groups: Mapping[str, SecurityGroupView]


@dataclass
class CallRecord:
    """One API call as it was received."""

    time: float
    service: str
    action: str
    mutating: bool
    status: int
    error: str | None
    region: str
    agent: str


class CloudApi(Protocol):
    """The simulated region as the hypervisor uses it. Every method may be called from any thread."""

    calls: list[CallRecord]

    def view(self) -> CloudView: ...
    def on_change(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called (from any thread) after each mutating call and each passage of a state."""

    def console_write(self, instance_id: str, data: bytes) -> None:
        """Append to what GetConsoleOutput shows (the last 64 KiB are kept, as on EC2)."""

    def console(self, instance_id: str) -> bytes: ...
    def password_data(self, instance_id: str, password: str) -> None:
        """Encrypt ``password`` with the instance's key pair and show it by GetPasswordData."""

    def guest_power_off(self, instance_id: str) -> None:
        """The guest shut itself down: stop or terminate by InstanceInitiatedShutdownBehavior."""

    def image_ready(self, image_id: str, *, error: str | None = None) -> None:
        """The disk of the source was copied: the image turns available (or failed)."""


# ---------------------------------------------------------------------------------------------- hypervisor -> machine


@dataclass(frozen=True)
class Nic:
    """The network card of a machine: what a Windows host sees as its one Ethernet adapter."""

    name: str
    mac: str
    address: IPv4Address
    network: IPv4Network
    gateway: IPv4Address | None


class Platform(Protocol):
    """What a machine gives to the Windows host that runs on it: wires, processes, power, serial port."""

    name: str
    nic: Nic
    namespace: str

    async def listen(
        self, port: int, serve: StreamHandler, *, address: str = "0.0.0.0", tls: ssl.SSLContext | None = None
    ) -> asyncio.AbstractServer: ...
    async def connect(
        self, address: str, port: int, *, timeout: float = 10.0
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection from inside the machine. OSError and TimeoutError pass through."""

    async def spawn(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bytes = b"", timeout: float = 3600.0
    ) -> Outcome:
        """Run a real program inside the machine's network; it is killed with the machine or at the time limit."""

    async def daemon(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
    ) -> asyncio.subprocess.Process:
        """Start a real program inside the machine's network and return at once; it is killed with the machine."""

    async def ip(self, *arguments: str) -> Outcome:
        """``ip`` of iproute2 inside the machine's network (routes that a host sets are real routes)."""

    async def forwarding(self, enabled: bool) -> None:
        """Switch IPv4 forwarding of the machine on or off (Windows: ``IPEnableRouter``); it is off at each power-on."""

    async def firewall(self, ruleset: str) -> None:
        """Replace the nftables table ``inet host`` (the guest's own firewall) by ``ruleset``."""

    def serial(self, data: bytes) -> None:
        """Write to COM1: what EC2 shows as the console output."""

    def power(self, action: Literal["shutdown", "reboot"]) -> None:
        """The guest asks for this; it takes effect after the running command was answered."""

    def set_password(self, password: str) -> None:
        """EC2Launch hands the generated Administrator password to GetPasswordData."""

    @property
    def key_name(self) -> str | None: ...


class ServiceProgram(Protocol):
    """What runs while a Windows service is in state RUNNING. Cancelled when the service is stopped."""

    async def __call__(self, host: Any, service: str) -> None: ...


@dataclass
class Reply:
    """What a Windows host answers to one WinRM command."""

    rc: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass
class Request:
    """One decoded command that came over WinRM (see ``rehearsal/winrm/payload.py``)."""

    kind: Literal["module", "script", "put_file", "fetch_file", "mkdtemp", "expand_user", "powershell", "command"]
    module: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    internal: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    become: dict[str, Any] | None = None
    asynchronous: dict[str, Any] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    script: str = ""
    stdin: str = ""


class WinrmHost(Protocol):
    """What the WinRM server needs of a host."""

    name: str

    async def execute(self, request: Request) -> Reply: ...
    def winrm_users(self) -> Mapping[str, str]:
        """User name -> password of the accounts that may log on."""

    def winrm_basic_allowed(self) -> bool: ...
    def winrm_up(self) -> bool:
        """False while the host is rebooting or its WinRM service is stopped: connections are refused."""
