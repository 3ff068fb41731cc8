"""What AWS offers in the region: stock images, their SSM parameters, instance types and where they run."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from rehearsal.cloud.records import Image, ImageDisk, Snapshot

AMAZON = "801119661308"  # the account that publishes Windows images
STOCK = {
    # SSM parameter below /aws/service/ami-windows-latest/ -> date of the image
    "Windows_Server-2022-English-Full-Base": "2026.10.14",
}
ROOT_SIZE = 30
SSM_PREFIX = "/aws/service/ami-windows-latest/"


def _number(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:17]


def stock_id(name: str, region: str) -> str:
    return f"ami-{_number('image', region, name)}"


def stock_images(region: str) -> list[tuple[Image, Snapshot]]:
    """Amazon's images with their snapshots, as DescribeImages shows them to everybody."""
    result = []
    for family, date in STOCK.items():
        made = datetime.strptime(date, "%Y.%m.%d").replace(tzinfo=UTC).timestamp()
        snapshot = Snapshot(f"snap-{_number('snapshot', region, family)}", ROOT_SIZE, "vol-ffffffff", made, AMAZON)
        image = Image(
            id=stock_id(family, region),
            name=f"{family}-{date}",
            owner=AMAZON,
            owner_alias="amazon",
            public=True,
            create_time=made,
            description="Microsoft Windows Server 2022 Full Locale English AMI provided by Amazon",
            disks=[ImageDisk("/dev/sda1", snapshot.id, ROOT_SIZE, "gp3", True, iops=3000, throughput=125)],
        )
        snapshot.image_id = image.id
        result.append((image, snapshot))
    return result


def parameters(region: str) -> dict[str, str]:
    """The public SSM parameters: name -> image id."""
    return {f"{SSM_PREFIX}{family}": stock_id(family, region) for family in STOCK}


@cache
def offered(region: str) -> frozenset[tuple[str, str]]:
    """(instance type, zone) of everything that can be launched, by moto's copy of DescribeInstanceTypeOfferings."""
    return frozenset(
        (entry["InstanceType"], entry["Location"]) for entry in INSTANCE_TYPE_OFFERINGS["availability-zone"][region]
    )


def instance_type(name: str) -> dict[str, Any] | None:
    """The type as DescribeInstanceTypes shows it, or None."""
    found: dict[str, Any] | None = INSTANCE_TYPES.get(name)
    return found
