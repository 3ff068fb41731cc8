"""EC2 Fleet of type instant: allocation over pools of types and zones, with what could not be had in ``Errors``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rehearsal.cloud import quotas
from rehearsal.cloud.actions import action, check_fields
from rehearsal.cloud.errors import ApiError, combination, invalid, missing, not_modelled, unknown
from rehearsal.cloud.filters import page, select
from rehearsal.cloud.launch import LaunchPlan, launch, merge, plan, room
from rehearsal.cloud.prices import on_demand_price, spot_price
from rehearsal.cloud.records import Fleet, Lifecycle, Params
from rehearsal.cloud.region import Region, tag_specifications
from rehearsal.cloud.states import terminate
from rehearsal.cloud.templates import find, version_of

OVERRIDE_FIELDS = {
    "InstanceType",
    "MaxPrice",
    "SubnetId",
    "AvailabilityZone",
    "WeightedCapacity",
    "Priority",
    "ImageId",
}
SPOT_FIELDS = {
    "AllocationStrategy",
    "InstanceInterruptionBehavior",
    "InstancePoolsToUseCount",
    "SingleInstanceType",
    "SingleAvailabilityZone",
    "MinTargetCapacity",
}
ON_DEMAND_FIELDS = {"AllocationStrategy", "SingleInstanceType", "SingleAvailabilityZone", "MinTargetCapacity"}
TARGET_FIELDS = {"TotalTargetCapacity", "OnDemandTargetCapacity", "SpotTargetCapacity", "DefaultTargetCapacityType"}
# EC2 API Reference, SpotOptionsRequest and OnDemandOptionsRequest.
STRATEGIES: dict[Lifecycle, set[str]] = {
    "spot": {
        "price-capacity-optimized",
        "capacity-optimized",
        "capacity-optimized-prioritized",
        "lowest-price",
        "diversified",
    },
    "on-demand": {"lowest-price", "prioritized"},
}
MOST_INSTANT = 10_000  # EC2 User Guide, "Quotas for EC2 Fleet": target capacity
PLENTY = 1_000_000
# How many of the cheapest deep pools price-capacity-optimized uses. Invented: AWS does not say.
SPREAD = 3
# Codes that launches report and that a fleet puts into Errors instead of failing as a whole.
CONFIGURATION_CODES = {"Unsupported", "InvalidParameterValue", "InvalidParameterCombination", "InvalidParameter"}


@dataclass
class Pool:
    """One override: an instance type in a subnet, with its launch checked."""

    reference: Params
    override: Params
    lifecycle: Lifecycle
    position: int
    plan: LaunchPlan | None = None
    error: ApiError | None = None
    price: float = 0.0
    depth: int = 0
    launched: list[str] = field(default_factory=list)

    @property
    def weight(self) -> float:
        return float(self.override.get("WeightedCapacity", 1))

    @property
    def priority(self) -> float:
        """Lower is first; an override without a priority comes last."""
        return float(self.override.get("Priority", PLENTY))

    @property
    def unit_price(self) -> float:
        return self.price / self.weight

    def shown(self) -> Params:
        overrides = dict(self.override)
        if self.plan is not None:
            overrides = {"InstanceType": self.plan.kind, "AvailabilityZone": self.plan.zone, **overrides}
        return {"LaunchTemplateSpecification": self.reference, "Overrides": overrides}


# --------------------------------------------------------------------------------------------------------------- pools


def pools(region: Region, configs: Iterable[Params], lifecycle: Lifecycle, tags: Sequence[Params]) -> list[Pool]:
    """Every override of every configuration as a pool of ``lifecycle``."""
    result: list[Pool] = []
    for config in configs:
        specification = config.get("LaunchTemplateSpecification", {})
        check_fields(
            "LaunchTemplateSpecification", specification, {"LaunchTemplateId", "LaunchTemplateName", "Version"}
        )
        template = find(region, specification)
        version = version_of(template, specification.get("Version"))
        reference = {"LaunchTemplateId": template.id, "Version": str(version.number)}
        for override in config.get("Overrides") or [{}]:
            check_fields("LaunchTemplateConfigs.Overrides", override, OVERRIDE_FIELDS)
            pool = Pool(reference, override, lifecycle, len(result))
            _prepare(region, pool, tags)
            result.append(pool)
    _refuse_doubles(result)
    return result


def _prepare(region: Region, pool: Pool, tags: Sequence[Params]) -> None:
    """Check the launch of a pool; what is wrong with it becomes an entry of Errors."""
    request: Params = {
        "LaunchTemplate": pool.reference,
        "TagSpecifications": [entry for entry in tags if entry["ResourceType"] != "fleet"],
    }
    for name in ("InstanceType", "ImageId"):
        if name in pool.override:
            request[name] = pool.override[name]
    data, template = merge(region, request)
    data.pop("InstanceMarketOptions", None)
    if pool.lifecycle == "spot":
        data["InstanceMarketOptions"] = {"MarketType": "spot"}
    if "SubnetId" in pool.override:
        data = _in_subnet(data, pool.override["SubnetId"])
    if "AvailabilityZone" in pool.override:
        data["Placement"] = {**data.get("Placement", {}), "AvailabilityZone": pool.override["AvailabilityZone"]}
    try:
        pool.plan = plan(region, data, template)
    except ApiError as error:
        if error.code == "RehearsalNotImplemented":
            raise
        code = "InvalidFleetConfiguration" if error.code in CONFIGURATION_CODES else error.code
        pool.error = ApiError(code, error.message, error.status)
        return
    moment = region.now()
    if pool.lifecycle == "spot":
        known = region.settings.spot_prices.get((pool.plan.kind, pool.plan.zone))
        pool.price = known if known is not None else spot_price(pool.plan.kind, pool.plan.zone, moment)
        if "MaxPrice" in pool.override and float(pool.override["MaxPrice"]) < pool.price:
            pool.error = ApiError(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {pool.override['MaxPrice']} is lower than the minimum required Spot "
                f"request fulfillment price of {pool.price}.",
            )
    else:
        pool.price = on_demand_price(pool.plan.kind)
    free = region.free_capacity(pool.plan.kind, pool.plan.zone, pool.lifecycle)
    pool.depth = PLENTY if free is None else free


def _in_subnet(data: Params, subnet_id: str) -> Params:
    """The override's subnet goes into the primary interface of the template, if it has one."""
    nics = data.get("NetworkInterfaces")
    if not nics:
        return {**data, "SubnetId": subnet_id}
    return {
        **data,
        "NetworkInterfaces": [
            {**nic, "SubnetId": subnet_id} if nic.get("DeviceIndex", 0) == 0 else nic for nic in nics
        ],
    }


def _refuse_doubles(found: Sequence[Pool]) -> None:
    seen: set[tuple[str, str]] = set()
    subnets: dict[str, str] = {}
    for pool in found:
        if pool.plan is None:
            continue
        key = (pool.plan.kind, pool.plan.subnet.id)
        if key in seen:
            raise invalid(f"The fleet configuration contains duplicate instance pools: {key[0]} in {key[1]}")
        seen.add(key)
        # EC2 User Guide, "Tutorials for EC2 Fleet": one subnet per Availability Zone.
        if subnets.setdefault(pool.plan.zone, pool.plan.subnet.id) != pool.plan.subnet.id:
            raise invalid(
                f"The fleet names two subnets in {pool.plan.zone}: {subnets[pool.plan.zone]} and {pool.plan.subnet.id}"
            )


# ---------------------------------------------------------------------------------------------------------- allocation


def ordered(found: Sequence[Pool], strategy: str) -> list[Pool]:
    """The pools in the order in which the strategy fills them."""
    usable = [pool for pool in found if pool.error is None]
    if strategy == "lowest-price":
        return sorted(usable, key=lambda pool: (pool.unit_price, pool.position))
    if strategy == "capacity-optimized":
        return sorted(usable, key=lambda pool: (-pool.depth, pool.position))
    if strategy == "capacity-optimized-prioritized":
        return sorted(usable, key=lambda pool: (-pool.depth, pool.priority, pool.position))
    if strategy == "prioritized":
        return sorted(usable, key=lambda pool: (pool.priority, pool.position))
    if strategy == "price-capacity-optimized":
        deepest = max((pool.depth for pool in usable), default=0)
        return sorted(usable, key=lambda pool: (pool.depth * 2 < deepest, pool.unit_price, pool.position))
    return list(usable)


def shares(order: Sequence[Pool], strategy: str, target: float) -> list[tuple[Pool, float]]:
    """How much of the target each pool is asked for at first."""
    if strategy == "diversified":
        width = len(order)
    elif strategy == "price-capacity-optimized":
        width = min(SPREAD, len(order))
    else:
        width = min(1, len(order))
    return [(pool, target / width) for pool in order[:width]]


def counts(order: Sequence[Pool], strategy: str, target: float, fits: dict[int, int]) -> dict[int, int]:
    """How many instances to launch in which pool (by position). Weights round up: the last one may overshoot.

    ``fits`` says how many each pool holds and is counted down; what a pool cannot give goes to the next in order.
    """
    result: dict[int, int] = {}
    missing_units = target

    def take(pool: Pool, units: float) -> None:
        nonlocal missing_units
        while units > 0 and missing_units > 0 and fits[pool.position] > 0:
            fits[pool.position] -= 1
            result[pool.position] = result.get(pool.position, 0) + 1
            units -= pool.weight
            missing_units -= pool.weight

    for pool, share in shares(order, strategy, target):
        take(pool, share)
    for pool in order:
        take(pool, missing_units)
    return result


def allocate(
    region: Region, found: Sequence[Pool], options: Params, lifecycle: Lifecycle, target: float
) -> tuple[list[tuple[Pool, int]], list[tuple[Pool, ApiError]]]:
    """Decide what to launch, and say which pools could not give what was asked of them."""
    strategy = options.get("AllocationStrategy", "lowest-price")
    if strategy not in STRATEGIES[lifecycle]:
        raise invalid(f"Invalid allocation strategy '{strategy}' for {lifecycle}: one of {STRATEGIES[lifecycle]}")
    order = ordered(found, strategy)
    best: dict[int, int] = {}
    gained = -1.0
    for group in _groups(order, options):
        fits = _fits(region, group, target)
        chosen = counts(group, strategy, target, fits)
        units = sum(order_pool.weight * chosen.get(order_pool.position, 0) for order_pool in group)
        if units > gained:
            best, gained = chosen, units
        if units >= target:
            break
    if gained < options.get("MinTargetCapacity", 0):
        best, gained = {}, 0.0
    errors = [(pool, pool.error) for pool in found if pool.error is not None]
    if gained < target:
        errors += _reasons(region, order, best, lifecycle)
    return [(pool, best[pool.position]) for pool in order if pool.position in best], errors


def _reasons(
    region: Region, order: Sequence[Pool], best: Mapping[int, int], lifecycle: Lifecycle
) -> list[tuple[Pool, ApiError]]:
    """Why each pool gives no more than ``best``, when that is not enough."""
    taken = sum(quotas.vcpus(pool.plan.kind) * best.get(pool.position, 0) for pool in order if pool.plan is not None)
    vcpus = quotas.free_vcpus(region, lifecycle) - taken
    errors = []
    for pool in order:
        assert pool.plan is not None
        fitting, error = room(region, pool.plan, PLENTY)
        if not best or fitting <= best.get(pool.position, 0):
            errors.append((pool, error))
        elif not quotas.fitting(pool.plan.kind, vcpus, 1):
            errors.append((pool, quotas.exceeded(region, lifecycle)))
    return errors


def _groups(order: Sequence[Pool], options: Params) -> list[list[Pool]]:
    """With SingleInstanceType or SingleAvailabilityZone the pools of each type or zone, else all in one group."""
    groups: dict[tuple[str, str], list[Pool]] = {}
    for pool in order:
        assert pool.plan is not None
        kind = pool.plan.kind if options.get("SingleInstanceType") else ""
        zone = pool.plan.zone if options.get("SingleAvailabilityZone") else ""
        groups.setdefault((kind, zone), []).append(pool)
    return list(groups.values())


def _fits(region: Region, group: Sequence[Pool], target: float) -> dict[int, int]:
    """How many instances each pool holds, without promising the addresses of one subnet or the quota twice."""
    left: dict[str, int] = {}
    vcpus = quotas.free_vcpus(region, group[0].lifecycle) if group else 0.0
    result = {}
    for pool in group:
        assert pool.plan is not None
        subnet = pool.plan.subnet
        free = left.setdefault(subnet.id, region.free_addresses(subnet))
        fitting, _ = room(region, pool.plan, PLENTY)
        holds = quotas.fitting(pool.plan.kind, vcpus, min(fitting, free))
        result[pool.position] = holds
        left[subnet.id] = free - min(holds, int(target))
        vcpus -= quotas.vcpus(pool.plan.kind) * min(holds, int(target))
    return result


# ------------------------------------------------------------------------------------------------------------- actions


def _targets(specification: Params) -> dict[Lifecycle, float]:
    """Units per lifecycle: the two fixed parts, and the rest to the default type."""
    check_fields("TargetCapacitySpecification", specification, TARGET_FIELDS)
    if "TotalTargetCapacity" not in specification:
        raise missing("TargetCapacitySpecification.TotalTargetCapacity")
    total = specification["TotalTargetCapacity"]
    if not 0 <= total <= MOST_INSTANT:
        raise invalid(f"TotalTargetCapacity {total} is not between 0 and {MOST_INSTANT}")
    demand, spot = specification.get("OnDemandTargetCapacity", 0), specification.get("SpotTargetCapacity", 0)
    rest = total - demand - spot
    if rest < 0:
        raise invalid("OnDemandTargetCapacity and SpotTargetCapacity are more than TotalTargetCapacity")
    kind = specification.get("DefaultTargetCapacityType", "on-demand")
    if kind not in ("spot", "on-demand"):
        raise not_modelled(f"DefaultTargetCapacityType {kind}")
    result: dict[Lifecycle, float] = {"on-demand": demand, "spot": spot}
    result["spot" if kind == "spot" else "on-demand"] += rest
    return result


def _check_options(name: str, options: Params, known: set[str]) -> None:
    check_fields(name, options, known)
    if options.get("InstanceInterruptionBehavior", "terminate") != "terminate":
        raise not_modelled("spot instances that are stopped or hibernated by EC2")
    if "MinTargetCapacity" in options and not (
        options.get("SingleInstanceType") or options.get("SingleAvailabilityZone")
    ):
        raise combination(f"{name}.MinTargetCapacity needs SingleAvailabilityZone or SingleInstanceType")


@action(
    "CreateFleet",
    "LaunchTemplateConfigs",
    "TargetCapacitySpecification",
    optional=(
        "SpotOptions",
        "OnDemandOptions",
        "Type",
        "TagSpecifications",
        "ClientToken",
        "TerminateInstancesWithExpiration",
    ),
)
def create_fleet(region: Region, params: Params) -> Params:
    """One attempt, answered at once: instances and errors."""
    if params.get("Type", "maintain") != "instant":
        raise not_modelled(f"fleets of type {params.get('Type', 'maintain')}: use Type=instant")
    known = region.remembered("CreateFleet", params)
    if known is None:
        known = _create(region, params)
        region.remember("CreateFleet", params, known)
    fleet = region.fleets[known]
    return {"FleetId": fleet.id, "Instances": fleet.instances, "Errors": fleet.errors}


def _create(region: Region, params: Params) -> str:
    options: dict[Lifecycle, Params] = {
        "on-demand": params.get("OnDemandOptions", {}),
        "spot": params.get("SpotOptions", {}),
    }
    _check_options("SpotOptions", options["spot"], SPOT_FIELDS)
    _check_options("OnDemandOptions", options["on-demand"], ON_DEMAND_FIELDS)
    specifications = params.get("TagSpecifications", [])
    tags = tag_specifications(specifications, {"fleet", "instance", "volume", "network-interface"})
    fleet = Fleet(
        f"fleet-{_uuid(region)}", region.now(), params, [], [], 0.0, 0.0, client_token=params.get("ClientToken", "")
    )
    order: tuple[Lifecycle, ...] = ("on-demand", "spot")
    for lifecycle in order:
        target = _targets(params["TargetCapacitySpecification"])[lifecycle]
        if target <= 0:
            continue
        found = pools(region, params["LaunchTemplateConfigs"], lifecycle, specifications)
        chosen, errors = allocate(region, found, options[lifecycle], lifecycle, target)
        fleet.errors += [_error(pool, error) for pool, error in errors]
        for pool, count in chosen:
            units = _launch(region, fleet, pool, count)
            fleet.fulfilled += units
            fleet.fulfilled_on_demand += units if lifecycle == "on-demand" else 0
    region.fleets[fleet.id] = fleet
    region.tag(fleet.id, tags.get("fleet", {}))
    return fleet.id


def _uuid(region: Region) -> str:
    text = f"{region.random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _launch(region: Region, fleet: Fleet, pool: Pool, count: int) -> float:
    """Each instance of a fleet is a reservation of its own."""
    assert pool.plan is not None
    made = [launch(region, pool.plan, 1, fleet_id=fleet.id)[0] for _ in range(count)]
    fleet.instances.append(
        {
            "LaunchTemplateAndOverrides": pool.shown(),
            "Lifecycle": pool.lifecycle,
            "InstanceIds": [item.id for item in made],
            "InstanceType": pool.plan.kind,
            "Platform": "Windows",
        }
    )
    return pool.weight * count


def _error(pool: Pool, error: ApiError) -> Params:
    return {
        "LaunchTemplateAndOverrides": pool.shown(),
        "Lifecycle": pool.lifecycle,
        "ErrorCode": error.code,
        "ErrorMessage": error.message,
    }


def _describe(region: Region, fleet: Fleet) -> Params:
    request = fleet.request
    return {
        "FleetId": fleet.id,
        "FleetState": fleet.state,
        "ActivityStatus": "fulfilled" if not fleet.errors else "error",
        "CreateTime": fleet.create_time,
        "ClientToken": fleet.client_token,
        "FulfilledCapacity": fleet.fulfilled,
        "FulfilledOnDemandCapacity": fleet.fulfilled_on_demand,
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": config.get("LaunchTemplateSpecification", {}),
                "Overrides": config.get("Overrides", []),
            }
            for config in request["LaunchTemplateConfigs"]
        ],
        "TargetCapacitySpecification": {
            "DefaultTargetCapacityType": "on-demand",
            "OnDemandTargetCapacity": 0,
            "SpotTargetCapacity": 0,
            **request["TargetCapacitySpecification"],
        },
        "TerminateInstancesWithExpiration": request.get("TerminateInstancesWithExpiration", False),
        "Type": "instant",
        "SpotOptions": request.get("SpotOptions"),
        "OnDemandOptions": request.get("OnDemandOptions"),
        "Tags": region.tag_list(fleet.id),
        "Errors": fleet.errors,
        "Instances": fleet.instances,
    }


@action("DescribeFleets", optional=("FleetIds", "Filters", "MaxResults", "NextToken"))
def describe_fleets(region: Region, params: Params) -> Params:
    """An instant fleet is shown only to who names its id (EC2 API Reference, DescribeFleets)."""
    wanted = params.get("FleetIds", [])
    absent = [name for name in wanted if name not in region.fleets]
    if absent:
        raise unknown("fleet", *absent)
    chosen = select(
        "DescribeFleets",
        [region.fleets[name] for name in wanted],
        params.get("Filters", []),
        {
            "fleet-state": lambda item: (item.state.replace("_", "-"),),
            "type": lambda item: ("instant",),
        },
        lambda item: region.tags(item.id),
    )
    shown, token = page(chosen, params, smallest=1)
    return {"Fleets": [_describe(region, item) for item in shown], "NextToken": token}


@action("DeleteFleets", "FleetIds", "TerminateInstances")
def delete_fleets(region: Region, params: Params) -> Params:
    """An instant fleet goes with its instances (EC2 API Reference, DeleteFleets)."""
    if not params["TerminateInstances"]:
        raise ApiError(
            "NoTerminateInstancesNotSupported", "NoTerminateInstances option is not supported for instant fleet"
        )
    deleted: list[Params] = []
    failed: list[Params] = []
    for name in params["FleetIds"]:
        fleet = region.fleets.get(name)
        if fleet is None:
            error = {"Code": "fleetIdDoesNotExist", "Message": f"The fleet ID '{name}' does not exist"}
            failed.append({"FleetId": name, "Error": error})
            continue
        previous, fleet.state = fleet.state, "deleted_terminating"
        for entry in fleet.instances:
            for instance_id in entry["InstanceIds"]:
                if instance_id in region.instances:
                    terminate(region, region.instances[instance_id])
        deleted.append({"FleetId": name, "CurrentFleetState": fleet.state, "PreviousFleetState": previous})
    return {"SuccessfulFleetDeletions": deleted, "UnsuccessfulFleetDeletions": failed}


@action("DescribeFleetInstances", "FleetId", optional=("MaxResults", "NextToken"))
def describe_fleet_instances(region: Region, params: Params) -> Params:
    """EC2 User Guide, "Instant fleets": not supported for them."""
    raise ApiError(
        "InvalidParameterValue",
        f"DescribeFleetInstances is not supported for the instant fleet {params['FleetId']}: use DescribeFleets.",
    )
