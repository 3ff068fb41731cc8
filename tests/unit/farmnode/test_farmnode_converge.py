"""Making a machine what it shall be, without a boot."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import Any

import pytest
from farmnode_fakes import BUILDER, LAN, NODE, SAMPLE, TUNNEL, Bench, instance

from farmnode import converge, machine
from farmnode.converge import Desired, parse_desired
from farmnode.errors import FarmNodeError
from farmnode.programs import Completed
from farmnode.services import MANAGER, SERVER

FILE = r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner\backburner.xml"
DESIRED: dict[str, Any] = {
    "manager": "10.0.0.10",
    "identity": NODE.as_json(),
    "routes": [{"network": "192.168.1.0/24", "gateway": "10.0.0.10", "metric": 1}],
}


def run(bench: Bench, desired: dict[str, Any] | None = None, *, check: bool = False) -> dict[str, Any]:
    wanted = converge.complete(parse_desired(DESIRED if desired is None else desired), bench.machine)
    return converge.apply(wanted, bench.machine, check=check).as_json(diff=True)


def test_result_and_second_run(bench: Bench) -> None:
    before = bench.file.read_bytes()
    result = run(bench)
    diff = result.pop("diff")
    assert result == {
        "changed": True,
        "path": FILE,
        "also_found": [],
        "identity": NODE.as_json(),
        "changes": {"ManagerName": ["localhost", "10.0.0.10"], "ServerName": ["ec2amaz-build01", "ip-10-0-0-21"]},
        "routes": {"added": [LAN.as_json()], "removed": [], "kept": []},
        "null_routes": {"added": [], "removed": [], "kept": []},
        "forwarding": None,
        "backup": FILE + ".bak",
    }
    assert diff["before"] == SAMPLE and "06:11:22:33:44:5f" in diff["after"]
    assert bench.file.with_name("backburner.xml.bak").read_bytes() == before
    assert bench.machine.state.identity() == NODE and bench.machine.state.routes() == {LAN}
    after = bench.file.read_bytes(), bench.machine.state.path.read_bytes()
    again = run(bench)
    assert again["changed"] is False and again["backup"] is None and again["changes"] == {}
    assert again["routes"] == {"added": [], "removed": [], "kept": [LAN.as_json()]}
    assert (bench.file.read_bytes(), bench.machine.state.path.read_bytes()) == after


def test_check_says_the_same_and_changes_nothing(bench: Bench) -> None:
    everything = sorted(bench.drive.rglob("*")), bench.file.read_bytes()
    bench.windows.services[SERVER].state = 4
    checked = run(bench, check=True)
    assert (sorted(bench.drive.rglob("*")), bench.file.read_bytes()) == everything
    assert {words[1] for words in bench.windows.calls} == {"PRINT", "query", "qc"}
    done = run(bench)
    assert checked | {"backup": done["backup"]} == done


def test_services_that_run_are_stopped_for_it(bench: Bench) -> None:
    bench.windows.services[SERVER].state = bench.windows.services[MANAGER].state = 4
    seen: list[tuple[str, bytes]] = []
    bench.windows.on_call = lambda words: seen.append((f"{words[1]} {words[2]}", bench.file.read_bytes()))
    run(bench)
    acts = [act for act in seen if act[0].split()[0] in ("start", "stop")]
    assert [name for name, _ in acts] == [f"stop {SERVER}", f"stop {MANAGER}", f"start {MANAGER}", f"start {SERVER}"]
    assert b"ip-10-0-0-21" not in acts[1][1] and b"ip-10-0-0-21" in acts[2][1]
    bench.windows.calls.clear()
    run(bench)
    assert {words[1] for words in bench.windows.called("sc.exe")} == {"qc"}, "nothing to change, nothing to stop"


def test_what_backburner_writes_while_it_stops_is_kept(bench: Bench) -> None:
    bench.windows.services[SERVER].state = 4

    def rewrite(words: list[str]) -> None:
        if words[1] == "stop":
            bench.put(SAMPLE.replace("128000", "256000"))

    bench.windows.on_call = rewrite
    run(bench)
    assert b"256000" in bench.file.read_bytes() and b"<ManagerName>10.0.0.10<" in bench.file.read_bytes()


def test_backburner_may_have_done_it_itself(bench: Bench) -> None:
    bench.windows.services[SERVER].state = 4
    before = bench.file.read_bytes()
    run(bench)
    right = bench.file.read_bytes()
    bench.file.write_bytes(before)
    bench.windows.on_call = lambda words: bench.file.write_bytes(right) and None if words[1] == "stop" else None
    assert run(bench)["backup"] is None


def test_services_run_again_after_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.windows.services[SERVER].state = bench.windows.services[MANAGER].state = 4
    before = bench.file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FarmNodeError, match="no room on the disk") as caught:
        run(bench)
    assert caught.value.reason == "disk_full"
    assert bench.file.read_bytes() == before
    assert bench.windows.services[SERVER].state == bench.windows.services[MANAGER].state == 4
    bench.windows.answers[("sc.exe", "start", MANAGER)] = Completed(5, "denied", "")
    with pytest.raises(FarmNodeError, match="no room on the disk"):
        run(bench)
    assert "BACKBURNER_MGR_200 was not started again: sc.exe start" in bench.log
    assert bench.windows.services[SERVER].state == 4


def _broken(bench: Bench) -> None:
    bench.put(SAMPLE.replace("</GeneralCfg>", ""))


def _read_only(bench: Bench) -> None:
    bench.file.chmod(0o444)


def _missing(bench: Bench) -> None:
    bench.file.unlink()


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("spoil", "change", "reason", "said"),
    [
        (_missing, {}, "missing_file", rf"{FILE}.*Install Backburner"),
        (_missing, {"path": FILE}, "missing_file", rf"{FILE} does not exist\. Start the Backburner service once"),
        (_broken, {}, "broken_xml", rf"{FILE} is not well-formed.*Restore it from"),
        (_read_only, {}, "unwritable_file", rf"{FILE} is read-only\. Clear the flag"),
        (None, {"manager": "nobody.invalid"}, "unknown_manager", "'nobody.invalid' is no address"),
        (None, {"manager": "10.0.0.999"}, "unknown_manager", "'10.0.0.999' is no address"),
        (None, {"routes": [{"network": "10.0.0.0/8", "gateway": "10.0.0.10"}]}, "route", "overlaps this machine's own"),
    ],
)
def test_errors_name_thing_and_remedy(
    bench: Bench, spoil: Any, change: dict[str, Any], reason: str, said: str, check: bool
) -> None:
    if spoil:
        spoil(bench)
    files = {path: path.read_bytes() for path in bench.drive.rglob("*") if path.is_file()}
    with pytest.raises(FarmNodeError, match=said.replace("\\", "\\\\").replace("\\\\.", "\\.")) as caught:
        run(bench, DESIRED | change, check=check)
    assert caught.value.reason == reason
    after = {path: path.read_bytes() for path in bench.drive.rglob("*") if path.is_file()}
    for name in ("farmnode.lock", "farmnode.log"):
        after.pop(bench.machine.folder / name, None)
    assert after == files and not bench.windows.persistent


def test_stale_routes_of_ours_go_and_others_stay(bench: Bench) -> None:
    other = replace(LAN, gateway=TUNNEL.gateway, network=TUNNEL.network, metric=7)
    run(bench)
    bench.windows.persistent.add(other)
    bench.windows.active.add(other)
    result = run(bench, {"routes": []})
    assert result["routes"] == {"added": [], "removed": [LAN.as_json()], "kept": []}
    assert (result["path"], result["identity"], result["changes"]) == (None, None, {})
    assert result["diff"] == {"before": "", "after": ""}
    assert bench.windows.persistent == {other}
    assert bench.machine.state.routes() == frozenset()


def test_routes_stay_ours_when_setting_them_fails(bench: Bench) -> None:
    bench.windows.answers[("route.exe", "-p")] = Completed(1, "", "no")
    with pytest.raises(FarmNodeError, match="ended with 1: no"):
        run(bench)
    assert bench.machine.state.routes() == {LAN}


def test_a_route_that_vanished_from_the_machine_is_forgotten_or_set_again(bench: Bench) -> None:
    run(bench)
    bench.windows.persistent.clear()
    bench.windows.active.clear()
    assert run(bench)["routes"]["added"] == [LAN.as_json()]
    bench.windows.persistent.clear()
    result = run(bench, {"routes": []})
    assert result["changed"] is False and bench.machine.state.routes() == frozenset()


def test_a_route_that_is_not_in_use_is_set_again(bench: Bench) -> None:
    run(bench)
    bench.windows.active.clear()
    assert run(bench)["routes"] == {"added": [LAN.as_json()], "removed": [], "kept": []}
    assert bench.windows.active == {LAN}


def test_identity_and_mask_come_from_the_instance(bench: Bench) -> None:
    bench.metadata.answer = instance()
    bench.put(SAMPLE.replace("255.255.255.0", "255.0.0.0"))
    result = run(bench, {"manager": "10.0.0.10"})
    assert result["identity"] == NODE.as_json()
    assert result["changes"]["NetworkMask"] == ["255.0.0.0", "255.255.255.0"]
    result = run(bench, {"manager": "10.0.0.10", "network_mask": "255.255.0.0", "server_name": "10.0.0.21"})
    assert result["changes"] == {
        "NetworkMask": ["255.255.255.0", "255.255.0.0"],
        "ServerName": ["ip-10-0-0-21", "10.0.0.21"],
    }
    bench.metadata.answer = None
    with pytest.raises(FarmNodeError, match=r"is silent\. Outside of EC2 give 'identity'"):
        run(bench, {"manager": "10.0.0.10"})


def test_the_identity_that_was_written_last_is_replaced_too(bench: Bench) -> None:
    run(bench)
    moved = replace(NODE, mac="06:99:99:99:99:99", name="ip-10-0-0-22", address="10.0.0.22")
    run(bench, DESIRED | {"identity": moved.as_json()})
    text = bench.file.read_text("utf-8")
    assert NODE.name not in text and NODE.mac not in text.lower() and BUILDER.mac not in text.lower()
    assert bench.machine.state.identity() == moved


def test_without_an_image_only_elements_are_set(bench: Bench) -> None:
    bench.machine.state.image_path.unlink()
    run(bench)
    assert "06AABBCCDDEE0000" in bench.file.read_text("utf-8")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "is a JSON object"),
        ({}, "names no manager"),
        ({"manager_port": 1}, "names no manager"),
        ({"manager": None, "routes": None}, "names no manager"),
        ({"manager": "a", "speed": 1}, "has speed; known are"),
        ({"manager": "a b"}, "manager must be a host name or an address"),
        ({"manager": 1}, "manager must be"),
        ({"manager": "-a"}, "manager must be"),
        ({"manager": "a", "server_name": "<x>"}, "server_name must be"),
        ({"manager": "a", "manager_port": 0}, "manager_port must be a port"),
        ({"manager": "a", "server_port": "3233"}, "server_port must be a port"),
        ({"manager": "a", "network_mask": "255.0.255.0"}, "network_mask must be a mask"),
        ({"manager": "a", "network_mask": "0.0.0.255"}, "network_mask must be a mask"),
        ({"manager": "a", "network_mask": "24"}, "network_mask must be a mask"),
        ({"manager": "a", "network_mask": 24}, "network_mask must be a mask"),
        ({"manager": "a", "path": ""}, "path must be"),
        ({"manager": "a", "path": 1}, "path must be"),
        ({"manager": "a", "identity": {}}, "identity must have"),
        ({"routes": {}}, "routes must be a list"),
        ({"routes": [LAN.as_json()] * 2}, "names a route twice"),
    ],
)
def test_a_desired_state_that_is_not_understood(data: Any, said: str) -> None:
    with pytest.raises(FarmNodeError, match=said) as caught:
        parse_desired(data)
    assert caught.value.reason == "bad_desired_state"


def test_a_whole_desired_state(bench: Bench) -> None:
    assert parse_desired(
        {
            "manager": "mgr.studio",
            "manager_port": 1,
            "server_port": 65535,
            "network_mask": "255.255.255.128",
            "server_name": "a",
            "identity": NODE.as_json(),
            "path": r"C:\x.xml",
            "routes": [],
        }
    ) == Desired("mgr.studio", 1, 65535, "255.255.255.128", "a", NODE, bench.drive / "x.xml", ())


def test_two_at_a_time_wait_for_each_other(bench: Bench) -> None:
    with (
        bench.machine.alone(),
        pytest.raises(FarmNodeError, match=r"another farmnode holds .*farmnode\.lock .* than 90 seconds") as caught,
    ):
        run(bench)
    assert caught.value.reason == "busy" and bench.clock.passed == 90
    assert run(bench)["changed"] is True


def test_a_folder_that_cannot_be_written(bench: Bench) -> None:
    blocked = machine.Machine(clock=bench.clock, folder=bench.file / "x")
    with pytest.raises(FarmNodeError, match=r"cannot write .*farmnode\.lock: Not a directory"), blocked.alone():
        pass
