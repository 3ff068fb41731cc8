"""How many vCPUs of the standard families may run: the quotas that Service Quotas tells and launches are held to.

EC2 User Guide, "Amazon EC2 instance type quotas": they count the vCPUs of running instances, spot and on-demand apart.
"""

from __future__ import annotations

import re

from rehearsal.cloud import catalog
from rehearsal.cloud.errors import ApiError
from rehearsal.cloud.records import Lifecycle
from rehearsal.cloud.region import Region

QUOTAS: dict[Lifecycle, str] = {"spot": "L-34B43A08", "on-demand": "L-1216C47A"}
# A, C, D, H, I, M, R, T and Z; im4gn and is4gen belong to I. All other families have quotas of their own.
_STANDARD = re.compile(r"(?:[acdhimrtz]|im|is)\d")


def vcpus(kind: str) -> int:
    """What an instance of the type counts: nothing outside of the standard families, whose quotas are not modelled."""
    found = catalog.instance_type(kind)
    return int(found["VCpuInfo"]["DefaultVCpus"]) if found is not None and _STANDARD.match(kind) else 0


def fitting(kind: str, free: float, wanted: int) -> int:
    """How many of ``wanted`` instances of the type fit into ``free`` vCPUs."""
    each = vcpus(kind)
    return min(wanted, int(free // each)) if each else wanted


def free_vcpus(region: Region, lifecycle: Lifecycle) -> float:
    """What the quota leaves for further launches."""
    used = sum(
        vcpus(item.type)
        for item in region.instances.values()
        if item.lifecycle == lifecycle and item.state in ("pending", "running")
    )
    return max(0.0, region.vcpu_quotas[QUOTAS[lifecycle]] - used)


def exceeded(region: Region, lifecycle: Lifecycle) -> ApiError:
    """EC2 API Reference, "Error codes": MaxSpotInstanceCountExceeded, VcpuLimitExceeded."""
    if lifecycle == "spot":
        return ApiError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
    limit = region.vcpu_quotas[QUOTAS[lifecycle]]
    return ApiError(
        "VcpuLimitExceeded",
        f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the instance "
        "bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request "
        "to request an adjustment to this limit.",
    )
