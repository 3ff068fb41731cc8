"""DescribeSpotPriceHistory, from the invented prices."""

from __future__ import annotations

from datetime import UTC, datetime

from rehearsal.cloud import catalog
from rehearsal.cloud.actions import action
from rehearsal.cloud.errors import invalid
from rehearsal.cloud.filters import page, select
from rehearsal.cloud.prices import PRODUCTS, changes, spot_price
from rehearsal.cloud.records import Params
from rehearsal.cloud.region import Region

DAY = 86400.0
KEPT = 90 * DAY  # EC2 API Reference, DescribeSpotPriceHistory: up to 90 days


@action(
    "DescribeSpotPriceHistory",
    optional=(
        "InstanceTypes",
        "ProductDescriptions",
        "StartTime",
        "EndTime",
        "AvailabilityZone",
        "Filters",
        "MaxResults",
        "NextToken",
    ),
)
def describe_spot_price_history(region: Region, params: Params) -> Params:
    """Newest first per pool. With StartTime now it is one price per type, zone and product."""
    now = region.now()
    end = min(now, _seconds(params.get("EndTime"), now))
    start = max(now - KEPT, min(end, _seconds(params.get("StartTime"), now - DAY)))
    products = params.get("ProductDescriptions", list(PRODUCTS))
    for product in products:
        if product not in PRODUCTS:
            raise invalid(f"Invalid product description: {product}. Prices are known for {', '.join(PRODUCTS)}.")
    zones = [params["AvailabilityZone"]] if "AvailabilityZone" in params else region.settings.zones
    wanted = params.get("InstanceTypes")
    kinds = wanted or sorted({kind for kind, _ in catalog.offered(region.settings.region)})
    entries = [
        {
            "AvailabilityZone": zone,
            "InstanceType": kind,
            "ProductDescription": product,
            "SpotPrice": f"{_price(region, kind, zone, moment, product):.6f}",
            "Timestamp": moment,
        }
        for kind in kinds
        for zone in zones
        if (kind, zone) in catalog.offered(region.settings.region)
        for product in products
        for moment in changes(start, end)
    ]
    chosen = select(
        "DescribeSpotPriceHistory",
        entries,
        params.get("Filters", []),
        {
            "availability-zone": lambda item: (item["AvailabilityZone"],),
            "instance-type": lambda item: (item["InstanceType"],),
            "product-description": lambda item: (item["ProductDescription"],),
        },
        lambda item: {},
    )
    shown, token = page(chosen, params, smallest=1)
    return {"SpotPriceHistory": shown, "NextToken": token or ""}


def _price(region: Region, kind: str, zone: str, moment: float, product: str) -> float:
    known = region.settings.spot_prices.get((kind, zone))
    return known if known is not None else spot_price(kind, zone, moment, product)


def _seconds(moment: datetime | None, default: float) -> float:
    """The request parser gives naive times in UTC."""
    return default if moment is None else moment.replace(tzinfo=UTC).timestamp()
