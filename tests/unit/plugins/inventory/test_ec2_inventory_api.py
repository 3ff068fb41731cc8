"""DescribeInstances: what is asked, and what recorded answers, whole and broken, are taken for."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import botocore.session
import pytest
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import ec2_inventory as ec2
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import ec2_inventory_api as api
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench import recorded

REGION = "eu-central-1"
STATES = ["pending", "running"]
NONE = recorded.page("")


def refusal(code: str, message: str = "No.") -> bytes:
    """An error as EC2 writes it (EC2 API Reference, "Error codes")."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
        f"<Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>ea966190-f9aa-478e-9ede-example</RequestID></Response>"
    ).encode()


class Region:
    """A server that gives prepared answers, one after the other, the last one again and again.

    Who asks for the region ``refused`` has no right to.
    """

    def __init__(self) -> None:
        self.refused = ""
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[dict[str, list[str]]] = []
        region = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                region.asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                signed_for = re.findall(r"/([a-z0-9-]+)/ec2/", self.headers["Authorization"])
                region.asked[-1]["signed_for"] = signed_for
                if signed_for == [region.refused]:
                    status, body = 403, refusal("UnauthorizedOperation")
                else:
                    status, body = region.answers.pop(0) if len(region.answers) > 1 else region.answers[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def region(monkeypatch) -> Iterator[Region]:
    server = Region()
    for name in ("AWS_PROFILE", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    yield server
    server.close()


def fetch(*regions: str) -> list[Any]:
    return api.fetch(api.connect([], regions or [REGION]), "studio", STATES)


def nodes(*numbers: int) -> str:
    return "".join(map(recorded.item, numbers))


# ------------------------------------------------------------------------------------------------------------- asking


def test_what_is_asked(region):
    region.answers = [(200, recorded.page(nodes(1)))]
    assert len(fetch()) == 1
    (asked,) = region.asked
    assert asked == {
        "Action": ["DescribeInstances"],
        "Version": ["2016-11-15"],
        "Filter.1.Name": ["tag:renderfarm:farm"],
        "Filter.1.Value.1": ["studio"],
        "Filter.2.Name": ["instance-state-name"],
        "Filter.2.Value.1": ["pending"],
        "Filter.2.Value.2": ["running"],
        "MaxResults": ["1000"],
        "signed_for": [REGION],
    }


def test_all_pages_are_read(region):
    region.answers = [
        (200, recorded.page(nodes(1, 2), "one")),
        (200, recorded.page("", "two")),  # an empty page is no end
        (200, recorded.page(nodes(3))),
    ]
    assert [one.private_ip for one in fetch()] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert [asked.get("NextToken") for asked in region.asked] == [None, ["one"], ["two"]]


def test_pages_in_circles_are_an_error(region):
    region.answers = [(200, recorded.page(nodes(1), "again"))]
    with pytest.raises(api.Unreadable, match="go in circles"):
        fetch()


def test_regions_are_asked_side_by_side_and_keep_their_order(region):
    region.answers = [(200, recorded.page(nodes(1)))]
    found = fetch("eu-west-1", REGION, "us-west-2")
    assert [one.region for one in found] == ["eu-west-1", REGION, "us-west-2"]
    assert sorted(asked["signed_for"][0] for asked in region.asked) == [REGION, "eu-west-1", "us-west-2"]


def test_places_wait_for_each_other_in_parallel():
    meet = threading.Barrier(3, timeout=10)

    class Client:
        def describe_instances(self, **_: Any) -> dict[str, Any]:
            meet.wait()  # breaks unless all three are asked at the same time
            return {"Instances": []}

    clients = {api.Place(None, name): Client() for name in ("a", "b", "c")}
    assert api.fetch(clients, "studio", STATES) == []


def test_each_account_is_asked_with_its_own_credentials(region, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(
        "".join(f"[{name}]\naws_access_key_id = {name}\naws_secret_access_key = x\n" for name in ("main", "overflow"))
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    region.answers = [(200, recorded.page(nodes(1))), (200, recorded.page(nodes(2)))]
    clients = api.connect(["main", "overflow"], [REGION, "eu-west-1"])
    assert list(clients) == [
        api.Place("main", REGION),
        api.Place("main", "eu-west-1"),
        api.Place("overflow", REGION),
        api.Place("overflow", "eu-west-1"),
    ]
    assert [client._request_signer._credentials.access_key for client in clients.values()] == [
        *["main"] * 2,
        *["overflow"] * 2,
    ]
    region.answers = [(401, refusal("AuthFailure"))]
    with pytest.raises(api.Unreadable, match=r"in region eu-central-1 with profile main: .*Remedy: check the cred"):
        api.fetch(clients, "studio", STATES)


def test_an_unknown_profile_is_told_with_a_remedy():
    with pytest.raises(api.Unreadable, match=r"nosuch.*list-profiles"):
        api.connect(["nosuch"], [REGION])


def test_an_endpoint_without_its_scheme_is_told_with_a_remedy(region, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:4566")
    with pytest.raises(api.Unreadable, match=r"localhost:4566.*Remedy: .*AWS_ENDPOINT_URL begins with http://"):
        fetch()


def test_wildcards_in_the_name_of_a_farm_mean_themselves():
    assert api.request("a*b?\\", ["running"])["Filters"][0]["Values"] == ["a\\*b\\?\\\\"]


def test_the_lean_model_says_what_botocore_says():
    whole = botocore.session.Session().get_component("data_loader").load_service_model("ec2", "service-2")
    assert whole["version"] == api.MODEL.get("version") and whole["metadata"] == api.MODEL["metadata"]
    for name, operation in api.MODEL["operations"].items():
        assert {key: whole["operations"][name][key] for key in operation} == operation
    for name, shape in api.MODEL["shapes"].items():
        theirs = whole["shapes"][name]
        assert theirs["type"] == shape["type"] and theirs.get("member") == shape.get("member")
        for member, said in shape.get("members", {}).items():
            assert {key: theirs["members"][member][key] for key in said} == said


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "UnauthorizedOperation", "allow the action"),
        (401, "AuthFailure", "check the credentials"),
        (400, "RequestExpired", "log in again"),
        (400, "ExpiredToken", "log in again"),
        (403, "SignatureDoesNotMatch", "the clock of this machine"),
        (401, "OptInRequired", "enable the region"),
    ],
)
def test_a_refusal_is_an_error_with_a_remedy(region, status, code, words):
    region.answers = [(status, refusal(code))]
    with pytest.raises(api.Unreadable, match=rf"instances of farm 'studio' in region {REGION}: .*{words}"):
        fetch()
    assert len(region.asked) == 1


def test_throttling_is_waited_out(region):
    region.answers = [(503, refusal("RequestLimitExceeded"))] * 3 + [(200, recorded.page(nodes(1)))]
    assert len(fetch()) == 1
    assert len(region.asked) == 4


def test_throttling_without_end_is_an_error(region):
    region.answers = [(503, refusal("RequestLimitExceeded"))]
    with pytest.raises(api.Unreadable, match="Remedy: EC2 throttles this account: wait a minute"):
        fetch()
    assert len(region.asked) == 9


def test_a_server_error_is_tried_again(region):
    region.answers = [(500, refusal("InternalError")), (200, recorded.page(nodes(1)))]
    assert len(fetch()) == 1


def test_a_page_that_fails_fails_all(region):
    region.answers = [(200, recorded.page(nodes(1), "one")), (403, refusal("UnauthorizedOperation"))]
    with pytest.raises(api.Unreadable, match="allow the action"):
        fetch()


def test_one_region_that_fails_fails_all_and_is_named(region):
    region.answers, region.refused = [(200, recorded.page(nodes(1)))], "eu-west-1"
    with pytest.raises(api.Unreadable, match=r"in region eu-west-1: .*Remedy: allow the action"):
        fetch(REGION, "eu-west-1", "us-west-2")
    assert len(region.asked) == 3


def test_no_network_is_an_error_with_a_remedy(region, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(api.Unreadable, match="Remedy: check the network"):
        fetch()


def test_a_server_that_says_nothing_is_an_error_before_long(region, monkeypatch):
    pauses = 1 + 2 + 4 + 8 + 16 + 20 + 20 + 20  # at most, in any version of botocore
    assert 9 * api._READ_TIMEOUT + pauses < 4 * 60
    monkeypatch.setattr(api, "_READ_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=20) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(api.Unreadable, match=r"Read timeout.*Remedy: check the network"):
            fetch()
        asked = 0
        silent.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                asked += 1
    assert asked == 9


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("eu-centrl-1", r"Remedy: correct the region \(.*did you mean 'eu-central-1'\?\); check the network"),
        ("us-gov-wst-1", "did you mean 'us-gov-west-1'"),
        ("eu-central-1", "Remedy: check the network"),
        ("cn-north-1", "Remedy: check the network"),
    ],
)
def test_a_region_that_nobody_knows_is_told_when_nobody_answers(region, monkeypatch, name, words):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(api.Unreadable, match=words):
        fetch(name)


def test_a_region_that_answers_is_not_taken_for_a_misspelt_one(region):
    region.answers = [(403, refusal("UnauthorizedOperation"))]
    with pytest.raises(api.Unreadable, match="Remedy: allow the action"):
        fetch("eu-central-9")


def test_a_mistake_of_our_own_is_not_taken_for_ec2s():
    class Mistaken:
        def describe_instances(self, **_: Any) -> dict[str, Any]:
            raise KeyError("oops")

    with pytest.raises(KeyError):
        api.fetch({api.Place(None, REGION): Mistaken()}, "studio", STATES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Welcome to the hotel</body></html>",
        b"<html><body><p>Welcome to the hotel</body>",
        b'{"Reservations": []}',
        b"<DescribeInstancesResponse/>",
        b"<DescribeVolumesResponse><reservationSet/></DescribeVolumesResponse>",
        recorded.page(nodes(1) + "<item><ownerId>1</ownerId></item>"),
        recorded.page(nodes(1)).replace(b"<instanceId>i-00000000000000001</instanceId>", b""),
        recorded.page(nodes(1)).replace(b"<name>running</name>", b""),
        recorded.page(nodes(1)).replace(b"2026-10-14T08:00:01.000Z", b"yesterday"),
    ],
)
def test_half_an_answer_is_an_error(region, body):
    region.answers = [(200, body)]
    with pytest.raises(api.Unreadable, match="Remedy: run it again"):
        fetch()


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(recorded.page(nodes(1, 2))) - 2))
def test_an_answer_that_is_cut_anywhere_is_an_error(end):
    with pytest.raises(api.IncompleteAnswer):
        api.read_page(recorded.page(nodes(1, 2))[:end], REGION)


def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_an_error(region, monkeypatch):
    send, body = BaseHTTPRequestHandler.send_header, recorded.page(nodes(1))
    monkeypatch.setattr(
        BaseHTTPRequestHandler,
        "send_header",
        lambda self, name, value: send(self, name, str(len(body)) if name == "Content-Length" else value),
    )
    region.answers = [(200, body[: len(body) // 2])]
    with pytest.raises(api.Unreadable, match="Remedy: run it again"):
        fetch()


# ------------------------------------------------------------------------------------------------------------ reading


def read(body: str) -> Any:
    (found,), _ = api.read_page(recorded.page(body), REGION)
    return found


def test_a_recorded_answer():
    assert read(recorded.item(5))._asdict() == {
        "instance_id": "i-00000000000000005",
        "state": "running",
        "tags": {
            "Name": "studio-render-node",
            "renderfarm:farm": "studio",
            "renderfarm:role": "render_node",
            "renderfarm:image": "studio-2026-10-14",
            "aws:ec2:fleet-id": "fleet-01234567-89ab-cdef-0123-456789abcdef",
        },
        "region": REGION,
        "account": "123456789012",
        "zone": "eu-central-1c",
        "lifecycle": "spot",
        "type": "c7i.4xlarge",
        "image": "ami-0123456789abcdef0",
        "launch_time": "2026-10-14T08:00:05Z",
        "mac": "0a:00:00:00:00:05",
        "private_ip": "10.0.0.5",
        "public_ip": "",
        "public_name": "",
        "subnet": "subnet-0223456789abcdef0",
        "vpc": "vpc-0123456789abcdef0",
    }


def test_an_instance_that_says_little():
    found = read(
        "<item><instancesSet><item><instanceId>i-1</instanceId><instanceState><name>terminated</name></instanceState>"
        "</item></instancesSet></item>"
    )
    assert (found.instance_id, found.state, found.region) == ("i-1", "terminated", REGION)
    assert found.tags == {} and found.mac == found.private_ip == found.launch_time == found.account == ""


def test_several_instances_of_one_reservation():
    inner = re.findall(r"<instancesSet>(.*)</instancesSet>", recorded.item(1) + "\n" + recorded.item(2))
    body = f"<item><ownerId>1</ownerId><instancesSet>{''.join(inner)}</instancesSet></item>"
    assert len(api.read_page(recorded.page(body), REGION)[0]) == 2


@pytest.mark.parametrize(
    "value",
    [
        "{{ 7 * 7 }}",
        "{% raw %}",
        "a\nb: c",
        "\t",
        "ключ ü 渲染 🎬",
        "ü" * 256,
        "<value>&amp;</value>",
        "]]>",
        "",
        "!vault |",
    ],
)
def test_hostile_tags_stay_the_texts_that_they_are(value):
    def escaped(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    body = recorded.item(1).replace(
        "<tagSet>", f"<tagSet><item><key>{escaped(value)}</key><value>{escaped(value)}</value></item>"
    )
    assert read(body).tags[value] == value


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("2026-10-14T08:00:01.000Z", "2026-10-14T08:00:01Z"),
        ("2026-10-14T08:00:01Z", "2026-10-14T08:00:01Z"),
        ("2026-10-14T10:00:01+02:00", "2026-10-14T08:00:01Z"),
        ("", ""),
    ],
)
def test_launch_time_is_told_in_utc(written, told):
    assert read(recorded.item(1).replace("2026-10-14T08:00:01.000Z", written)).launch_time == told


def test_the_public_name_is_told():
    name = "ec2-198-51-100-9.eu-central-1.compute.amazonaws.com"
    found = read(recorded.item(1).replace("<dnsName/>", f"<dnsName>{name}</dnsName>"))
    assert found.public_name == name and ec2.host_variables(found, address="tunnel")["farm_public_name"] == name


def test_the_mac_is_that_of_the_first_interface():
    second = (
        "<networkInterfaceSet><item><macAddress>0a:ff</macAddress>"
        "<attachment><deviceIndex>1</deviceIndex></attachment></item>"
    )
    assert read(recorded.item(1).replace("<networkInterfaceSet>", second)).mac == "0a:00:00:00:00:01"


def test_an_older_notation_of_the_namespace_is_read():
    body = recorded.page(nodes(1))
    for namespace in (b' xmlns="http://ec2.amazonaws.com/doc/2013-10-15/"', b""):
        other = body.replace(b' xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"', namespace)
        assert api.read_page(other, REGION) == api.read_page(body, REGION)


def test_instances_of_other_farms_never_appear(region):
    stranger = recorded.item(2).replace("<value>studio</value>", "<value>studio2</value>")
    naked = re.sub("<tagSet>.*?</tagSet>", "", recorded.item(3))
    region.answers = [(200, recorded.page(nodes(1) + stranger + naked))]
    assert [one.private_ip for one in fetch()] == ["10.0.0.1"]


def test_an_empty_farm_is_no_error(region):
    region.answers = [(200, NONE)]
    assert fetch() == []
