"""moto's half of the region: VPCs, subnets, gateways, route tables, security groups, key pairs.

moto's own instances, network interfaces and images stay empty; where moto asks for an interface it gets a stand-in for
the record of :mod:`rehearsal.cloud.records`.
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models import EC2Backend
from moto.ec2.responses import EC2Response

from rehearsal.cloud.errors import unknown
from rehearsal.cloud.records import Interface


class InterfaceForMoto:
    """What moto's route tables and subnets look at in a network interface."""

    def __init__(self, record: Interface, subnet: Any) -> None:
        self.record = record
        self.id = record.id
        self.subnet = subnet
        self.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": str(record.address)}]


class NetworkBackend(EC2Backend):  # type: ignore[misc]
    """moto's EC2 backend without a default VPC, without its 1285 images, and with tags found by identifier."""

    def __init__(self, region_name: str, account_id: str, interfaces: dict[str, Interface]) -> None:
        self._interfaces = interfaces
        super().__init__(region_name, account_id)

    def _load_amis(self) -> None:
        """The images are those of rehearsal.cloud.catalog."""

    def create_default_vpc(self) -> None:
        """An account without a default VPC: a launch that names no subnet must fail, not land somewhere."""

    def create_vpc(self, *args: Any, **kwargs: Any) -> Any:
        """The default group lets its own members in (Amazon VPC User Guide, "Default security groups")."""
        vpc = super().create_vpc(*args, **kwargs)
        group = self.get_default_security_group(vpc.id)
        pair = {"GroupId": group.id, "UserId": self.account_id}
        self.authorize_security_group_ingress(group.id, "-1", None, None, [], source_groups=[pair])
        return vpc

    def create_subnet(self, *args: Any, **kwargs: Any) -> Any:
        """moto takes the first subnet of a zone for a default subnet, which lends public addresses; EC2 does not."""
        subnet = super().create_subnet(*args, **kwargs)
        subnet.default_for_az = False
        subnet.map_public_ip_on_launch = False
        return subnet

    def get_network_interface(self, eni_id: str) -> InterfaceForMoto:
        record = self._interfaces.get(eni_id)
        if record is None:
            raise unknown("eni", eni_id)
        return InterfaceForMoto(record, self.get_subnet(record.subnet_id))

    def get_all_network_interfaces(self, eni_ids: Any = None, filters: Any = None) -> list[InterfaceForMoto]:
        """Only for the count of free addresses of a subnet."""
        return [InterfaceForMoto(record, self.get_subnet(record.subnet_id)) for record in self._interfaces.values()]

    def describe_tags(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
        """What moto's resources ask to show their own tags: one identifier, no pattern."""
        wanted = (filters or {}).get("resource-id", [])
        return [
            {"resource_id": name, "key": key, "value": value, "resource_type": ""}
            for name in wanted
            for key, value in self.tags.get(name, {}).items()
        ]


class NetworkResponse(EC2Response):  # type: ignore[misc]
    """moto's actions, on the backend of one region."""

    def __init__(self, backend: NetworkBackend) -> None:
        super().__init__()
        self._backend = backend

    @property
    def ec2_backend(self) -> NetworkBackend:
        return self._backend
