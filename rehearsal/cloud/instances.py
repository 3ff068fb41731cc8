"""Instances: described, started, stopped, changed."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from rehearsal.cloud import catalog, quotas
from rehearsal.cloud.actions import action, attribute
from rehearsal.cloud.eni import (
    groups_of,
    instance_interface,
    private_dns_name,
    public_dns_name,
)
from rehearsal.cloud.errors import ApiError, combination, invalid, unknown
from rehearsal.cloud.filters import Extractors, page, select
from rehearsal.cloud.protocol import timestamp
from rehearsal.cloud.records import Instance, Interface, Params
from rehearsal.cloud.region import Region
from rehearsal.cloud.states import power_on, require_state, state_of, stop, terminate
from rehearsal.cloud.templates import check_user_data

MOST_TERMINATED = 1000  # EC2 API Reference, TerminateInstances: instances per call


def attached(instance: Instance) -> Interface | None:
    """The primary interface while the instance has it; a terminated one has none."""
    return instance.interfaces.get(0)


def describe_instance(region: Region, instance: Instance) -> Params:
    primary = attached(instance)
    shown: Params = {
        "AmiLaunchIndex": instance.launch_index,
        "Architecture": instance.architecture,
        "BlockDeviceMappings": [_device(region, *entry) for entry in instance.volumes.items()],
        "ClientToken": instance.client_token,
        "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
        "CpuOptions": _cpu_options(instance.type),
        "CurrentInstanceBootMode": "uefi",
        "EbsOptimized": instance.ebs_optimized,
        "EnaSupport": True,
        "EnclaveOptions": {"Enabled": False},
        "HibernationOptions": {"Configured": False},
        "Hypervisor": "xen",
        "ImageId": instance.image_id,
        "InstanceId": instance.id,
        "InstanceLifecycle": "spot" if instance.lifecycle == "spot" else None,
        "InstanceType": instance.type,
        "KeyName": instance.key_name,
        "LaunchTime": instance.launch_time,
        "MaintenanceOptions": {"AutoRecovery": "default"},
        "MetadataOptions": instance.metadata,
        "Monitoring": {"State": "enabled" if instance.monitoring else "disabled"},
        "NetworkInterfaces": [instance_interface(region, item) for item in instance.interfaces.values()],
        "Placement": {"AvailabilityZone": instance.zone, "GroupName": "", "Tenancy": "default"},
        "Platform": instance.platform,
        "PlatformDetails": "Windows",
        "PrivateDnsName": "",
        "ProductCodes": [],
        "PublicDnsName": "",
        "RootDeviceName": instance.root_device,
        "RootDeviceType": "ebs",
        "SecurityGroups": [],
        "SpotInstanceRequestId": instance.spot_request_id,
        "State": state_of(instance),
        "StateTransitionReason": instance.transition_reason,
        "Tags": region.tag_list(instance.id) or None,
        "UsageOperation": "RunInstances:0002",
        "UsageOperationUpdateTime": instance.launch_time,
        "VirtualizationType": "hvm",
    }
    if instance.reason:
        shown["StateReason"] = {"Code": instance.reason_code, "Message": instance.reason}
    if primary is not None:
        public = region.public_address(primary)
        shown |= {
            "PrivateDnsName": private_dns_name(region, primary),
            "PrivateIpAddress": str(primary.address),
            "PublicDnsName": public_dns_name(region, primary),
            "PublicIpAddress": str(public) if public else None,
            "SecurityGroups": groups_of(region, primary),
            "SourceDestCheck": primary.source_dest_check,
            "SubnetId": primary.subnet_id,
            "VpcId": primary.vpc_id,
        }
    return shown


def _device(region: Region, device: str, identifier: str) -> Params:
    volume = region.volumes[identifier]
    return {
        "DeviceName": device,
        "Ebs": {
            "AttachTime": volume.attach_time,
            "DeleteOnTermination": volume.delete_on_termination,
            "Status": "attached",
            "VolumeId": identifier,
        },
    }


def _cpu_options(kind: str) -> Params:
    found = catalog.instance_type(kind) or {}
    info: dict[str, Any] = found.get("VCpuInfo", {})
    threads = int(info.get("DefaultThreadsPerCore", 1))
    return {"CoreCount": int(info.get("DefaultCores", info.get("DefaultVCpus", 1))), "ThreadsPerCore": threads}


def instance_filters(region: Region) -> Extractors[Instance]:
    def network(name: str) -> Any:
        """Filters ``network-interface.…`` look at every interface, the plain ones at the primary."""

        def values(item: Instance) -> list[Any]:
            return [_network_value(region, interface, name) for interface in item.interfaces.values()]

        return values

    def primary(name: str) -> Any:
        def values(item: Instance) -> tuple[Any, ...]:
            interface = attached(item)
            return (_network_value(region, interface, name),) if interface else ()

        return values

    def groups(item: Instance) -> list[str]:
        interface = attached(item)
        return interface.group_ids if interface else []

    return {
        "architecture": lambda item: (item.architecture,),
        "availability-zone": lambda item: (item.zone,),
        "block-device-mapping.device-name": lambda item: item.volumes.keys(),
        "block-device-mapping.volume-id": lambda item: item.volumes.values(),
        "client-token": lambda item: (item.client_token,),
        "dns-name": primary("public-dns-name"),
        "hypervisor": lambda item: ("xen",),
        "image-id": lambda item: (item.image_id,),
        "instance-id": lambda item: (item.id,),
        "instance-lifecycle": lambda item: ("spot",) if item.lifecycle == "spot" else (),
        "instance-state-code": lambda item: (state_of(item)["Code"],),
        "instance-state-name": lambda item: (item.state,),
        "instance-type": lambda item: (item.type,),
        "instance.group-id": groups,
        "instance.group-name": lambda item: [
            group["GroupName"] for interface in item.interfaces.values() for group in groups_of(region, interface)
        ],
        "ip-address": primary("public-ip"),
        "key-name": lambda item: (item.key_name,),
        "launch-index": lambda item: (item.launch_index,),
        "launch-time": lambda item: (timestamp(item.launch_time),),
        "metadata-options.http-endpoint": lambda item: (item.metadata["HttpEndpoint"],),
        "metadata-options.http-tokens": lambda item: (item.metadata["HttpTokens"],),
        "metadata-options.instance-metadata-tags": lambda item: (item.metadata["InstanceMetadataTags"],),
        "monitoring-state": lambda item: ("enabled" if item.monitoring else "disabled",),
        "network-interface.addresses.association.public-ip": network("public-ip"),
        "network-interface.addresses.primary": lambda item: (True,) if item.interfaces else (),
        "network-interface.addresses.private-ip-address": network("address"),
        "network-interface.association.public-ip": network("public-ip"),
        "network-interface.attachment.attachment-id": network("attachment_id"),
        "network-interface.attachment.delete-on-termination": network("delete_on_termination"),
        "network-interface.attachment.device-index": network("device_index"),
        "network-interface.availability-zone": network("zone"),
        "network-interface.description": network("description"),
        "network-interface.group-id": lambda item: [
            name for interface in item.interfaces.values() for name in interface.group_ids
        ],
        "network-interface.mac-address": network("mac"),
        "network-interface.network-interface-id": network("id"),
        "network-interface.private-dns-name": network("private-dns-name"),
        "network-interface.private-ip-address": network("address"),
        "network-interface.source-dest-check": network("source_dest_check"),
        "network-interface.status": lambda item: ("in-use",) if item.interfaces else (),
        "network-interface.subnet-id": network("subnet_id"),
        "network-interface.vpc-id": network("vpc_id"),
        "owner-id": lambda item: (region.settings.account,),
        "platform": lambda item: (item.platform,),
        "platform-details": lambda item: ("Windows",),
        "private-dns-name": primary("private-dns-name"),
        "private-ip-address": primary("address"),
        "reason": lambda item: (item.transition_reason,),
        "reservation-id": lambda item: (item.reservation_id,),
        "root-device-name": lambda item: (item.root_device,),
        "root-device-type": lambda item: ("ebs",),
        "source-dest-check": primary("source_dest_check"),
        "spot-instance-request-id": lambda item: (item.spot_request_id,),
        "state-reason-code": lambda item: (item.reason_code,) if item.reason_code else (),
        "state-reason-message": lambda item: (item.reason,) if item.reason else (),
        "subnet-id": primary("subnet_id"),
        "tenancy": lambda item: ("default",),
        "usage-operation": lambda item: ("RunInstances:0002",),
        "virtualization-type": lambda item: ("hvm",),
        "vpc-id": primary("vpc_id"),
    }


def _network_value(region: Region, interface: Interface, name: str) -> Any:
    if name == "public-ip":
        address = region.public_address(interface)
        return str(address) if address else None
    if name == "public-dns-name":
        return public_dns_name(region, interface) or None
    if name == "private-dns-name":
        return private_dns_name(region, interface)
    value = getattr(interface, name)
    return str(value) if name == "address" else value


def _chosen(region: Region, name: str, params: Params) -> list[Instance]:
    wanted = params.get("InstanceIds", [])
    items = region.known_instances(wanted) if wanted else [i for i in region.instances.values() if region.known(i)]
    return select(name, items, params.get("Filters", []), instance_filters(region), lambda item: region.tags(item.id))


@action("DescribeInstances", optional=("InstanceIds", "Filters", "MaxResults", "NextToken"))
def describe_instances(region: Region, params: Params) -> Params:
    """MaxResults counts instances; a reservation may come in parts on several pages."""
    shown, token = page(_chosen(region, "DescribeInstances", params), params, ids="InstanceIds")
    return {"Reservations": _reservations(region, shown), "NextToken": token}


def _reservations(region: Region, instances: Iterable[Instance]) -> list[Params]:
    result: dict[str, Params] = {}
    for instance in instances:
        entry = result.setdefault(
            instance.reservation_id,
            {
                "ReservationId": instance.reservation_id,
                "OwnerId": region.settings.account,
                "Groups": [],
                "Instances": [],
            },
        )
        entry["Instances"].append(describe_instance(region, instance))
    return list(result.values())


@action(
    "DescribeInstanceStatus",
    optional=("InstanceIds", "Filters", "IncludeAllInstances", "MaxResults", "NextToken"),
)
def describe_instance_status(region: Region, params: Params) -> Params:
    """Only running instances, unless IncludeAllInstances is given. The checks pass as soon as one runs."""
    items = _chosen(region, "DescribeInstanceStatus", params)
    if not params.get("IncludeAllInstances"):
        items = [item for item in items if item.state == "running"]
    shown, token = page(items, params, ids="InstanceIds")
    return {"InstanceStatuses": [_status(item) for item in shown], "NextToken": token}


def _status(instance: Instance) -> Params:
    if instance.state == "running":
        check: Params = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    else:
        check = {"Status": "not-applicable"}
    return {
        "AvailabilityZone": instance.zone,
        "InstanceId": instance.id,
        "InstanceState": state_of(instance),
        "InstanceStatus": check,
        "SystemStatus": check,
    }


# --------------------------------------------------------------------------------------------------------------- power


def _changes(instances: list[Instance], before: list[Params]) -> list[Params]:
    return [
        {"InstanceId": item.id, "CurrentState": state_of(item), "PreviousState": old}
        for item, old in zip(instances, before, strict=True)
    ]


@action("StartInstances", "InstanceIds")
def start_instances(region: Region, params: Params) -> Params:
    """Only a stopped instance starts; one that runs already is left as it is."""
    instances = region.known_instances(params["InstanceIds"])
    for item in instances:
        require_state(item, ("stopped", "running", "pending"), "started")
    before = [state_of(item) for item in instances]
    for item in instances:
        if item.state == "stopped":
            free = region.free_capacity(item.type, item.zone, item.lifecycle)
            if free is not None and free < 1:
                raise ApiError(
                    "InsufficientInstanceCapacity", f"Insufficient capacity of {item.type} in {item.zone}.", 500
                )
            if not quotas.fitting(item.type, quotas.free_vcpus(region, item.lifecycle), 1):
                raise quotas.exceeded(region, item.lifecycle)
            power_on(region, item)
    return {"StartingInstances": _changes(instances, before)}


@action("StopInstances", "InstanceIds", optional=("Force", "SkipOsShutdown"))
def stop_instances(region: Region, params: Params) -> Params:
    instances = region.known_instances(params["InstanceIds"])
    for item in instances:
        require_state(item, ("pending", "running", "stopping", "stopped"), "stopped")
        if item.disable_api_stop:
            raise _protected(item, "stopped", "disableApiStop")
        request = region.spot_requests.get(item.spot_request_id or "")
        if request is not None and request.kind == "one-time":
            raise ApiError(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{item.id}' because it is associated with a one-time Spot Instance "
                "request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
            )
    before = [state_of(item) for item in instances]
    for item in instances:
        if item.state in ("pending", "running"):
            stop(region, item)
    return {"StoppingInstances": _changes(instances, before)}


@action("TerminateInstances", "InstanceIds", optional=("Force", "SkipOsShutdown"))
def terminate_instances(region: Region, params: Params) -> Params:
    if len(params["InstanceIds"]) > MOST_TERMINATED:
        raise invalid(f"At most {MOST_TERMINATED} instances can be terminated with one call")
    instances = region.known_instances(params["InstanceIds"])
    for item in instances:
        if item.disable_api_termination:
            raise _protected(item, "terminated", "disableApiTermination")
    before = [state_of(item) for item in instances]
    for item in instances:
        terminate(region, item)
    return {"TerminatingInstances": _changes(instances, before)}


def _protected(instance: Instance, verb: str, name: str) -> ApiError:
    return ApiError(
        "OperationNotPermitted",
        f"The instance '{instance.id}' may not be {verb}. Modify its '{name}' instance attribute and try again.",
    )


@action("RebootInstances", "InstanceIds")
def reboot_instances(region: Region, params: Params) -> Params:
    instances = region.known_instances(params["InstanceIds"])
    for item in instances:
        require_state(item, ("running", "pending"), "rebooted")
    for item in instances:
        item.boots += 1
    return {}


# ---------------------------------------------------------------------------------------------------------- attributes


def _attributes(region: Region, item: Instance) -> Params:
    primary = attached(item)
    return {
        "instanceType": {"InstanceType": {"Value": item.type}},
        "userData": {"UserData": {"Value": item.user_data} if item.user_data else {}},
        "disableApiTermination": {"DisableApiTermination": {"Value": item.disable_api_termination}},
        "disableApiStop": {"DisableApiStop": {"Value": item.disable_api_stop}},
        "instanceInitiatedShutdownBehavior": {"InstanceInitiatedShutdownBehavior": {"Value": item.shutdown_behavior}},
        "rootDeviceName": {"RootDeviceName": {"Value": item.root_device}},
        "blockDeviceMapping": {
            "BlockDeviceMappings": [_device(region, device, name) for device, name in item.volumes.items()]
        },
        "sourceDestCheck": {"SourceDestCheck": {"Value": primary.source_dest_check if primary else False}},
        "groupSet": {"Groups": groups_of(region, primary) if primary else []},
        "ebsOptimized": {"EbsOptimized": {"Value": item.ebs_optimized}},
        "enaSupport": {"EnaSupport": {"Value": True}},
        "productCodes": {"ProductCodes": []},
        "kernel": {"KernelId": {}},
        "ramdisk": {"RamdiskId": {}},
        "sriovNetSupport": {"SriovNetSupport": {}},
        "enclaveOptions": {"EnclaveOptions": {"Enabled": False}},
    }


@action("DescribeInstanceAttribute", "InstanceId", "Attribute")
def describe_instance_attribute(region: Region, params: Params) -> Params:
    item = region.instance(params["InstanceId"])
    values = _attributes(region, item)
    if params["Attribute"] not in values:
        raise invalid(f"Value ({params['Attribute']}) for parameter attribute is invalid. Unknown attribute.")
    return {"InstanceId": item.id, **values[params["Attribute"]]}


BOOLEANS = {
    "DisableApiTermination": "disable_api_termination",
    "DisableApiStop": "disable_api_stop",
    "EbsOptimized": "ebs_optimized",
}


@action(
    "ModifyInstanceAttribute",
    "InstanceId",
    optional=(
        *BOOLEANS,
        "SourceDestCheck",
        "InstanceType",
        "UserData",
        "InstanceInitiatedShutdownBehavior",
        "Groups",
        "BlockDeviceMappings",
    ),
)
def modify_instance_attribute(region: Region, params: Params) -> Params:
    item = region.instance(params["InstanceId"])
    primary = attached(item)
    for name, field in BOOLEANS.items():
        if attribute(params, name) is not None:
            setattr(item, field, bool(attribute(params, name)))
    if "SourceDestCheck" in params or "Groups" in params:
        if primary is None or len(item.interfaces) > 1:
            raise combination(f"The instance {item.id} has {len(item.interfaces)} interfaces: change the interface.")
        if "SourceDestCheck" in params:
            primary.source_dest_check = bool(attribute(params, "SourceDestCheck"))
        if "Groups" in params:
            primary.group_ids = region.security_groups(params["Groups"], primary.vpc_id)
    _modify_stopped(item, params)
    behavior = attribute(params, "InstanceInitiatedShutdownBehavior")
    if behavior is not None:
        if behavior not in ("stop", "terminate"):
            raise invalid(f"Invalid value '{behavior}' for InstanceInitiatedShutdownBehavior.")
        item.shutdown_behavior = behavior
    for mapping in params.get("BlockDeviceMappings", []):
        device = mapping.get("DeviceName")
        if device not in item.volumes:
            raise ApiError("InvalidInstanceAttributeValue", f"No device is currently mapped at {device}")
        volume = region.volumes[item.volumes[device]]
        volume.delete_on_termination = mapping.get("Ebs", {}).get("DeleteOnTermination", volume.delete_on_termination)
    return {}


def _modify_stopped(item: Instance, params: Params) -> None:
    """Type and user data change only while the instance is stopped."""
    if ("InstanceType" in params or "UserData" in params) and item.state != "stopped":
        raise ApiError(
            "IncorrectInstanceState", f"The instance '{item.id}' is not in the 'stopped' state. It is {item.state}."
        )
    kind = attribute(params, "InstanceType")
    if kind is not None:
        if catalog.instance_type(kind) is None:
            raise invalid(f"Invalid value '{kind}' for InstanceType.")
        item.type = kind
    data = attribute(params, "UserData")
    if data is not None:
        # The API type is a blob: the request parser has decoded it.
        item.user_data = base64.b64encode(data).decode() if isinstance(data, bytes) else data
        check_user_data(item.user_data)


METADATA = ("HttpTokens", "HttpPutResponseHopLimit", "HttpEndpoint", "HttpProtocolIpv6", "InstanceMetadataTags")


@action("ModifyInstanceMetadataOptions", "InstanceId", optional=METADATA)
def modify_instance_metadata_options(region: Region, params: Params) -> Params:
    item = region.instance(params["InstanceId"])
    item.metadata = {**item.metadata, **{name: params[name] for name in METADATA if name in params}}
    return {"InstanceId": item.id, "InstanceMetadataOptions": {**item.metadata, "State": "pending"}}


# ------------------------------------------------------------------------------------------------------- spot requests


@action("DescribeSpotInstanceRequests", optional=("SpotInstanceRequestIds", "Filters", "MaxResults", "NextToken"))
def describe_spot_instance_requests(region: Region, params: Params) -> Params:
    wanted = params.get("SpotInstanceRequestIds", [])
    absent = [name for name in wanted if name not in region.spot_requests]
    if absent:
        raise unknown("sir", *absent)
    items = [region.spot_requests[name] for name in wanted] if wanted else list(region.spot_requests.values())
    chosen = select(
        "DescribeSpotInstanceRequests",
        items,
        params.get("Filters", []),
        {
            "spot-instance-request-id": lambda item: (item.id,),
            "instance-id": lambda item: (item.instance_id,),
            "state": lambda item: (item.state,),
            "status-code": lambda item: (item.status,),
            "type": lambda item: (item.kind,),
            "launch.instance-type": lambda item: (item.type,),
            "launched-availability-zone": lambda item: (item.zone,),
        },
        lambda item: region.tags(item.id),
    )
    shown, token = page(chosen, params)
    return {
        "SpotInstanceRequests": [
            {
                "SpotInstanceRequestId": item.id,
                "InstanceId": item.instance_id,
                "CreateTime": item.create_time,
                "State": item.state,
                "Status": {"Code": item.status, "Message": "", "UpdateTime": item.create_time},
                "Type": item.kind,
                "SpotPrice": item.max_price,
                "LaunchedAvailabilityZone": item.zone,
                "InstanceInterruptionBehavior": item.interruption,
                "ProductDescription": "Windows",
                "Tags": region.tag_list(item.id),
            }
            for item in shown
        ],
        "NextToken": token,
    }


@action("CancelSpotInstanceRequests", "SpotInstanceRequestIds")
def cancel_spot_instance_requests(region: Region, params: Params) -> Params:
    """The instance keeps running (EC2 API Reference, CancelSpotInstanceRequests)."""
    absent = [name for name in params["SpotInstanceRequestIds"] if name not in region.spot_requests]
    if absent:
        raise unknown("sir", *absent)
    for name in params["SpotInstanceRequestIds"]:
        region.spot_requests[name].state = "cancelled"
        region.spot_requests[name].status = "request-canceled-and-instance-running"
    return {
        "CancelledSpotInstanceRequests": [
            {"SpotInstanceRequestId": name, "State": "cancelled"} for name in params["SpotInstanceRequestIds"]
        ]
    }
