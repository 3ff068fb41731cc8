"""Render nodes as records, at the stand-in of the manager."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from rehearsal import records as module
from rehearsal.backburner.client import manager_client
from rehearsal.backburner.protocol import ABSENT, IDLE, Connection
from rehearsal.records import Records
from tests.unit.rehearsal.views import instance


@pytest.fixture
def manager(farm, monkeypatch):
    """The manager's machine; its namespace is its own address on the loopback network."""
    made = farm.machine(1)

    def listening_socket(namespace: str, address: str, port: int) -> socket.socket:
        created = socket.create_server((namespace, port))
        created.setblocking(False)
        return created

    async def open_connection(namespace: str, address: str, port: int, *, timeout: float) -> Any:
        return await asyncio.open_connection(namespace, port, local_addr=(namespace, 0))

    monkeypatch.setattr(module.netns, "listening_socket", listening_socket)
    monkeypatch.setattr(module.netns, "open_connection", open_connection)
    return made


async def listed(manager) -> dict[str, int]:
    async with manager_client(manager.address) as client:
        return {server.name: server.state for server in await client.servers()}


async def until(manager, records: Records, nodes: Any, boot: Any, wanted: dict[str, int]) -> None:
    async with asyncio.timeout(5):
        while await listed(manager) != wanted:
            await records.sync(nodes, boot)
            await asyncio.sleep(0.02)


def test_records_are_registered_answer_pings_and_go(farm, play, manager):
    boot: Any = SimpleNamespace(namespace=manager.address, boots_seen=1)
    first, second = instance(1), instance(2)

    async def story() -> None:
        records = Records()
        await records.sync([first, second], boot)  # its service does not run yet: the next rounds try again
        farm.start_manager(manager)
        await farm.wait_for_line(manager, "Manager ready")
        both = {first.instance_id: IDLE, second.instance_id: IDLE}
        await until(manager, records, [first, second], boot, both)
        await asyncio.sleep(1.0)  # several rounds of the manager's pings
        assert await listed(manager) == both
        assert manager.backburner_log().count("Successful Registration") == 2
        await until(manager, records, [first], boot, {first.instance_id: IDLE, second.instance_id: ABSENT})
        await records.sync([], None)
        await farm.wait_for_line(manager, "is down", count=2)

    play(story())


def test_a_record_takes_no_task(farm, play, manager):
    async def story() -> None:
        records = Records()
        await records.sync([], SimpleNamespace(namespace=manager.address, boots_seen=1))  # type: ignore[arg-type]
        connection = Connection(*await asyncio.open_connection(manager.address, module.SERVER_PORT))
        await connection.greet()
        assert (await connection.command("ping")).code == 200
        assert (await connection.command('run {"job": 1}')).code == 500
        connection.close()
        await records.sync([], None)

    play(story())
