"""A served region for the plugins that talk to AWS."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from rehearsal.cloud import Cloud, CloudSettings

REGION = "eu-central-1"


@pytest.fixture
def cloud(monkeypatch) -> Iterator[Cloud]:
    """A region in which nothing takes time."""
    settings = CloudSettings(pending_seconds=0.0, stopping_seconds=0.0, image_seconds=0.0, images_complete_alone=True)
    server = Cloud(settings)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server.serve(listener)
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "*",
        }.items():
            monkeypatch.setenv(name, value)
        yield server
        server.stop()


@pytest.fixture(scope="session")
def botocore_session() -> Any:
    """Shared, because it keeps the service models."""
    return botocore.session.Session()


@pytest.fixture
def session(cloud, botocore_session) -> Callable[[str], Any]:
    """Clients as the modules make them, but quick to give up."""
    config = Config(retries={"mode": "standard", "max_attempts": 1})
    return lambda service: botocore_session.create_client(service, region_name=REGION, config=config)


@pytest.fixture
def client(session) -> Any:
    return session("ec2")
