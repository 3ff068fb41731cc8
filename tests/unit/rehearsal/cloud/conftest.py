"""A served region, emptied for each test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_ec2 import START, Aws, Clock

from rehearsal.cloud import Cloud, CloudSettings


@pytest.fixture(scope="session")
def call_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cloud") / "cloud.log"
    path.touch()
    return path


@pytest.fixture(scope="session")
def served(call_log: Path) -> Iterator[Aws]:
    clock = Clock()
    cloud = Cloud(CloudSettings(clock=clock, seed=7, call_log=call_log))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        cloud.serve(listening)
        try:
            yield Aws(cloud, clock, f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            cloud.stop()


@pytest.fixture
def aws(served: Aws) -> Aws:
    served.clock.seconds = START
    served.cloud.reset()
    return served
