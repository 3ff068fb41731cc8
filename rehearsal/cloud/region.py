"""The region: every record, and how they are found, numbered and tagged."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from rehearsal.cloud import catalog
from rehearsal.cloud.errors import ApiError, invalid, unknown
from rehearsal.cloud.moto_network import NetworkBackend
from rehearsal.cloud.records import (
    Address,
    Fleet,
    Image,
    Instance,
    Interface,
    Lifecycle,
    Params,
    Snapshot,
    SpotRequest,
    Tags,
    Template,
    Volume,
)
from rehearsal.cloud.settings import CloudSettings

RESERVED_AT_START = 4  # Amazon VPC User Guide, "Subnet CIDR blocks": the first four addresses and the last one
TAG_LIMIT = 50
GUESSES = 8  # how often to guess a free address before listing them all


class Region:
    """All state of the simulated region. Whoever reads or changes it holds ``lock``."""

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self.random = random.Random(settings.seed)
        self.instances: dict[str, Instance] = {}
        self.interfaces: dict[str, Interface] = {}
        self.addresses: dict[str, Address] = {}
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.images: dict[str, Image] = {}
        self.deregistered: set[str] = set()
        self.templates: dict[str, Template] = {}
        self.fleets: dict[str, Fleet] = {}
        self.spot_requests: dict[str, SpotRequest] = {}
        self.fast_launches: dict[str, int] = {}  # image -> snapshots that are kept ready
        self.log_groups: dict[str, int] = {}  # name -> stored bytes
        self.tokens: dict[tuple[str, str], tuple[str, Any]] = {}
        self.objects: dict[tuple[str, str], bytes] = {}
        """What is in S3, by bucket and key."""
        self.uploads: dict[tuple[str, str, str], datetime] = {}
        """When uploads in parts began that are not finished, by bucket, key and their id."""
        self.vcpu_quotas = dict.fromkeys(("L-34B43A08", "L-1216C47A"), settings.vcpu_quota)
        self.denied: set[str] = set()  # actions that the caller lacks the permission for
        # How long a new instance, image or snapshot may be unknown (eventual consistency).
        self.unknown_seconds = 0.0
        self.capacity: dict[tuple[str, str, Lifecycle | None], int] = {
            (kind, zone, None): number for (kind, zone), number in settings.capacity.items()
        }
        self.network = NetworkBackend(settings.region, settings.account, self.interfaces)
        self._macs: set[str] = set()
        self._public = itertools.cycle(settings.public_network.hosts())
        for image, snapshot in catalog.stock_images(settings.region):
            self.images[image.id] = image
            self.snapshots[snapshot.id] = snapshot

    # ------------------------------------------------------------------------------------------------- time and names

    def now(self) -> float:
        return self.settings.clock()

    def new_id(self, prefix: str) -> str:
        """An identifier of the long form, for example ``i-`` and 17 hexadecimal digits."""
        return f"{prefix}-{self.random.getrandbits(68):017x}"

    def new_mac(self) -> str:
        """A MAC address as EC2 gives them: locally administered, never given twice."""
        while True:
            mac = "0a:" + ":".join(f"{self.random.randrange(256):02x}" for _ in range(5))
            if mac not in self._macs:
                self._macs.add(mac)
                return mac

    # ----------------------------------------------------------------------------------------------------------- tags

    def tags(self, identifier: str) -> Tags:
        found: Tags = self.network.tags.get(identifier, {})
        return found

    def tag(self, identifier: str, tags: Mapping[str, str]) -> None:
        """Set tags. ApiError: reserved key, or more than 50 (EC2 User Guide, "Tag restrictions")."""
        check_tag_keys(tags)
        self.tag_by_ec2(identifier, tags)
        own = [key for key in self.tags(identifier) if not key.startswith("aws:")]
        if len(own) > TAG_LIMIT:
            raise ApiError("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")

    def tag_by_ec2(self, identifier: str, tags: Mapping[str, str]) -> None:
        if tags:
            self.network.tags[identifier].update(tags)

    def tag_list(self, identifier: str) -> list[Params]:
        return [{"Key": key, "Value": value} for key, value in self.tags(identifier).items()]

    def forget_tags(self, identifier: str) -> None:
        self.network.tags.pop(identifier, None)

    # --------------------------------------------------------------------------------------------------------- look-up

    def instance(self, identifier: str) -> Instance:
        return self.instances_by_id([identifier])[0]

    def instances_by_id(self, identifiers: Iterable[str]) -> list[Instance]:
        """All of them, or InvalidInstanceID.NotFound for all: one bad id fails the whole call, as on EC2."""
        names = list(identifiers)
        absent = [name for name in names if name not in self.instances]
        if absent:
            raise unknown("i", *absent)
        return [self.instances[name] for name in names]

    def shown(self, identifier: str, made: float) -> bool:
        """Whether the API knows yet what was made then: of a fleet, one is known earlier than another.

        EC2 Developer Guide, "Ensuring idempotency" and "Eventual consistency in the Amazon EC2 API".
        """
        part = (int(identifier[-2:], 16) + 1) / 256
        return self.now() - made >= self.unknown_seconds * part

    def known(self, instance: Instance) -> bool:
        """Whether the API knows the instance yet."""
        return instance.boots > 1 or self.shown(instance.id, instance.launch_time)

    def known_images(self) -> dict[str, Image]:
        """The images that the API knows yet."""
        return {name: item for name, item in self.images.items() if self.shown(name, item.create_time)}

    def known_snapshots(self) -> dict[str, Snapshot]:
        """The snapshots that the API knows yet."""
        return {name: item for name, item in self.snapshots.items() if self.shown(name, item.start_time)}

    def known_instances(self, identifiers: Iterable[str]) -> list[Instance]:
        """All of them, or InvalidInstanceID.NotFound for those that the API does not know (yet)."""
        found = self.instances_by_id(identifiers)
        absent = [item.id for item in found if not self.known(item)]
        if absent:
            raise unknown("i", *absent)
        return found

    def interface(self, identifier: str) -> Interface:
        if identifier not in self.interfaces:
            raise unknown("eni", identifier)
        return self.interfaces[identifier]

    def subnet(self, identifier: str) -> Any:
        return self.network.get_subnet(identifier)

    def vpc(self, identifier: str) -> Any:
        return self.network.vpcs[identifier]

    def security_groups(self, identifiers: Iterable[str], vpc_id: str) -> list[str]:
        """Check that the groups exist in the VPC and return their ids."""
        names = list(dict.fromkeys(identifiers))
        for name in names:
            if name not in self.network.groups[vpc_id]:
                if self.network.get_security_group_from_id(name) is None:
                    raise ApiError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
                raise ApiError(
                    "InvalidParameter", f"Security group {name} and the subnet belong to different networks."
                )
        return names

    def default_group(self, vpc_id: str) -> str:
        for group in self.network.groups[vpc_id].values():
            if group.is_default or group.name == "default":
                return str(group.id)
        raise ApiError("InvalidGroup.NotFound", f"VPC {vpc_id} has no default security group")

    def internet_gateway(self, vpc_id: str) -> str | None:
        for gateway in self.network.internet_gateways.values():
            if gateway.vpc is not None and gateway.vpc.id == vpc_id:
                return str(gateway.id)
        return None

    # ------------------------------------------------------------------------------------------------------- addresses

    def used_addresses(self, subnet_id: str) -> set[IPv4Address]:
        return {item.address for item in self.interfaces.values() if item.subnet_id == subnet_id}

    def take_address(self, subnet: Any, wanted: str | None) -> IPv4Address:
        """A free private address of the subnet: ``wanted`` after checks, else any free one, as EC2 does."""
        network = IPv4Network(subnet.cidr_block)
        used = self.used_addresses(subnet.id)
        if wanted is None:
            return self._random_address(network, used, subnet.id)
        try:
            address = IPv4Address(wanted)
        except ValueError:
            raise invalid(f"Invalid IPv4 address: {wanted}") from None
        if address not in network:
            raise invalid(f"Address {address} does not fall within the subnet's address range")
        offset = int(address) - int(network.network_address)
        if offset < RESERVED_AT_START or address == network.broadcast_address:
            raise invalid(f"Address {address} is in subnet's reserved address range")
        if address in used:
            raise ApiError("InvalidIPAddress.InUse", f"Address {address} is in use.")
        return address

    def _random_address(self, network: IPv4Network, used: set[IPv4Address], subnet_id: str) -> IPv4Address:
        candidates = range(int(network.network_address) + RESERVED_AT_START, int(network.broadcast_address))
        for _ in range(GUESSES):
            guess = IPv4Address(self.random.choice(candidates))
            if guess not in used:
                return guess
        free = [number for number in candidates if IPv4Address(number) not in used]
        if not free:
            raise ApiError(
                "InsufficientFreeAddressesInSubnet",
                f"The specified subnet does not have enough free addresses to satisfy the request: {subnet_id}",
            )
        return IPv4Address(self.random.choice(free))

    def free_addresses(self, subnet: Any) -> int:
        network = IPv4Network(subnet.cidr_block)
        return network.num_addresses - RESERVED_AT_START - 1 - len(self.used_addresses(subnet.id))

    def _public_in_use(self) -> set[IPv4Address]:
        used = {item.public for item in self.addresses.values()}
        return used | {item.automatic for item in self.interfaces.values() if item.automatic is not None}

    def free_public_addresses(self) -> int:
        return self.settings.public_network.num_addresses - 2 - len(self._public_in_use())

    def no_public_address(self) -> ApiError:
        return ApiError(
            "InsufficientAddressCapacity", f"All public addresses of {self.settings.public_network} are in use."
        )

    def take_public_address(self) -> IPv4Address:
        """The next public address that nobody has; addresses come back only after all others were used."""
        used = self._public_in_use()
        for _ in range(self.settings.public_network.num_addresses):
            address = next(self._public)
            if address not in used:
                return address
        raise self.no_public_address()

    def elastic_address(self, interface_id: str) -> Address | None:
        for address in self.addresses.values():
            if address.interface_id == interface_id:
                return address
        return None

    def public_address(self, interface: Interface) -> IPv4Address | None:
        elastic = self.elastic_address(interface.id)
        return elastic.public if elastic else interface.automatic

    # -------------------------------------------------------------------------------------------------------- capacity

    def free_capacity(self, kind: str, zone: str, lifecycle: Lifecycle) -> int | None:
        """How many more instances fit into the pool; None: plenty."""
        limits = []
        for scope in (None, lifecycle):
            limit = self.capacity.get((kind, zone, scope))
            if limit is not None:
                used = sum(
                    1
                    for item in self.instances.values()
                    if item.type == kind
                    and item.zone == zone
                    and item.state in ("pending", "running", "stopping")
                    and scope in (None, item.lifecycle)
                )
                limits.append(max(0, limit - used))
        return min(limits) if limits else None

    # ----------------------------------------------------------------------------------------------------- idempotency

    def remembered(self, action: str, params: Params) -> Any | None:
        """The result of an earlier request with the same ClientToken; other parameters are refused."""
        token = params.get("ClientToken")
        if not token:
            return None
        if len(token) > 64 or not token.isascii():
            raise invalid(f"Value ({token}) for parameter clientToken is invalid: at most 64 ASCII characters")
        known = self.tokens.get((action, token))
        if known is None:
            return None
        if known[0] != _canonical(params):
            raise ApiError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        return known[1]

    def remember(self, action: str, params: Params, result: Any) -> None:
        if params.get("ClientToken"):
            self.tokens[(action, params["ClientToken"])] = (_canonical(params), result)


def _canonical(params: Params) -> str:
    return json.dumps(params, sort_keys=True, default=str)


def tag_specifications(specifications: Iterable[Params], allowed: Iterable[str]) -> dict[str, Tags]:
    """TagSpecifications as {resource type: tags}. ApiError: a type that the call cannot tag."""
    result: dict[str, Tags] = {}
    for entry in specifications:
        kind = entry.get("ResourceType", "")
        if kind not in allowed:
            raise invalid(f"'{kind}' is not a valid taggable resource type for this operation.")
        tags = {tag["Key"]: tag.get("Value", "") for tag in entry.get("Tags", [])}
        if not tags:
            raise invalid("Tag specification must have at least one tag")
        check_tag_keys(tags)
        result.setdefault(kind, {}).update(tags)
    return result


def check_tag_keys(tags: Iterable[str]) -> None:
    if any(key.lower().startswith("aws:") for key in tags):
        raise invalid("Tag keys starting with 'aws:' are reserved for internal use")
