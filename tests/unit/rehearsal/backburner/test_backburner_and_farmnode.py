"""The product's own code against the stand-ins: what farmnode edits and asks is what they read and answer."""

from __future__ import annotations

import asyncio

import pytest

from farmnode import backburner_xml
from farmnode.clock import Clock
from farmnode.identity import Identity
from farmnode.manager import servers
from rehearsal.backburner.host import write_file
from rehearsal.backburner.settings import API_SETTINGS, SETTINGS_FILE, load


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_clone_that_farmnode_edited_registers_as_itself(farm, play, monkeypatch, encoding: str):
    async def story() -> None:
        manager = farm.machine(1)
        builder = farm.machine(2, mac="02:b1:1d:e4:00:01", name="EC2AMAZ-BUILDER")
        write_file(builder.files, API_SETTINGS, f"SettingsEncoding={encoding}\r\n".encode())
        load(builder, "ServerSettings")
        load(builder, "ManagerSettings")
        node = farm.clone(builder, 3)
        monkeypatch.setenv("SystemDrive", str(node.root))
        name = "ip-" + node.address.replace(".", "-")
        edit = backburner_xml.edit(
            node.files.real(SETTINGS_FILE),
            [Identity(builder.platform.nic.mac, "builder", builder.address, builder.computer_name)],
            Identity(node.platform.nic.mac, name, node.address),
            {"ManagerName": manager.address, "ServerName": name},
        )
        backburner_xml.write(edit)
        text = node.settings.decode("utf-16" if encoding == "utf-16" else "utf-8").lower()
        for trace in ("b11de4", "b1:1d", "b1-1d", "builder", builder.address):
            assert trace not in text
        farm.start_manager(manager)
        farm.start_server(node)
        await farm.wait_for_line(node, "accepted")
        listed = await asyncio.to_thread(servers, manager.address, 3234, Clock())
        assert [(server.handle, server.name) for server in listed] == [(node.handle, name)]

    play(story())
