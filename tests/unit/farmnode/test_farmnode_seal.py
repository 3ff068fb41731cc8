"""Sealing an image, and what status says."""

from __future__ import annotations

import json

import pytest
from farmnode_fakes import BUILDER, NODE, SAMPLE, Bench, instance

from farmnode.boot import Boot
from farmnode.errors import FarmNodeError
from farmnode.seal import seal
from farmnode.services import MANAGER, SERVER
from farmnode.status import status

SECTION = SAMPLE[SAMPLE.index("    <ServerSettings>") : SAMPLE.index("    <ManagerSettings>")]


@pytest.fixture
def builder(bench: Bench) -> Bench:
    """A builder on which Backburner was installed and never ran."""
    bench.metadata.answer = instance("", tag="builder", identity=BUILDER)
    bench.machine.state.image_path.unlink()
    bench.file.unlink()
    for service in bench.windows.services.values():
        service.start_type = 2

    def backburner(words: list[str]) -> None:
        if words[:3] == ["sc.exe", "start", MANAGER] and not bench.file.exists():
            bench.put(SAMPLE.replace(SECTION, ""))
        elif words[:3] == ["sc.exe", "start", SERVER]:
            bench.put()

    bench.windows.on_call = backburner
    return bench


def test_builder_that_started_from_a_farms_image_takes_its_file_over(builder: Bench) -> None:
    """Else the new image would name this builder in image.json and the one before in backburner.xml."""
    seal(builder.machine)
    assert BUILDER.mac in builder.file.read_text("utf-8").lower().replace("-", ":")
    builder.metadata.answer = instance("", tag="builder", identity=NODE)
    assert seal(builder.machine)["changed"] is True
    text = builder.file.read_text("utf-8").lower()
    assert "0611223344" in text.replace("-", "").replace(":", "")
    assert "06aabbccdd" not in text.replace("-", "").replace(":", "")
    assert json.loads(builder.machine.state.image_path.read_text())["mac"] == NODE.mac
    assert seal(builder.machine)["changed"] is False


def test_seal_and_seal_again(builder: Bench) -> None:
    result = seal(builder.machine)
    assert result["changed"] is True
    assert result["path"].endswith(r"LocalService\AppData\Local\backburner\backburner.xml")
    assert json.loads(builder.machine.state.image_path.read_text()) == {
        "mac": "06:aa:bb:cc:dd:ee",
        "name": "ip-10-0-0-200",
        "address": "10.0.0.200",
        "computer_name": "EC2AMAZ-BUILD01",
    }
    for name in (SERVER, MANAGER):
        assert (builder.windows.services[name].state, builder.windows.services[name].start_type) == (1, 3)
    builder.windows.calls.clear()
    assert seal(builder.machine) == result | {"changed": False}
    assert {words[1] for words in builder.windows.calls} == {"query", "qc"}


def test_seal_stops_what_runs(builder: Bench) -> None:
    builder.put()
    builder.windows.services[SERVER].state = 4
    assert seal(builder.machine)["changed"] is True
    assert builder.windows.services[SERVER].state == 1


def test_a_file_that_never_comes_or_lacks_something(builder: Bench) -> None:
    builder.windows.on_call = lambda words: None
    with pytest.raises(FarmNodeError, match=r"backburner.xml is in none of"):
        seal(builder.machine)
    assert builder.clock.passed == 60
    builder.windows.on_call = lambda words: builder.put(SAMPLE.replace(SECTION, "")) and None
    with pytest.raises(FarmNodeError, match="lacks ManagerName, ServerName"):
        seal(builder.machine)


def test_a_missing_service_fails_the_bake(builder: Bench) -> None:
    del builder.windows.services[MANAGER]
    with pytest.raises(FarmNodeError, match="no service BACKBURNER_MGR_200"):
        seal(builder.machine)


def test_status_before_and_after_a_boot(builder: Bench) -> None:
    assert status(builder.machine) == {
        "event": "none",
        "instance": None,
        "role": None,
        "phase": None,
        "reason": None,
        "started": None,
        "seconds": None,
        "phases": {},
        "identity": None,
        "path": None,
        "routes": [],
        "watch": None,
        "project": None,
        "services": {MANAGER: "stopped", SERVER: "stopped"},
    }
    Boot(builder.machine).run()
    del builder.windows.services[SERVER]
    after = status(builder.machine)
    assert (after["event"], after["role"], after["phases"]) == ("ready", "builder", {"metadata": 0, "role": 0})
    assert after["services"] == {MANAGER: "stopped", SERVER: "missing"}
