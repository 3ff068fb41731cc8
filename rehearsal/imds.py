"""The instance metadata service of one machine, version 2 (and 1, where the instance allows it).

Source: Amazon EC2 User Guide, "Use the Instance Metadata Service to access instance metadata", "Instance metadata
categories", "Spot Instance interruption notices" and "Instance identity documents".
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import IPv4Network

from rehearsal.interfaces import InstanceView
from rehearsal.network.http import Handler, Request, Response

ACCOUNT = "123456789012"
PORT = 80
_TOKEN_HEADER = "x-aws-ec2-metadata-token"
_TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
_LONGEST_TTL = 21600
_NOTICE_SECONDS = 120.0  # an interruption is announced two minutes ahead

Tree = Mapping[str, "Tree | str"]


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def private_dns_name(instance: InstanceView) -> str:
    """The name that the VPC's DNS gives an instance (Amazon EC2 User Guide, "EC2 instance hostnames": IP name)."""
    label = "ip-" + str(instance.interface.private_address).replace(".", "-")
    domain = "ec2.internal" if instance.region == "us-east-1" else f"{instance.region}.compute.internal"
    return f"{label}.{domain}"


def metadata(
    instance: InstanceView, *, subnet: IPv4Network, vpc: IPv4Network, now: float, rebalance: float | None = None
) -> Tree:
    """The tree under ``/latest`` at the time ``now`` (epoch seconds): folders are mappings, leaves are texts.

    ``rebalance`` is when EC2 advised to leave without having decided on an interruption.
    """
    interface = instance.interface
    name = private_dns_name(instance)
    card: dict[str, Tree | str] = {
        "device-number": "0",
        "interface-id": interface.interface_id,
        "local-hostname": name,
        "local-ipv4s": str(interface.private_address),
        "mac": interface.mac,
        "owner-id": ACCOUNT,
        "security-group-ids": "\n".join(interface.group_ids),
        "subnet-id": interface.subnet_id,
        "subnet-ipv4-cidr-block": str(subnet),
        "vpc-id": interface.vpc_id,
        "vpc-ipv4-cidr-block": str(vpc),
    }
    data: dict[str, Tree | str] = {
        "ami-id": instance.image_id,
        "ami-launch-index": "0",
        "hostname": name,
        "instance-action": "none",
        "instance-id": instance.instance_id,
        "instance-life-cycle": instance.lifecycle,
        "instance-type": instance.instance_type,
        "local-hostname": name,
        "local-ipv4": str(interface.private_address),
        "mac": interface.mac,
        "placement": {"availability-zone": instance.zone, "region": instance.region},
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if interface.public_address is not None:
        data["public-ipv4"] = card["public-ipv4s"] = str(interface.public_address)
    data["network"] = {"interfaces": {"macs": {interface.mac: card}}}
    if instance.metadata_tags:
        data["tags"] = {"instance": dict(instance.tags)}
    action_time = instance.spot_action_time
    advised = rebalance if action_time is None else action_time - _NOTICE_SECONDS
    if advised is not None:
        data["events"] = {"recommendations": {"rebalance": json.dumps({"noticeTime": _stamp(advised)})}}
    if action_time is not None and now >= action_time - _NOTICE_SECONDS:
        notice = {"action": "terminate", "time": _stamp(action_time)}
        data["spot"] = {"instance-action": json.dumps(notice), "termination-time": _stamp(action_time)}
    tree: dict[str, Tree | str] = {
        "meta-data": data,
        "dynamic": {"instance-identity": {"document": json.dumps(identity_document(instance), indent=2)}},
    }
    if instance.user_data:
        tree["user-data"] = instance.user_data.decode("utf-8", "surrogateescape")
    return tree


def identity_document(instance: InstanceView) -> dict[str, str | None]:
    """The instance identity document (without its signature)."""
    return {
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": instance.zone,
        "imageId": instance.image_id,
        "instanceId": instance.instance_id,
        "instanceType": instance.instance_type,
        "pendingTime": _stamp(instance.launch_time),
        "privateIp": str(instance.interface.private_address),
        "region": instance.region,
        "version": "2017-09-30",
    }


def look_up(tree: Tree, path: str) -> str | None:
    """The text at ``path``: a leaf's value, or the list of a folder's entries; None when there is nothing.

    A folder is listed one entry a line, folders among them with a slash at the end.
    """
    here: Tree | str = tree
    for part in path.strip("/").split("/"):
        if not part:
            continue
        if isinstance(here, str) or part not in here:
            return None
        here = here[part]
    if isinstance(here, str):
        return None if path.endswith("/") else here
    return "\n".join(
        # keys of tags are never folders
        f"{name}/" if not isinstance(value, str) else name
        for name, value in sorted(here.items())
    )


class MetadataService:
    """What answers on 169.254.169.254 of one machine.

    ``current`` gives the tree of the moment and the instance's options; ``log`` hears about paths that were not found,
    because the real service has entries that are not modelled here.  Before ``available`` (epoch seconds) it answers
    503 to everything.
    """

    def __init__(
        self,
        instance: Callable[[], InstanceView],
        tree: Callable[[], Tree],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        available: float = 0.0,
    ) -> None:
        self._instance = instance
        self._tree = tree
        self._log = log
        self._clock = clock
        self._available = available
        self._tokens: dict[str, float] = {}
        self._missed: set[str] = set()

    @property
    def handler(self) -> Handler:
        async def handle(request: Request) -> Response:
            return self.answer(request)

        return handle

    def answer(self, request: Request) -> Response:
        """Answer one request as the metadata service would."""
        instance = self._instance()
        if self._clock() < self._available:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE)
        if not instance.metadata_enabled:
            return Response(HTTPStatus.FORBIDDEN)
        if request.path == "/latest/api/token":
            return self._token(request)
        if request.method not in ("GET", "HEAD"):
            return Response(HTTPStatus.METHOD_NOT_ALLOWED)
        token = request.headers.get(_TOKEN_HEADER)
        if token is None and instance.metadata_token_required:
            return Response(HTTPStatus.UNAUTHORIZED)
        if token is not None and self._tokens.get(token, 0.0) <= self._clock():
            return Response(HTTPStatus.UNAUTHORIZED)
        if request.path in ("", "/"):
            return Response(HTTPStatus.OK, b"latest")
        found = None
        if request.path == "/latest" or request.path.startswith("/latest/"):
            found = look_up(self._tree(), request.path.removeprefix("/latest"))
        if found is None:
            if request.path not in self._missed:  # watchers ask again and again
                self._missed.add(request.path)
                self._log(f"metadata: {request.path} not found")
            return Response(HTTPStatus.NOT_FOUND)
        return Response(HTTPStatus.OK, found.encode("utf-8", "surrogateescape"))

    def _token(self, request: Request) -> Response:
        if request.method != "PUT":
            return Response(HTTPStatus.METHOD_NOT_ALLOWED)
        if "x-forwarded-for" in request.headers:
            return Response(HTTPStatus.FORBIDDEN)  # the service refuses tokens to proxies
        wanted = request.headers.get(_TTL_HEADER, "")
        if not wanted.isdigit() or not 1 <= int(wanted) <= _LONGEST_TTL:
            return Response(HTTPStatus.BAD_REQUEST)
        now = self._clock()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = now + int(wanted)
        return Response(HTTPStatus.OK, token.encode(), {"X-aws-ec2-metadata-token-ttl-seconds": wanted})
