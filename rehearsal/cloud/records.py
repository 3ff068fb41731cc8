"""What the region remembers of machines, disks, images and addresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Literal

State = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]
Lifecycle = Literal["spot", "on-demand"]
Tags = dict[str, str]
Params = dict[str, Any]

# EC2 API Reference, InstanceState.
STATE_CODES: dict[State, int] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


@dataclass
class Interface:
    """An elastic network interface. ``automatic`` is the public address that EC2 lent it, not an Elastic IP."""

    id: str
    mac: str
    subnet_id: str
    vpc_id: str
    zone: str
    address: IPv4Address
    group_ids: list[str]
    description: str = ""
    source_dest_check: bool = True
    delete_on_termination: bool = False
    wants_public: bool = False
    automatic: IPv4Address | None = None
    instance_id: str | None = None
    device_index: int = 0
    attachment_id: str | None = None
    attach_time: float = 0.0


@dataclass
class Address:
    """An Elastic IP address."""

    id: str
    public: IPv4Address
    association_id: str | None = None
    interface_id: str | None = None


@dataclass
class Volume:
    id: str
    size: int
    kind: str
    zone: str
    create_time: float
    snapshot_id: str | None = None
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = False
    instance_id: str | None = None
    device: str = ""
    delete_on_termination: bool = False
    attach_time: float = 0.0


@dataclass
class Snapshot:
    id: str
    size: int
    volume_id: str
    start_time: float
    owner: str
    description: str = ""
    encrypted: bool = False
    state: Literal["pending", "completed", "error"] = "completed"
    image_id: str | None = None
    fast_launch_of: str | None = None


@dataclass(frozen=True)
class ImageDisk:
    """One entry of an image's block device mapping; sizes in GiB."""

    device: str
    snapshot_id: str
    size: int
    kind: str
    delete_on_termination: bool
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = False


@dataclass
class Image:
    id: str
    name: str
    owner: str
    create_time: float
    disks: list[ImageDisk]
    description: str = ""
    owner_alias: str | None = None
    public: bool = False
    platform: str = "windows"
    architecture: str = "x86_64"
    root_device: str = "/dev/sda1"
    source_instance_id: str | None = None
    source_image_id: str | None = None
    state: Literal["pending", "available", "failed"] = "available"
    reason: str = ""
    earliest: float = 0.0
    copied: bool = False
    failure: str | None = None


@dataclass
class Instance:
    """An instance. ``due`` is the epoch second at which ``state`` turns into ``then``."""

    id: str
    reservation_id: str
    image_id: str
    type: str
    zone: str
    launch_time: float
    state: State = "pending"
    due: float | None = None
    then: State | None = None
    lifecycle: Lifecycle = "on-demand"
    platform: str = "windows"
    architecture: str = "x86_64"
    root_device: str = "/dev/sda1"
    key_name: str | None = None
    public_key: bytes | None = None
    user_data: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    shutdown_behavior: str = "stop"
    ebs_optimized: bool = False
    monitoring: bool = False
    disable_api_termination: bool = False
    disable_api_stop: bool = False
    client_token: str = ""
    launch_index: int = 0
    spot_request_id: str | None = None
    fleet_id: str | None = None
    interfaces: dict[int, Interface] = field(default_factory=dict)
    primary: Interface | None = None
    volumes: dict[str, str] = field(default_factory=dict)
    boots: int = 0
    reason: str = ""
    reason_code: str = ""
    transition_reason: str = ""
    ended: float | None = None
    spot_action_time: float | None = None
    console: bytearray = field(default_factory=bytearray)
    console_time: float | None = None
    posted: bytes = b""
    posted_time: float | None = None
    password_data: str = ""
    password_time: float | None = None

    @property
    def alive(self) -> bool:
        """It holds capacity, disks and addresses."""
        return self.state not in ("shutting-down", "terminated")


@dataclass
class SpotRequest:
    id: str
    instance_id: str
    create_time: float
    type: str
    zone: str
    state: Literal["active", "closed", "cancelled"] = "active"
    status: str = "fulfilled"
    kind: str = "one-time"
    max_price: str | None = None
    interruption: str = "terminate"


@dataclass
class TemplateVersion:
    number: int
    data: Params
    create_time: float
    description: str = ""


@dataclass
class Template:
    id: str
    name: str
    create_time: float
    versions: dict[int, TemplateVersion]
    default: int = 1
    latest: int = 1


@dataclass
class Fleet:
    id: str
    create_time: float
    request: Params
    instances: list[Params]
    errors: list[Params]
    fulfilled: float
    fulfilled_on_demand: float
    state: str = "active"
    client_token: str = ""
