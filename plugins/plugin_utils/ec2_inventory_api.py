# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""DescribeInstances, read in the cheapest safe way.

botocore finds credentials, signs, sends, repeats what was throttled and reads errors. A good answer is not built into
botocore's dictionaries, which costs four times as much: the few fields that the inventory uses are taken from the XML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from xml.etree import ElementTree

from ..module_utils.aws_errors import explain
from .ec2_inventory import TAG_FARM, Instance, did_you_mean

# The most that DescribeInstances gives in one answer (EC2 API Reference, DescribeInstances, MaxResults).
PAGE_SIZE = 1000
_MOST_AT_ONCE = 16
# Seconds without a byte of the answer. Each repetition waits as long again, so botocore's 60 would be nine minutes.
_READ_TIMEOUT = 15

_WHOLE_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


# What botocore must know of EC2 to ask this one question, word for word out of its own model of EC2, which takes a
# tenth of a second and 23 MB to read. The answer has no members here because botocore does not read it.
MODEL: Mapping[str, Any] = {
    "version": "2.0",
    "metadata": {
        "apiVersion": "2016-11-15",
        "endpointPrefix": "ec2",
        "protocol": "ec2",
        "protocols": ["ec2"],
        "serviceAbbreviation": "Amazon EC2",
        "serviceFullName": "Amazon Elastic Compute Cloud",
        "serviceId": "EC2",
        "signatureVersion": "v4",
        "uid": "ec2-2016-11-15",
        "xmlNamespace": "http://ec2.amazonaws.com/doc/2016-11-15",
        "auth": ["aws.auth#sigv4"],
    },
    "operations": {
        "DescribeInstances": {
            "name": "DescribeInstances",
            "http": {"method": "POST", "requestUri": "/"},
            "input": {"shape": "DescribeInstancesRequest"},
            "output": {"shape": "DescribeInstancesResult"},
        }
    },
    "shapes": {
        "DescribeInstancesRequest": {
            "type": "structure",
            "members": {
                "Filters": {"shape": "FilterList", "locationName": "Filter"},
                "NextToken": {"shape": "String", "locationName": "nextToken"},
                "MaxResults": {"shape": "Integer", "locationName": "maxResults"},
            },
        },
        "DescribeInstancesResult": {"type": "structure", "members": {}},
        "Filter": {
            "type": "structure",
            "members": {
                "Name": {"shape": "String"},
                "Values": {"shape": "ValueStringList", "locationName": "Value"},
            },
        },
        "FilterList": {"type": "list", "member": {"shape": "Filter", "locationName": "Filter"}},
        "Integer": {"type": "integer"},
        "String": {"type": "string"},
        "ValueStringList": {"type": "list", "member": {"shape": "String", "locationName": "item"}},
    },
}


class Place(NamedTuple):
    """Where instances are looked for: a region, seen through a profile (None: botocore's usual credentials)."""

    profile: str | None
    region: str

    def __str__(self) -> str:
        return f"region {self.region}" + (f" with profile {self.profile}" if self.profile else "")


class Client(Protocol):
    """The part of an EC2 client that is used here: one page, under ``Instances`` and ``NextToken``."""

    def describe_instances(self, **parameters: Any) -> Mapping[str, Any]: ...


class IncompleteAnswer(Exception):
    """EC2's answer lacks something that every answer has, so it cannot be trusted to name all hosts."""


class Unreadable(Exception):
    """EC2 could not be asked, or did not give a whole answer: what failed, where, and what helps."""


# ------------------------------------------------------------------------------------------------------------- asking


def connect(profiles: Sequence[str], regions: Sequence[str]) -> dict[Place, Client]:
    """One client for each region and profile (without profiles: botocore's usual credentials).

    Sessions are not safe to share between threads, clients are: all are made here, in one thread. Raises Unreadable.
    """
    try:
        import botocore.loaders
        import botocore.session  # here, because it takes as long as all the rest of an inventory from the cache
        from botocore.config import Config
    except ImportError as missing:
        raise Unreadable(
            f"botocore is missing in the Python that runs Ansible ({missing}). Remedy: pip install boto3."
        ) from missing
    retries = {"mode": "standard", "max_attempts": 8}
    config = Config(retries=retries, connect_timeout=5, read_timeout=_READ_TIMEOUT)
    clients: dict[Place, Client] = {}
    loader = botocore.loaders.Loader()
    loader.load_service_model = _lean(loader.load_service_model)
    for profile in profiles or (None,):
        try:
            session = botocore.session.Session(profile=profile)
            session.register_component("data_loader", loader)
            for region in regions:
                client = session.create_client("ec2", region_name=region, config=config)
                client.meta.events.register("before-parse.ec2.DescribeInstances", _reader(region))
                clients[Place(profile, region)] = client
        except _expected_errors() as error:
            raise Unreadable(explain(error, doing="make clients for EC2")) from error
        except ValueError as error:  # what botocore raises for settings that it does not check itself
            setting = (
                "correct the setting in the environment or in ~/.aws/config; AWS_ENDPOINT_URL begins with http:// or "
                "https://"
            )
            raise Unreadable(explain(error, doing="make clients for EC2", first=setting)) from error
    return clients


def _lean(load_service_model: Callable[..., Any]) -> Callable[..., Any]:
    """``load_service_model`` of botocore's loader, with MODEL in the place of the model of EC2."""

    def load(service_name: str, type_name: str, *arguments: Any, **options: Any) -> Any:
        if (service_name, type_name) == ("ec2", "service-2"):
            return MODEL
        return load_service_model(service_name, type_name, *arguments, **options)

    return load


def _expected_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (BotoCoreError, ClientError, ResponseParserError, IncompleteAnswer)


def request(farm: str, states: Sequence[str]) -> dict[str, Any]:
    """The parameters of DescribeInstances that let only this farm's instances in these states through.

    ``*``, ``?`` and ``\\`` in a farm's name mean themselves (EC2 User Guide, "List and filter using the CLI and API").
    """
    literal = farm.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")
    return {
        "Filters": [
            {"Name": f"tag:{TAG_FARM}", "Values": [literal]},
            {"Name": "instance-state-name", "Values": list(states)},
        ],
        "MaxResults": PAGE_SIZE,
    }


def fetch(clients: Mapping[Place, Client], farm: str, states: Sequence[str]) -> list[Instance]:
    """All instances of the farm in all places, in the order of the places, which are asked at the same time.

    Raises Unreadable for the first place that fails: part of a farm is never taken for the farm.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(_MOST_AT_ONCE, len(clients)))) as pool:
        answers = {place: pool.submit(_fetch_place, client, farm, states) for place, client in clients.items()}
        found = []
        for place, answer in answers.items():
            try:
                found += answer.result()
            except _expected_errors() as error:
                doing = f"list the instances of farm '{farm}' in {place}"
                raise Unreadable(explain(error, doing=doing, first=_region_remedy(error, place))) from error
        return found


def _region_remedy(error: Exception, place: Place) -> str:
    """What helps when nobody answered because there is no such region; empty when it is not that.

    Asked only after an error: reading what botocore knows of regions takes a tenth of a second, and it may be too old
    to know one that is new.
    """
    import botocore.session
    from botocore.exceptions import ConnectionError as NobodyAnswers

    if not isinstance(error, NobodyAnswers):
        return ""
    session = botocore.session.Session(profile=place.profile)
    partitions = session.get_available_partitions()
    known = [region for partition in partitions for region in session.get_available_regions("ec2", partition)]
    if place.region in known:
        return ""
    return f"correct the region (botocore knows no '{place.region}': {did_you_mean(place.region, known)})"


def _fetch_place(client: Client, farm: str, states: Sequence[str]) -> list[Instance]:
    parameters = request(farm, states)
    found: list[Instance] = []
    tokens = set()
    while True:
        page = client.describe_instances(**parameters)
        # Filtered by EC2 already; said again because a host of another farm in this inventory would be a disaster.
        found += [instance for instance in page["Instances"] if instance.tags.get(TAG_FARM) == farm]
        token = page.get("NextToken")
        if not token:
            return found
        if token in tokens:
            raise IncompleteAnswer("the pages of the answer to DescribeInstances go in circles")
        tokens.add(token)
        parameters["NextToken"] = token


# ------------------------------------------------------------------------------------------------------------ reading


def _reader(region: str) -> Callable[..., None]:
    """A handler of botocore's event ``before-parse``: reads the answer, and leaves botocore an empty one to parse."""

    def read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
        if response_dict["status_code"] >= 300:
            return  # an error, which botocore knows how to read
        instances, token = read_page(response_dict["body"], region)
        customized_response_dict.update({"Instances": instances, "NextToken": token})
        response_dict["body"] = b"<DescribeInstancesResponse/>"

    return read


def read_page(body: bytes, region: str) -> tuple[list[Instance], str | None]:
    """The instances in one answer to DescribeInstances, and the token of the next page.

    Raises IncompleteAnswer when it is cut off, or not an answer of EC2.
    """
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise IncompleteAnswer(f"the answer to DescribeInstances is cut off or no XML ({error})") from error
    namespace, _, name = root.tag.rpartition("}")
    prefix = f"{namespace}}}" if namespace else ""
    reservations = root.find(f"{prefix}reservationSet")
    if name != "DescribeInstancesResponse" or reservations is None:
        raise IncompleteAnswer("the answer to DescribeInstances holds no list of reservations")
    reader = _PageReader(prefix, region)
    instances = []
    for reservation in reservations:
        listed = reservation.find(f"{prefix}instancesSet")
        if listed is None:
            raise IncompleteAnswer("a reservation in the answer to DescribeInstances holds no list of instances")
        account = reservation.findtext(f"{prefix}ownerId", "")
        instances += [reader.instance(instance, account) for instance in listed]
    return instances, root.findtext(f"{prefix}nextToken") or None


class _PageReader:
    """Takes instances out of the elements of one page. Texts that many of them share are kept once."""

    def __init__(self, prefix: str, region: str) -> None:
        self._prefix_length = len(prefix)
        self._region = region
        self._texts: dict[str, str] = {}
        self._key, self._value = f"{prefix}key", f"{prefix}value"
        self._name, self._zone = f"{prefix}name", f"{prefix}availabilityZone"
        self._attachment, self._index = f"{prefix}attachment", f"{prefix}deviceIndex"
        self._mac = f"{prefix}macAddress"

    def instance(self, element: ElementTree.Element, account: str) -> Instance:
        """One item of ``instancesSet`` (EC2 API Reference, Instance)."""
        start, once = self._prefix_length, self._once
        parts = {child.tag[start:]: child for child in element}

        def text(name: str) -> str:
            part = parts.get(name)
            return (part.text or "") if part is not None else ""

        def inside(name: str, child: str) -> str:
            part = parts.get(name)
            return part.findtext(child, "") if part is not None else ""

        instance_id, state = text("instanceId"), inside("instanceState", self._name)
        if not instance_id or not state:
            raise IncompleteAnswer("an instance in the answer to DescribeInstances has no id or no state")
        return Instance(
            instance_id=instance_id,
            state=once(state),
            tags={
                once(tag.findtext(self._key, "")): once(tag.findtext(self._value, ""))
                for tag in parts.get("tagSet", ())
            },
            region=self._region,
            account=once(account),
            zone=once(inside("placement", self._zone)),
            lifecycle=once(text("instanceLifecycle")),
            type=once(text("instanceType")),
            image=once(text("imageId")),
            launch_time=once(_utc(text("launchTime"))),
            mac=self._primary_mac(parts.get("networkInterfaceSet", ())),
            private_ip=text("privateIpAddress"),
            public_ip=text("ipAddress"),
            public_name=text("dnsName"),
            subnet=once(text("subnetId")),
            vpc=once(text("vpcId")),
        )

    def _once(self, text: str) -> str:
        return self._texts.setdefault(text, text)

    def _primary_mac(self, interfaces: Iterable[ElementTree.Element]) -> str:
        """The MAC of the network interface with device index 0, as EC2 writes it (``0a:1b:2c:3d:4e:5f``)."""
        for interface in interfaces:
            attachment = interface.find(self._attachment)
            if attachment is None or attachment.findtext(self._index, "0") == "0":
                return interface.findtext(self._mac, "")
        return ""


def _utc(moment: str) -> str:
    """A time of EC2 (``2026-10-14T08:00:00.000Z``) without fractions: ``2026-10-14T08:00:00Z``."""
    if not moment or _WHOLE_SECONDS.fullmatch(moment):
        return moment
    try:
        read = datetime.fromisoformat(moment)
    except ValueError as error:
        raise IncompleteAnswer(f"an instance in the answer to DescribeInstances was launched at '{moment}'") from error
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
