"""What can be chosen about the simulated region."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

PUBLIC_NETWORK = IPv4Network("198.18.20.0/24")


@dataclass(frozen=True)
class CloudSettings:
    """The simulated region. All times are seconds; real EC2 takes longer for each of them.

    ``capacity`` and ``spot_prices`` are keyed by (instance type, zone); what is missing is plentiful, respectively
    priced by :mod:`rehearsal.cloud.prices`. ``vcpu_quota`` is how many vCPUs may run, spot and on-demand each.
    ``images_complete_alone`` is for use without a hypervisor: an image turns
    available after ``image_seconds`` instead of waiting for :meth:`rehearsal.cloud.Cloud.image_ready`.
    """

    region: str = "eu-central-1"
    zones: tuple[str, ...] = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
    account: str = "123456789012"
    pending_seconds: float = 1.0
    stopping_seconds: float = 1.0
    image_seconds: float = 1.0
    images_complete_alone: bool = False
    terminated_visible_seconds: float = 3600.0
    capacity: Mapping[tuple[str, str], int] = field(default_factory=dict)
    spot_prices: Mapping[tuple[str, str], float] = field(default_factory=dict)
    public_network: IPv4Network = PUBLIC_NETWORK
    address_quota: int = 5
    vcpu_quota: float = 100_000.0
    call_log: Path | None = None
    seed: int | None = None
    clock: Callable[[], float] = time.time
