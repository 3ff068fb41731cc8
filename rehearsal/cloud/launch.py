"""Launching: what a request and its template ask for together, and how instances come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rehearsal.cloud import catalog, quotas
from rehearsal.cloud.actions import action, check_fields
from rehearsal.cloud.disks import create_volumes
from rehearsal.cloud.eni import attach, check_attachable, create_interface, primary_address
from rehearsal.cloud.errors import ApiError, combination, invalid, not_modelled
from rehearsal.cloud.images import image as find_image
from rehearsal.cloud.images import resolve_disks
from rehearsal.cloud.instances import describe_instance
from rehearsal.cloud.records import Image, ImageDisk, Instance, Interface, Lifecycle, Params, SpotRequest, Tags
from rehearsal.cloud.region import Region, tag_specifications
from rehearsal.cloud.states import power_on
from rehearsal.cloud.templates import DATA_FIELDS, TAGGABLE, check_user_data, find, version_of

METADATA_FIELDS = {"HttpTokens", "HttpPutResponseHopLimit", "HttpEndpoint", "HttpProtocolIpv6", "InstanceMetadataTags"}
# EC2 API Reference, InstanceMetadataOptionsRequest: what holds when nothing is said.
METADATA_DEFAULTS = {
    "State": "applied",
    "HttpTokens": "optional",
    "HttpPutResponseHopLimit": 1,
    "HttpEndpoint": "enabled",
    "HttpProtocolIpv6": "disabled",
    "InstanceMetadataTags": "disabled",
}
NIC_FIELDS = {
    "AssociatePublicIpAddress",
    "DeleteOnTermination",
    "Description",
    "DeviceIndex",
    "Groups",
    "InterfaceType",
    "NetworkCardIndex",
    "NetworkInterfaceId",
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "SubnetId",
}
NIC_DEFAULTS = {"InterfaceType": "interface", "NetworkCardIndex": 0}
SPOT_FIELDS = {"MaxPrice", "SpotInstanceType", "InstanceInterruptionBehavior"}
REQUEST_FIELDS = ("SubnetId", "SecurityGroups", "PrivateIpAddress")  # in a request, not in a template
PLACEMENT_FIELDS = {"AvailabilityZone", "Tenancy", "GroupName"}


@dataclass
class LaunchPlan:
    """Everything about a launch, checked; the same for each of its instances."""

    image: Image
    kind: str
    subnet: Any
    groups: list[str]
    nics: list[Params]
    disks: list[ImageDisk]
    tags: dict[str, Tags]
    data: Params
    lifecycle: Lifecycle = "on-demand"
    spot: Params = field(default_factory=dict)
    template: tuple[str, int] | None = None
    address: str | None = None

    @property
    def zone(self) -> str:
        return str(self.subnet.availability_zone)


def merge(region: Region, params: Params) -> tuple[Params, tuple[str, int] | None]:
    """The request with what its launch template adds.

    A parameter of the request replaces the template's (EC2 User Guide, "Launch from a launch template"); tags are
    united per resource type, block devices per device name. Returns the template's id and version, too.
    """
    reference = params.get("LaunchTemplate")
    own = {name: value for name, value in params.items() if name in DATA_FIELDS or name in REQUEST_FIELDS}
    if not reference:
        return own, None
    template = find(region, reference)
    version = version_of(template, reference.get("Version"))
    data = {**version.data, **own}
    specifications = [*version.data.get("TagSpecifications", []), *own.get("TagSpecifications", [])]
    if specifications:
        data["TagSpecifications"] = specifications
    disks = {item["DeviceName"]: item for item in version.data.get("BlockDeviceMappings", [])}
    disks |= {item["DeviceName"]: item for item in own.get("BlockDeviceMappings", [])}
    if disks:
        data["BlockDeviceMappings"] = list(disks.values())
    return data, (template.id, version.number)


def plan(region: Region, data: Params, template: tuple[str, int] | None) -> LaunchPlan:
    """Check a launch without changing anything. ApiError: what EC2 would refuse."""
    if data.get("SecurityGroups"):
        raise not_modelled("security groups by name in a launch (there is no default VPC): use their ids")
    if not data.get("ImageId"):
        raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
    image = find_image(region, _resolve(region, data["ImageId"]))
    if image.state != "available":
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available. It is {image.state}.")
    kind = data.get("InstanceType", "")
    _check_type(kind, image)
    _check_key(region, data.get("KeyName"))
    check_user_data(data.get("UserData"))
    check_fields("MetadataOptions", data.get("MetadataOptions", {}), METADATA_FIELDS)
    subnet, nics = _network(region, data)
    _check_placement(data.get("Placement", {}), subnet.availability_zone)
    if (kind, subnet.availability_zone) not in catalog.offered(region.settings.region):
        raise ApiError(
            "Unsupported",
            f"Your requested instance type ({kind}) is not supported in your requested Availability Zone "
            f"({subnet.availability_zone}).",
        )
    lifecycle, spot = _market(data.get("InstanceMarketOptions"))
    groups = data.get("SecurityGroupIds", [])
    return LaunchPlan(
        image=image,
        kind=kind,
        subnet=subnet,
        groups=region.security_groups(groups, subnet.vpc_id) if groups else [],
        nics=nics,
        disks=resolve_disks(region, image.disks, data.get("BlockDeviceMappings", [])),
        tags=tag_specifications(data.get("TagSpecifications", []), TAGGABLE),
        data=data,
        lifecycle=lifecycle,
        spot=spot,
        template=template,
        address=data.get("PrivateIpAddress"),
    )


def _resolve(region: Region, image: str) -> str:
    """``resolve:ssm:NAME`` is the image id that the parameter holds (EC2 API Reference, RunInstances, ImageId)."""
    prefix, found, name = image.partition("resolve:ssm:")
    if prefix or not found:
        return image
    known = catalog.parameters(region.settings.region)
    if name not in known:
        raise invalid(f"The parameter {name} of {image} does not exist")
    return known[name]


def _check_type(kind: str, image: Image) -> None:
    found = catalog.instance_type(kind)
    if found is None:
        raise invalid(f"Invalid value '{kind}' for InstanceType.")
    supported = found["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in supported:
        raise invalid(
            f"The architecture '{', '.join(supported)}' of the specified instance type does not match the architecture "
            f"'{image.architecture}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again."
        )


def _check_key(region: Region, name: str | None) -> None:
    if name is None:
        return
    pair = region.network.key_pairs.get(name)
    if pair is None:
        raise ApiError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    if pair.key_type != "rsa":
        # EC2 User Guide, "Amazon EC2 key pairs": ED25519 keys are not supported for Windows instances.
        raise combination("ED25519 key pairs are not supported with Windows AMIs. Use an RSA key pair.")


def _check_placement(placement: Params, zone: str) -> None:
    check_fields("Placement", placement, PLACEMENT_FIELDS)
    if placement.get("GroupName") or placement.get("Tenancy", "default") != "default":
        raise not_modelled("placement groups and tenancies")
    if placement.get("AvailabilityZone", zone) != zone:
        raise invalid(f"Availability zone {placement['AvailabilityZone']} and the subnet's {zone} do not match")


def _market(options: Params | None) -> tuple[Lifecycle, Params]:
    if not options:
        return "on-demand", {}
    if options.get("MarketType") != "spot":
        raise not_modelled(f"the market type {options.get('MarketType')}")
    spot = options.get("SpotOptions", {})
    check_fields("InstanceMarketOptions.SpotOptions", spot, SPOT_FIELDS)
    if spot.get("InstanceInterruptionBehavior", "terminate") != "terminate":
        raise not_modelled("spot instances that are stopped or hibernated by EC2")
    return "spot", spot


def _network(region: Region, data: Params) -> tuple[Any, list[Params]]:
    """The subnet of the primary interface, and the interface specifications."""
    nics = data.get("NetworkInterfaces", [])
    for nic in nics:
        check_fields("NetworkInterface", nic, NIC_FIELDS)
        for name, value in NIC_DEFAULTS.items():
            if nic.get(name, value) != value:
                raise not_modelled(f"NetworkInterface.{name} {nic[name]}")
    if not nics:
        if not data.get("SubnetId"):
            raise ApiError(
                "MissingInput", "No subnets found for the default VPC: this account has none. Please specify a subnet."
            )
        return region.subnet(data["SubnetId"]), []
    for name, noun in (("SubnetId", "subnet ID"), ("SecurityGroupIds", "security groups")):
        if data.get(name):
            raise combination(
                f"Network interfaces and an instance-level {noun} may not be specified on the same request"
            )
    if data.get("PrivateIpAddress"):
        raise combination("Network interfaces and an instance-level private address may not be specified together")
    primary = next((nic for nic in nics if nic.get("DeviceIndex", 0) == 0), None)
    if primary is None:
        raise invalid("The request must contain a network interface with device index 0")
    if primary.get("NetworkInterfaceId"):
        return region.subnet(region.interface(primary["NetworkInterfaceId"]).subnet_id), nics
    if not primary.get("SubnetId"):
        raise ApiError("MissingInput", "No subnets found for the default VPC: this account has none. Specify SubnetId.")
    return region.subnet(primary["SubnetId"]), nics


def no_capacity(plan: LaunchPlan) -> ApiError:
    """HTTP 500, as EC2 answers it (EC2 User Guide, "Insufficient instance capacity")."""
    if plan.lifecycle == "spot":
        text = "There is no Spot capacity available that matches your request."
    else:
        text = (
            f"We currently do not have sufficient {plan.kind} capacity in the Availability Zone you requested "
            f"({plan.zone}). Our system will be working on provisioning additional capacity."
        )
    return ApiError("InsufficientInstanceCapacity", text, 500)


def room(region: Region, plan: LaunchPlan, wanted: int) -> tuple[int, ApiError]:
    """How many of ``wanted`` can be launched, and why not more."""
    free = region.free_capacity(plan.kind, plan.zone, plan.lifecycle)
    fits = wanted if free is None else min(wanted, free)
    error = no_capacity(plan)
    if not any(nic.get("NetworkInterfaceId") for nic in plan.nics):
        addresses = region.free_addresses(plan.subnet)
        if addresses < fits:
            fits = addresses
            error = ApiError(
                "InsufficientFreeAddressesInSubnet",
                f"There are not enough free addresses in subnet '{plan.subnet.id}' to satisfy the requested number "
                "of instances.",
            )
    allowed = quotas.fitting(plan.kind, quotas.free_vcpus(region, plan.lifecycle), fits)
    if allowed < fits:
        fits, error = allowed, quotas.exceeded(region, plan.lifecycle)
    if _lends_public(plan) and region.free_public_addresses() < fits:
        fits, error = region.free_public_addresses(), region.no_public_address()
    return fits, error


def _lends_public(plan: LaunchPlan) -> bool:
    lends = bool(plan.subnet.map_public_ip_on_launch)
    return any(nic.get("AssociatePublicIpAddress", lends) for nic in plan.nics) if plan.nics else lends


def launch(
    region: Region, plan: LaunchPlan, count: int, *, client_token: str = "", fleet_id: str | None = None
) -> list[Instance]:
    """Launch ``count`` instances as one reservation; the caller has checked the room for them."""
    if count > 1 and (plan.address or any(_single(nic) for nic in plan.nics)):
        raise combination("A private address or a network interface can be given to one instance only")
    for nic in plan.nics:
        if nic.get("NetworkInterfaceId"):
            check_attachable(region.interface(nic["NetworkInterfaceId"]), plan.zone)
    reservation = region.new_id("r")
    made = []
    for index in range(count):
        instance = _instance(region, plan, reservation, index)
        instance.client_token, instance.fleet_id = client_token, fleet_id
        interfaces = _interfaces(region, plan)
        for device, interface in interfaces:
            attach(region, interface, instance, device)
        region.instances[instance.id] = instance
        _tag_all(region, plan, instance, create_volumes(region, instance, plan.disks), fleet_id)
        power_on(region, instance)
        made.append(instance)
    return made


def _single(nic: Params) -> bool:
    return bool(nic.get("NetworkInterfaceId") or primary_address(nic))


def _instance(region: Region, plan: LaunchPlan, reservation: str, index: int) -> Instance:
    data = plan.data
    key = region.network.key_pairs.get(data.get("KeyName"))
    return Instance(
        id=region.new_id("i"),
        reservation_id=reservation,
        image_id=plan.image.id,
        type=plan.kind,
        zone=plan.zone,
        launch_time=region.now(),
        lifecycle=plan.lifecycle,
        platform=plan.image.platform,
        architecture=plan.image.architecture,
        root_device=plan.image.root_device,
        key_name=data.get("KeyName"),
        public_key=key.material_public if key else None,
        user_data=data.get("UserData"),
        metadata={**METADATA_DEFAULTS, **data.get("MetadataOptions", {})},
        shutdown_behavior=data.get("InstanceInitiatedShutdownBehavior", "stop"),
        ebs_optimized=data.get("EbsOptimized", False),
        monitoring=data.get("Monitoring", {}).get("Enabled", False),
        disable_api_termination=data.get("DisableApiTermination", False),
        disable_api_stop=data.get("DisableApiStop", False),
        launch_index=index,
    )


def _interfaces(region: Region, plan: LaunchPlan) -> list[tuple[int, Interface]]:
    """One interface for the subnet, or those that were asked for. What a launch makes is deleted with the instance."""
    lends = bool(plan.subnet.map_public_ip_on_launch)
    if not plan.nics:
        interface = create_interface(
            region, plan.subnet, address=plan.address, groups=plan.groups, delete_on_termination=True, public=lends
        )
        return [(0, interface)]
    result = []
    for nic in plan.nics:
        device = nic.get("DeviceIndex", 0)
        if nic.get("NetworkInterfaceId"):
            interface = region.interface(nic["NetworkInterfaceId"])
            interface.delete_on_termination = nic.get("DeleteOnTermination", False)
        else:
            subnet = region.subnet(nic["SubnetId"]) if nic.get("SubnetId") else plan.subnet
            interface = create_interface(
                region,
                subnet,
                address=primary_address(nic),
                groups=nic.get("Groups", []),
                description=nic.get("Description", ""),
                delete_on_termination=nic.get("DeleteOnTermination", True),
                public=nic.get("AssociatePublicIpAddress", lends),
            )
        result.append((device, interface))
    return result


def _tag_all(region: Region, plan: LaunchPlan, instance: Instance, volumes: list[Any], fleet_id: str | None) -> None:
    own = {}
    if plan.template is not None:
        own = {"aws:ec2launchtemplate:id": plan.template[0], "aws:ec2launchtemplate:version": str(plan.template[1])}
    if fleet_id is not None:
        own["aws:ec2:fleet-id"] = fleet_id
    region.tag(instance.id, plan.tags.get("instance", {}))
    region.tag_by_ec2(instance.id, own)
    for volume in volumes:
        region.tag(volume.id, plan.tags.get("volume", {}))
    for interface in instance.interfaces.values():
        if interface.delete_on_termination:
            region.tag(interface.id, plan.tags.get("network-interface", {}))
    if instance.lifecycle == "spot":
        _spot_request(region, plan, instance)


def _spot_request(region: Region, plan: LaunchPlan, instance: Instance) -> None:
    request = SpotRequest(
        id=f"sir-{region.random.getrandbits(40):08x}"[:12],
        instance_id=instance.id,
        create_time=region.now(),
        type=instance.type,
        zone=instance.zone,
        kind=plan.spot.get("SpotInstanceType", "one-time"),
        max_price=plan.spot.get("MaxPrice"),
    )
    region.spot_requests[request.id] = request
    instance.spot_request_id = request.id
    region.tag(request.id, plan.tags.get("spot-instances-request", {}))


def reservation(region: Region, instances: list[Instance]) -> Params:
    return {
        "ReservationId": instances[0].reservation_id,
        "OwnerId": region.settings.account,
        "Groups": [],
        "Instances": [describe_instance(region, item) for item in instances],
    }


@action(
    "RunInstances",
    "MinCount",
    "MaxCount",
    optional=(*sorted(DATA_FIELDS), *REQUEST_FIELDS, "LaunchTemplate", "ClientToken"),
)
def run_instances(region: Region, params: Params) -> Params:
    """Launch as many as fit between MinCount and MaxCount, or fail."""
    known = region.remembered("RunInstances", params)
    if known is not None:
        return reservation(region, [region.instances[name] for name in known if name in region.instances])
    smallest, largest = params["MinCount"], params["MaxCount"]
    if smallest < 1 or largest < smallest:
        raise invalid(f"Invalid value '{smallest}' for min instance count: 1 to the max instance count {largest}")
    data, template = merge(region, params)
    prepared = plan(region, data, template)
    fits, error = room(region, prepared, largest)
    if fits < smallest:
        raise error
    made = launch(region, prepared, fits, client_token=params.get("ClientToken", ""))
    region.remember("RunInstances", params, [item.id for item in made])
    return reservation(region, made)
