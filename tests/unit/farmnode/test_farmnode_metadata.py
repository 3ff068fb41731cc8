"""The metadata client against a local server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from farmnode_fakes import NODE, FakeClock

from farmnode.errors import FarmNodeError
from farmnode.metadata import MetadataClient

DATA = {
    "meta-data/mac": b"06:11:22:33:44:5f",
    "meta-data/instance-id": b"i-0123456789abcdef0",
    "meta-data/local-ipv4": b"10.0.0.21",
    "meta-data/local-hostname": b"ip-10-0-0-21.eu-central-1.compute.internal",
    "meta-data/network/interfaces/macs/06:11:22:33:44:5f/subnet-ipv4-cidr-block": b"10.0.0.0/24\n",
    "meta-data/tags/instance/renderfarm:role": b"render_node\n",
    "user-data": b"<farm>{}</farm>\xff",
}


class Service:
    """IMDSv2 with a script of failures: statuses to answer before the true ones; None closes the connection."""

    def __init__(self) -> None:
        self.data = dict(DATA)
        self.failures: list[int | None] = []
        self.requests: list[tuple[str, str]] = []
        self.tokens = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
                self.answer("PUT", lambda: service.token())

            def do_GET(self) -> None:
                self.answer("GET", lambda: service.find(self.path, self.headers["X-aws-ec2-metadata-token"]))

            def answer(self, method: str, find: Any) -> None:
                service.requests.append((method, self.path))
                status, body = (service.failures.pop(0), b"") if service.failures else find()
                if status is None:
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"127.0.0.1:{self.server.server_port}"

    def token(self) -> tuple[int, bytes]:
        self.tokens += 1
        return 200, f"token-{self.tokens}".encode()

    def find(self, path: str, token: str) -> tuple[int, bytes]:
        if token != f"token-{self.tokens}":
            return 401, b""
        body = self.data.get(path.removeprefix("/latest/"))
        return (404, b"") if body is None else (200, body)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must be ignored
    made = Service()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_an_instance_in_eight_requests(service: Service) -> None:
    found = MetadataClient(FakeClock(), endpoint=service.endpoint).instance()
    assert found.identity == NODE
    assert found.address == IPv4Address("10.0.0.21")
    assert found.subnet == IPv4Network("10.0.0.0/24")
    assert (found.role_tag, found.user_data) == ("render_node", b"<farm>{}</farm>\xff")
    assert len(service.requests) == 8 and service.tokens == 1


def test_tag_and_user_data_may_be_missing(service: Service) -> None:
    del service.data["user-data"], service.data["meta-data/tags/instance/renderfarm:role"]
    found = MetadataClient(FakeClock(), endpoint=service.endpoint).instance()
    assert (found.role_tag, found.user_data) == (None, b"")


def test_failures_that_pass_are_waited_for(service: Service) -> None:
    clock = FakeClock()
    service.failures = [500, None, 503, 400]
    client = MetadataClient(clock, endpoint=service.endpoint)
    assert client.require("meta-data/mac") == "06:11:22:33:44:5f"
    assert clock.passed == 0.25 + 0.5 + 1 + 2
    service.failures = [500]
    assert client.require("meta-data/mac") == "06:11:22:33:44:5f"
    assert service.tokens == 1


def test_an_expired_token_is_renewed(service: Service) -> None:
    client = MetadataClient(FakeClock(), endpoint=service.endpoint)
    client.get("user-data")
    service.tokens += 1
    assert client.get("user-data") == DATA["user-data"]
    assert service.tokens == 3


def test_switched_off_is_final(service: Service) -> None:
    service.failures = [403]
    with pytest.raises(FarmNodeError, match="switched off for this instance"):
        MetadataClient(FakeClock(), endpoint=service.endpoint).get("user-data")


def test_silence_ends_at_the_limit_of_all_questions_together() -> None:
    clock = FakeClock()
    client = MetadataClient(clock, endpoint="127.0.0.1:9", limit=30)
    with pytest.raises(FarmNodeError, match=r"did not give meta-data/mac within 30 seconds \(.*refused") as caught:
        client.instance()
    assert caught.value.reason == "metadata"
    assert clock.passed == 30
    with pytest.raises(FarmNodeError):
        client.get("user-data")
    assert clock.passed == 30


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("meta-data/local-hostname", None, "no meta-data/local-hostname"),
        ("meta-data/instance-id", b" ", "no meta-data/instance-id"),
        ("meta-data/local-ipv4", b"ten", "no usable address"),
    ],
)
def test_what_is_missing_is_named(service: Service, path: str, body: bytes | None, said: str) -> None:
    if body is None:
        del service.data[path]
    else:
        service.data[path] = body
    with pytest.raises(FarmNodeError, match=said):
        MetadataClient(FakeClock(), endpoint=service.endpoint).instance()
