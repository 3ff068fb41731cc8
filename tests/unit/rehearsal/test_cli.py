"""The command line and the environment of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehearsal import cli, faults
from rehearsal.interfaces import RehearsalError
from rehearsal.state import Folder

STATE = {"endpoint": "http://198.18.0.10:4566", "region": "eu-central-1"}


def machine(**changes: object) -> dict[str, object]:
    return {
        "name": "manager",
        "instance_id": "i-1",
        "role": "manager",
        "address": "10.0.0.10",
        "public_address": None,
        "ec2_state": "running",
        "state": "running",
        "faults": [],
        "launch_time": 1000.0,
        "error": "",
        "log": "/r/machine.log",
        **changes,
    }


def answer(*machines: dict[str, object], problem: str = "") -> dict[str, object]:
    return {
        **STATE,
        "started": 0.0,
        "daemon_pid": 7,
        "leaks": 0,
        "problem": problem,
        "machines": list(machines),
    }


def test_commands_see_the_region_and_no_real_account(tmp_path: Path) -> None:
    base = {
        "PATH": "/usr/bin",
        "AWS_PROFILE": "work",
        "https_proxy": "http://proxy",
        "HTTP_PROXY": "x",
        "HOME": "/root",
    }
    values = cli.environment(STATE, Folder(tmp_path), base)
    assert values["AWS_ENDPOINT_URL"] == "http://198.18.0.10:4566"
    assert (values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"]) == ("rehearsal", "rehearsal")
    assert values["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert values["AWS_EC2_METADATA_DISABLED"] == "true"
    assert values["RENDERFARM_STATE"] == str(tmp_path / "controller")
    assert values["ANSIBLE_INVENTORY"] == f"inventory,{tmp_path}/inventory"
    assert values["NO_PROXY"] == "*"
    assert values["HOME"] == "/root"
    assert not {"AWS_PROFILE", "https_proxy", "HTTP_PROXY"} & values.keys()
    assert values["PATH"].endswith(":/usr/bin")


def test_status_names_what_failed_and_where_to_look() -> None:
    text = cli.describe(answer(machine(state="failed", error="no disk"), problem="no bridge"), now=1030.0)
    assert "manager: no disk (log: /r/machine.log)" in text
    assert "the hypervisor cannot go on: no bridge" in text
    assert "30 s" in text


def test_status_of_nothing() -> None:
    assert "(nothing)" in cli.describe(answer(), now=0.0)


def test_age_is_short() -> None:
    assert [cli._age(seconds) for seconds in (5, 119, 600)] == ["5 s", "119 s", "10 min"]


def test_an_unknown_fault_is_answered_with_the_list() -> None:
    with pytest.raises(RehearsalError, match="there is no fault flood; faults:") as caught:
        faults.check("flood", [])
    for name in faults.FAULTS:
        assert name in str(caught.value)


def test_a_fault_with_wrong_arguments_is_answered_with_its_usage() -> None:
    with pytest.raises(RehearsalError, match="inject capacity TYPE ZONE N"):
        faults.check("capacity", ["c7i.4xlarge"])


@pytest.mark.parametrize("command", [["status"], ["exec", "--", "true"], ["inject", "kill", "m"]])
def test_commands_need_a_rehearsal(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "require_root", lambda: None)
    assert cli.main([command[0], "--dir", str(tmp_path), *command[1:]]) == 1
    assert f"python -m rehearsal up --dir {tmp_path}" in capsys.readouterr().err


def test_down_is_fine_when_nothing_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down", "--dir", str(tmp_path)]) == 0
    assert cli.main(["down", "--dir", str(tmp_path / "never")]) == 0
    assert "No rehearsal is up" in capsys.readouterr().out


def test_missing_programs_are_named_with_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.shutil, "which", lambda name, **_path: None if name in ("nft", "ip") else f"/bin/{name}")
    with pytest.raises(RehearsalError, match="ip, nft not found; install with: sudo apt-get install iproute2 nftables"):
        cli.require_programs()


def test_up_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.os, "geteuid", lambda: 1000)
    assert cli.main(["up", "--dir", str(tmp_path)]) == 1
    assert "sudo" in capsys.readouterr().err


def test_wrong_usage_ends_with_two() -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["explode"])
    assert caught.value.code == 2


def test_commands_run_on_the_pc_and_on_machines_that_are_up() -> None:
    machines = [
        {"name": "manager", "namespace": "i-1", "namespace_up": True},
        {"name": "node", "namespace": "i-2", "namespace_up": False},
    ]
    state = {"daemon_pid": 7, "controller_namespace_path": "/proc/7/root/run/netns/controller", "machines": machines}
    assert str(cli.place(state, None)) == "/proc/7/root/run/netns/controller"
    assert str(cli.place(state, "pc")) == "/proc/7/root/run/netns/pc"
    assert str(cli.place(state, "manager")) == "/proc/7/root/run/netns/i-1"
    with pytest.raises(RehearsalError, match="no machine 'node' is up; there are: controller, manager, pc"):
        cli.place(state, "node")
