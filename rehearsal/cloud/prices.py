"""Invented prices: plausible in size and stable, of no use to decide anything on AWS.

A Windows spot price is the spot price of the machine plus the Windows licence per vCPU (which spot does not discount).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from moto.ec2.models.instance_types import INSTANCE_TYPES

LINUX_PER_CPU = 0.046
WINDOWS_PER_CPU = 0.046
PERIOD = 6 * 3600.0  # seconds between two changes of a spot price
PRODUCTS = {"Windows": WINDOWS_PER_CPU, "Windows (Amazon VPC)": WINDOWS_PER_CPU, "Linux/UNIX": 0.0}


def _fraction(*words: object) -> float:
    """A number in [0, 1) that only depends on the words."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def cpus(kind: str) -> int:
    return int(INSTANCE_TYPES[kind]["VCpuInfo"]["DefaultVCpus"])


def on_demand_price(kind: str) -> float:
    """USD per hour of a Windows instance."""
    generation = 1 + 0.1 * _fraction(kind)
    return round(cpus(kind) * (LINUX_PER_CPU * generation + WINDOWS_PER_CPU), 6)


def spot_price(kind: str, zone: str, moment: float, product: str = "Windows") -> float:
    """USD per hour at ``moment`` (epoch seconds): 35 to 60 percent of on-demand for the machine, plus the licence."""
    period = int(moment // PERIOD)
    share = 0.35 + 0.2 * _fraction(kind, zone) + 0.05 * _fraction(kind, zone, period)
    return round(cpus(kind) * (LINUX_PER_CPU * share + PRODUCTS[product]), 6)


def changes(start: float, end: float) -> Iterator[float]:
    """The moments at which prices changed, newest first, with the one that was in force at ``start``."""
    period = int(end // PERIOD)
    while True:
        moment = period * PERIOD
        yield moment
        if moment <= start:
            return
        period -= 1
