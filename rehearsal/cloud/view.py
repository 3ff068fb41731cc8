"""The region as the hypervisor sees it."""

from __future__ import annotations

import base64
from ipaddress import IPv4Network
from typing import Any

from rehearsal.cloud.network import route_target
from rehearsal.cloud.records import Instance, Interface
from rehearsal.cloud.region import Region
from rehearsal.interfaces import (
    CloudView,
    ImageView,
    InstanceView,
    InterfaceView,
    RouteView,
    SecurityGroupView,
    SecurityRule,
    SubnetView,
    VpcView,
)


def view(region: Region) -> CloudView:
    """A consistent picture; the caller holds the lock."""
    network = region.network
    return CloudView(
        instances=tuple(_instance(region, item) for item in region.instances.values()),
        images=tuple(
            ImageView(item.id, item.name, region.settings.region, item.source_instance_id, item.platform, item.state)
            for item in region.images.values()
        ),
        vpcs=tuple(_vpc(region, item) for item in network.vpcs.values()),
        security_groups={
            group.id: SecurityGroupView(
                group.id,
                tuple(_rule(item) for item in group.ingress_rules),
                tuple(_rule(item) for item in group.egress_rules),
            )
            for groups in network.groups.values()
            for group in groups.values()
        },
    )


def _instance(region: Region, item: Instance) -> InstanceView:
    assert item.primary is not None, f"{item.id} was launched without an interface"
    return InstanceView(
        instance_id=item.id,
        image_id=item.image_id,
        instance_type=item.type,
        region=region.settings.region,
        zone=item.zone,
        state=item.state,
        lifecycle=item.lifecycle,
        launch_time=item.launch_time,
        boots=item.boots,
        interface=_interface(region, item.primary, item.id),
        tags=dict(region.tags(item.id)),
        user_data=base64.b64decode(item.user_data) if item.user_data else b"",
        key_name=item.key_name,
        metadata_enabled=item.metadata["HttpEndpoint"] == "enabled",
        metadata_token_required=item.metadata["HttpTokens"] == "required",
        metadata_tags=item.metadata["InstanceMetadataTags"] == "enabled",
        spot_action_time=item.spot_action_time,
        metadata_hop_limit=int(item.metadata["HttpPutResponseHopLimit"]),
    )


def _interface(region: Region, item: Interface, instance_id: str) -> InterfaceView:
    return InterfaceView(
        interface_id=item.id,
        mac=item.mac,
        subnet_id=item.subnet_id,
        vpc_id=item.vpc_id,
        private_address=item.address,
        public_address=region.public_address(item),
        source_dest_check=item.source_dest_check,
        group_ids=tuple(item.group_ids),
        instance_id=instance_id,
    )


def _vpc(region: Region, vpc: Any) -> VpcView:
    subnets = [
        subnet for zone in region.network.subnets.values() for subnet in zone.values() if subnet.vpc_id == vpc.id
    ]
    tables = [table for table in region.network.route_tables.values() if table.vpc_id == vpc.id]
    return VpcView(
        vpc_id=vpc.id,
        network=IPv4Network(vpc.cidr_block),
        region=region.settings.region,
        subnets=tuple(
            SubnetView(item.id, vpc.id, IPv4Network(item.cidr_block), item.availability_zone) for item in subnets
        ),
        routes={item.id: _routes(region, tables, item.id) for item in subnets},
    )


def _routes(region: Region, tables: list[Any], subnet_id: str) -> tuple[RouteView, ...]:
    """The routes of the associated table, else of the main table (Amazon VPC User Guide, "Route tables")."""
    for table in sorted(tables, key=lambda item: item.main_association_id is not None):
        if table.main_association_id is not None or subnet_id in table._associations.values():
            return tuple(
                RouteView(IPv4Network(route.destination_cidr_block), route_target(region, table, route))
                for route in table.routes
            )
    return ()


def _rule(rule: Any) -> SecurityRule:
    source = rule.ip_range.get("CidrIp")
    group = rule.source_group.get("GroupId")
    return SecurityRule(
        protocol=str(rule.ip_protocol),
        from_port=-1 if rule.from_port is None else int(rule.from_port),
        to_port=-1 if rule.to_port is None else int(rule.to_port),
        networks=(IPv4Network(source),) if source else (),
        groups=(group,) if group else (),
    )
