# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What EC2 costs, in USD: what the Price List API says of instance types, and a small table for everything else.

The table has the list prices of us-east-1 as of November 2025 from the pages named; other Regions cost up to a quarter
more. It serves estimates before a launch and lists of what is left over, not an accounting.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

HOURS_PER_MONTH = 730.0

GP3_PER_GIB_MONTH = 0.08  # https://aws.amazon.com/ebs/pricing/
SNAPSHOT_PER_GIB_MONTH = 0.05  # the same page: of the blocks that changed
PUBLIC_IPV4_PER_HOUR = 0.005  # https://aws.amazon.com/vpc/pricing/, in use or idle
# License-included Windows, part of the on-demand and of the spot price (Windows on AWS FAQ, "How is Windows billed").
WINDOWS_PER_VCPU_HOUR = 0.046

# The Price List API is served in these Regions only (AWS Billing User Guide, "Using the AWS Price List Query API").
_PRICE_REGIONS: Mapping[str, str] = {"eu": "eu-central-1", "ap": "ap-south-1"}


def price_region(region: str) -> str:
    """The nearest Region whose endpoint answers for the prices of ``region``."""
    return _PRICE_REGIONS.get(region.partition("-")[0], "us-east-1")


def product_filters(instance_type: str, region: str) -> list[dict[str, str]]:
    """The filters of GetProducts that leave one product: Windows with its licence, shared hardware, on-demand."""
    wanted = {
        "instanceType": instance_type,
        "regionCode": region,
        "operatingSystem": "Windows",
        "preInstalledSw": "NA",
        "licenseModel": "No License required",
        "tenancy": "Shared",
        "capacitystatus": "Used",
    }
    return [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]


def on_demand_price(price_list: Iterable[str]) -> float | None:
    """USD per hour from the ``PriceList`` of GetProducts; None when it has no price. The dearest when it has several.

    Form of a product: AWS Billing User Guide, "Reading the service price list file for an AWS service".
    """
    found: list[float] = []
    for text in price_list:
        product: Mapping[str, Any] = json.loads(text)
        for term in product.get("terms", {}).get("OnDemand", {}).values():
            for dimension in term.get("priceDimensions", {}).values():
                price = dimension.get("pricePerUnit", {}).get("USD")
                if dimension.get("unit") == "Hrs" and price is not None and float(price) > 0:
                    found.append(float(price))
    return max(found, default=None)


def volume_per_hour(gib: float) -> float:
    """USD per hour of a gp3 volume with its free speed."""
    return gib * GP3_PER_GIB_MONTH / HOURS_PER_MONTH


def windows_share(vcpus: int) -> float:
    """USD per hour of an instance's price that are Windows' licence."""
    return vcpus * WINDOWS_PER_VCPU_HOUR
