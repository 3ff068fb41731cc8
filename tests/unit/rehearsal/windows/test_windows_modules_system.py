"""win_regedit, win_reg_stat, win_service(_info), win_user, win_share, win_acl, win_hosts, firewall, tasks, packages."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from windows_bench import CODE, PACKAGE, Answer, Bench

from rehearsal.winrm import specs

Run = Callable[[Any], Any]
KEY = "HKLM:\\SOFTWARE\\Farm"


async def settles(bench: Bench, name: str, /, **task: Any) -> dict[str, Any]:
    """Check mode says changed and changes nothing, the run changes, a second run and its check mode do not."""
    bench.host.state.save()
    before = json.dumps(bench.host.state.values, sort_keys=True)
    looked = await bench.module(name, check=True, diff=True, **task)
    if name != "win_acl" or specs.specification("ansible.windows.win_acl").supports_check_mode:
        assert looked["changed"] and not looked.get("failed"), looked
    else:  # older releases of ansible.windows
        assert looked["skipped"] and not looked["changed"], looked
    assert json.dumps(bench.host.state.values, sort_keys=True) == before, "check mode changed something"
    done = await bench.module(name, **task)
    assert done["changed"] and not done.get("failed"), done
    for check in (False, True):
        again = await bench.module(name, check=check, **task)
        assert not again["changed"] and not again.get("failed"), again
    return done


# --------------------------------------------------------------------------------------------------------- win_regedit


@pytest.mark.parametrize(
    ("task", "type_name", "value"),
    [
        ({"name": "a", "data": "text"}, "REG_SZ", "text"),
        ({"name": "a"}, "REG_SZ", ""),
        ({"data": "default"}, "REG_SZ", "default"),
        ({"name": "a", "data": 1, "type": "dword"}, "REG_DWORD", 1),
        ({"name": "a", "data": "0xffffffff", "type": "dword"}, "REG_DWORD", 4294967295),
        ({"name": "a", "type": "qword"}, "REG_QWORD", 0),
        ({"name": "a", "data": ["x", "y"], "type": "multistring"}, "REG_MULTI_SZ", ["x", "y"]),
        ({"name": "a", "data": "hex:be,ef", "type": "binary"}, "REG_BINARY", [190, 239]),
        ({"name": "a", "data": "%TEMP%", "type": "expandstring"}, "REG_EXPAND_SZ", "%TEMP%"),
    ],
)
def test_win_regedit(run: Run, task: dict[str, Any], type_name: str, value: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await settles(bench, "win_regedit", path=KEY, **task)
        found = bench.host.registry.get(KEY, task.get("name", ""))
        assert found is not None and (found.type, found.data) == (type_name, value)

    run(scenario)


def test_win_regedit_changes_and_removes(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        await settles(bench, "win_regedit", path=KEY)
        await bench.module("win_regedit", path=KEY, name="N", data="1")
        typed = await bench.module("win_regedit", path=KEY, name="n", data=1, type="dword", diff=True)
        assert typed["data_type_changed"] and typed["data_changed"]
        assert typed["diff"]["before"] == {KEY: {"n": {"type": "String", "value": "1"}}}
        assert typed["diff"]["after"] == {KEY: {"n": {"type": "DWord", "value": "0x00000001"}}}
        await settles(bench, "win_regedit", path=KEY, name="n", state="absent")
        await settles(bench, "win_regedit", path=KEY, state="absent")
        assert not bench.host.registry.exists(KEY)
        wrong = await bench.module("win_regedit", path="HKLM\\SOFTWARE", name="x")
        assert wrong["msg"].startswith("path: HKLM\\SOFTWARE is not a valid powershell path")
        large = await bench.module("win_regedit", path=KEY, name="x", data=2**32, type="dword")
        assert large["msg"] == "data cannot be larger than 0xffffffff when type is dword"

    run(scenario)


def test_win_reg_stat(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.module("win_reg_stat", path=KEY))["exists"] is False
        bench.host.registry.set(KEY, "E", "REG_EXPAND_SZ", "%SystemRoot%\\x")
        bench.host.registry.set(KEY, "B", "REG_BINARY", [1, 255])
        bench.host.registry.create(KEY + "\\Sub")
        key = await bench.module("win_reg_stat", path=KEY)
        assert key["exists"] and key["sub_keys"] == ["Sub"] and set(key["properties"]) == {"E", "B"}
        value = await bench.module("win_reg_stat", path=KEY, name="e")
        assert (value["value"], value["raw_value"]) == ("C:\\Windows\\x", "%SystemRoot%\\x")
        assert (await bench.module("win_reg_stat", path=KEY, name="B"))["raw_value"] == ["0x01", "0xff"]
        assert (await bench.module("win_reg_stat", path=KEY, name="none"))["exists"] is False
        assert (await bench.module("win_reg_stat", path="C:\\x"))["failed"]

    run(scenario)


# --------------------------------------------------------------------------------------------------------- win_service


def test_win_service_configures_and_starts(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        done = await settles(bench, "win_service", name="Spooler", start_mode="disabled", state="stopped")
        assert (done["state"], done["start_mode"], done["exists"]) == ("stopped", "disabled", True)
        failed = await bench.module("win_service", name="Spooler", state="started")
        assert failed["failed"] and "cannot be started due to the following error" in failed["msg"]
        task = {"name": "spooler", "start_mode": "delayed", "state": "started", "description": "Prints"}
        done = await settles(bench, "win_service", **task)
        assert done["state"] == "running" and done["name"] == "Spooler" and done["display_name"] == "Print Spooler"
        for _ in range(2):
            assert (await bench.module("win_service", name="Spooler", state="restarted"))["changed"]

    run(scenario)


def test_win_service_accounts_dependencies_failures(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        done = await settles(
            bench,
            "win_service",
            name="Farm",
            path="C:\\Farm\\farm.exe",
            username="NT AUTHORITY\\LocalService",
            dependencies=["Spooler"],
            failure_actions=[{"type": "restart", "delay_ms": 5000}, {"type": "none"}],
            failure_reset_period_sec=86400,
            display_name="Render farm",
        )
        assert done["username"] == "NT AUTHORITY\\LOCAL SERVICE" and done["dependencies"] == ["Spooler"]
        service = bench.host.services.get("farm")
        assert service.failure_actions == [["restart", 5000], ["none", 0]] and service.start == "auto"
        added = await bench.module("win_service", name="Farm", dependencies=["WinRM"], dependency_action="add")
        assert added["changed"] and added["dependencies"] == ["Spooler", "WinRM"]
        missing = await bench.module("win_service", name="Farm", state="started")
        assert missing["failed"] and "The system cannot find the path specified" in missing["msg"]
        nobody = await bench.module("win_service", name="Farm", username="nobody")
        assert nobody["failed"] and "could not be translated" in nobody["msg"]
        await settles(bench, "win_service", name="Farm", state="absent")
        assert bench.host.services.find("Farm") is None

    run(scenario)


def test_win_service_needs_a_path_for_a_new_service(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        result = await bench.module("win_service", name="New", start_mode="auto")
        assert result["msg"] == "Service 'New' is not installed, need to set 'path' to create a new service"
        looked = await bench.module("win_service", name="New", path="C:\\x.exe", state="started", check=True)
        assert looked["changed"] and bench.host.services.find("New") is None
        assert (await bench.module("win_service", name="New"))["exists"] is False

    run(scenario)


def test_a_password_of_a_service_is_not_shown(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.accounts.add_user("render", "secret")
        task = {"name": "Spooler", "username": ".\\render", "password": "secret"}
        result = await bench.module("win_service", diff=True, **task)
        assert result["changed"] and result["username"] == ".\\render"
        assert "secret" not in json.dumps(result)
        assert not (await bench.module("win_service", **task))["changed"]
        assert (await bench.module("win_service", **task, update_password="always"))["changed"]

    run(scenario)


def test_win_service_info(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        one = await bench.module("win_service_info", name="winrm")
        service = one["services"][0]
        assert one["exists"] and service["state"] == "started" and service["start_mode"] == "auto"
        assert service["username"] == "NT AUTHORITY\\NetworkService" and service["process_id"] > 0
        assert (await bench.module("win_service_info", name="none"))["exists"] is False
        assert len((await bench.module("win_service_info"))["services"]) == len(bench.host.services.names())

    run(scenario)


# ------------------------------------------------------------------------------------------------- win_user, share, acl


def test_win_user(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        task = {"name": "render", "password": "secret", "groups": ["Users"], "password_never_expires": True}
        done = await settles(bench, "win_user", **task)
        assert done["sid"].startswith(bench.host.accounts.machine_sid) and done["state"] == "present"
        assert done["groups"][0]["name"] == "Users" and "secret" not in json.dumps(done)
        changed = await bench.module("win_user", **{**task, "password": "other"})
        assert changed["changed"] and bench.host.accounts.users["render"].password == "other"
        assert not (await bench.module("win_user", **{**task, "update_password": "on_create"}))["changed"]
        grouped = await bench.module("win_user", name="render", groups=["Administrators"], groups_action="add")
        assert grouped["changed"] and len(grouped["groups"]) == 2
        lost = await bench.module("win_user", name="render", groups=["None such"])
        assert lost["msg"] == "group 'None such' not found"
        assert (await bench.module("win_user", name="render", state="query"))["state"] == "present"
        await settles(bench, "win_user", name="render", state="absent")
        assert (await bench.module("win_user", name="render", state="query"))["state"] == "absent"

    run(scenario)


def test_win_share(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.accounts.add_user("render", "x")
        bench.host.files.make_directory("C:\\Projects")
        task = {
            "name": "projects",
            "path": "C:\\projects\\",
            "full": "Administrators",
            "change": "render",
            "list": True,
        }
        looked = await bench.module("win_share", check=True, **task)
        assert looked["actions"] == ["New-SmbShare -Name projects -Path C:\\Projects"] and not bench.host.shares
        done = await bench.module("win_share", **task)
        render = f"{bench.host.computer_name}\\render"
        assert "Revoke-SmbShareAccess -Force -Name projects -AccountName Everyone" in done["actions"]
        rights = {entry["account"]: entry["right"] for entry in bench.host.shares["projects"]["access"]}
        assert rights == {"BUILTIN\\Administrators": "Full", render: "Change"}
        assert not (await bench.module("win_share", **task))["changed"]
        assert (await bench.module("win_stat", path="C:\\Projects"))["stat"]["sharename"] == "projects"
        denied = await bench.module("win_share", **task, deny="Guests")
        assert any(action.startswith("Block-SmbShareAccess") for action in denied["actions"])
        lost = await bench.module("win_share", name="x", path="C:\\none")
        assert lost["msg"] == "C:\\none directory does not exist on the host"
        nobody = await bench.module("win_share", name="x", path="C:\\Projects", read="nobody")
        assert nobody["msg"].startswith("account_name nobody is not a valid account")
        await settles(bench, "win_share", name="projects", path="C:\\Projects", state="absent")

    run(scenario)


def test_win_acl(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.files.make_directory("C:\\Projects")
        task = {"path": "C:\\Projects", "user": "Users", "rights": "Modify", "type": "allow"}
        await settles(bench, "win_acl", **task)
        await settles(bench, "win_acl", **{**task, "path": "HKLM:\\SOFTWARE", "rights": "ReadKey"})
        await settles(bench, "win_acl", **task, state="absent")
        lost = await bench.module("win_acl", **{**task, "path": "C:\\none"})
        assert lost["msg"] == "C:\\none file or directory does not exist on the host"
        nobody = await bench.module("win_acl", **{**task, "user": "nobody"})
        assert nobody["msg"].startswith("account_name nobody is not a valid account, cannot get SID")
        wrong = await bench.module("win_acl", **{**task, "rights": "Everything"})
        assert 'Cannot convert value "Everything"' in wrong["msg"]

    run(scenario)


# ----------------------------------------------------------------------------------------------------------- win_hosts


def test_win_hosts(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        task = {"ip_address": "10.0.0.10", "canonical_name": "manager", "aliases": ["mgr"]}
        await settles(bench, "win_hosts", **task)
        text = bench.host.files.read_bytes("C:\\Windows\\System32\\drivers\\etc\\hosts").decode()
        assert text.startswith("# Copyright") and text.endswith("10.0.0.10 manager mgr\r\n")
        moved = await bench.module("win_hosts", diff=True, ip_address="10.0.0.11", canonical_name="manager")
        assert moved["changed"] and "10.0.0.11 manager" in moved["diff"]["after"]
        assert "10.0.0.10" not in moved["diff"]["after"]
        await bench.module("win_hosts", ip_address="10.0.0.11", canonical_name="manager", aliases=["a"], action="add")
        dropped = await bench.module(
            "win_hosts", ip_address="10.0.0.11", canonical_name="manager", aliases=["a"], action="remove", diff=True
        )
        assert dropped["diff"]["after"].rstrip().endswith("10.0.0.11 manager")
        await settles(bench, "win_hosts", canonical_name="manager", state="absent")
        wrong = await bench.module("win_hosts", ip_address="10.0.0", canonical_name="x")
        assert "needs to be a valid ip address" in wrong["msg"]
        assert "state is present but all of the following are missing" in (await bench.module("win_hosts"))["msg"]

    run(scenario)


# ------------------------------------------------------------------------------------------------------------ firewall


RULE = "community.windows.win_firewall_rule"


def test_win_firewall_rule(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        task: dict[str, Any] = {
            "name": "Backburner",
            "direction": "in",
            "action": "allow",
            "protocol": "tcp",
            "localport": "3234,3233",
            "remoteip": "10.0.0.0/24,192.168.1.0/24",
            "profiles": ["domain", "private", "public"],
            "enabled": True,
        }
        done = await settles(bench, RULE, **task)
        assert done["msg"] == "Firewall rule 'Backburner' created."
        assert bench.platform.rulesets[-1].count("tcp dport { 3234, 3233 } accept") == 1
        assert "ip saddr { 10.0.0.0/24, 192.168.1.0/24 }" in bench.platform.rulesets[-1]
        turned = await bench.module(RULE, **{**task, "remoteip": "192.168.1.0/24,10.0.0.0/24"})
        assert not turned["changed"], "the order of addresses does not matter"
        changed = await bench.module(RULE, diff=True, **{**task, "localport": "3234"})
        assert changed["diff"]["prepared"] == "[Backburner]\n-LocalPorts='3234,3233'\n+LocalPorts='3234'\n"
        assert "tcp dport { 3234 } accept" in bench.platform.rulesets[-1]
        off = await bench.module(RULE, name="Backburner", enabled=False)
        assert off["changed"] and "3234" not in bench.platform.rulesets[-1]
        gone = await settles(bench, RULE, name="Backburner", state="absent")
        assert gone["msg"] == "Firewall rule(s) 'Backburner' removed."

    run(scenario)


def test_win_firewall_rule_refuses(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"name": "x", "localport": "80"}, "Value does not fall within the expected range."),
            ({"name": "x", "protocol": "tcp", "localport": "70000"}, "Value does not fall within"),
            ({"name": "x", "protocol": "tcp", "localport": "80", "remoteip": "10.0.0.1/24"}, "Value does not fall"),
            ({"name": "x", "protocol": "xyz"}, "Unknown protocol 'xyz'."),
            ({"name": "x", "profiles": ["home"]}, "Unknown profile 'home'."),
            ({"name": "x", "direction": "in", "action": "allow", "program": "C:\\x.exe"}, "cannot be rehearsed"),
            ({}, "Either name or group must be specified"),
        ]
        for task, message in cases:
            result = await bench.module(RULE, **task)
            assert result["failed"] and message in result["msg"], task

    run(scenario)


def test_pings_and_own_ports(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        assert "type { 8 } accept" not in bench.platform.rulesets[-1]
        task = {"name": "File and Printer Sharing (Echo Request - ICMPv4-In)", "enabled": True}
        assert (await bench.module(RULE, **task))["changed"]
        assert "    icmp type { 8 } accept\n" in bench.platform.rulesets[-1]
        assert "    ip saddr { 10.0.0.0/24 } tcp dport { 5985 } accept\n" in bench.platform.rulesets[-1]
        blocked = {"name": "no web", "direction": "out", "action": "block", "protocol": "tcp", "remoteport": "80"}
        await bench.module(RULE, **blocked)
        assert bench.platform.rulesets[-1].rstrip().endswith("tcp dport { 80 } drop\n  }\n}")

    run(scenario)


# -------------------------------------------------------------------------------------------------------------- tasks


TASK = "community.windows.win_scheduled_task"


def boot_task(**more: Any) -> dict[str, Any]:
    return {
        "name": "farmnode",
        "path": "\\RenderFarm",
        "actions": [{"path": "C:\\Windows\\System32\\sc.exe", "arguments": 'query "WinRM"'}],
        "triggers": [{"type": "boot"}],
        "username": "SYSTEM",
        "logon_type": "service_account",
        "run_level": "highest",
        "execution_time_limit": "PT1H",
        **more,
    }


def test_win_scheduled_task(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        await settles(bench, TASK, **boot_task())
        changed = await bench.module(TASK, diff=True, **boot_task(execution_time_limit="PT2H"))
        assert changed["diff"]["prepared"] == "[Settings]\n-ExecutionTimeLimit=PT1H\n+ExecutionTimeLimit=PT2H"
        again = await bench.module(TASK, diff=True, **boot_task(triggers=[{"type": "boot", "delay": "PT30S"}]))
        assert "+Delay=PT30S" in again["diff"]["prepared"]
        definition = bench.host.tasks.get("\\renderfarm\\FARMNODE")
        assert definition is not None and definition["principal"]["user_sid"] == "S-1-5-18"
        await settles(bench, TASK, name="farmnode", path="RenderFarm", state="absent")

    run(scenario)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"actions": None}, "cannot create a task with no actions"),
        ({"actions": [{"arguments": "x"}]}, "action entry must contain the key 'path'"),
        ({"triggers": [{"type": "reboot"}]}, "the specified trigger type 'reboot' is not valid"),
        ({"triggers": [{"type": "boot", "dely": "PT1S"}]}, "key 'dely' for trigger entry is not valid"),
        ({"triggers": [{"type": "boot", "days_interval": 1}]}, "valid keys are 'enabled', "),
        ({"triggers": [{"type": "boot", "repetition": {"intervall": "PT5M"}}]}, "did you mean 'interval'?"),
        ({"actions": [{"path": "a.exe", "argument": "x"}]}, "did you mean 'arguments'?"),
        ({"triggers": [{}]}, "a trigger entry must contain a key 'type'"),
        ({"triggers": [{"type": "daily"}]}, "mandatory key 'start_boundary' for trigger is not set"),
        ({"triggers": [{"type": "boot", "delay": "30"}]}, "must be in the XML duration format but was '30'"),
        ({"username": "nobody"}, "account_name nobody is not a valid account"),
        ({"username": "Administrator"}, "username must be SYSTEM, LOCAL SERVICE or NETWORK SERVICE"),
        ({"group": "Users"}, "username and group can not be set at the same time"),
        ({"execution_time_limit": "1h"}, "failed to set Settings property 'ExecutionTimeLimit'"),
        ({"name": "a:b"}, "Invalid task name 'a:b'"),
    ],
)
def test_win_scheduled_task_refuses(run: Run, task: dict[str, Any], message: str) -> None:
    async def scenario(bench: Bench) -> None:
        result = await bench.module(TASK, **boot_task(**task))
        assert result["failed"] and message in result["msg"]
        assert not bench.host.tasks.paths()

    run(scenario)


def test_tasks_run_at_boot_within_their_limit(bench: Bench) -> None:
    async def scenario() -> None:
        bench.host.files.delete("C:\\Program Files\\Amazon", force=True)
        await bench.module(TASK, **boot_task())
        ends: list[str] = []

        async def slow(invocation: Any) -> Any:
            try:
                await asyncio.sleep(5)
            finally:
                ends.append("ended")

        await bench.module(
            TASK,
            **boot_task(
                name="slow", actions=[{"path": "hostname.exe"}], execution_time_limit="PT0.02S", restart_count=0
            ),
        )
        await bench.module(TASK, **boot_task(name="lost", actions=[{"path": "C:\\none.exe"}]))
        await bench.module(TASK, **boot_task(name="off", enabled=False))
        bench.host.programs["hostname.exe"] = slow
        await bench.host.power_on()
        await asyncio.sleep(0.1)
        log = bench.log
        assert "task \\RenderFarm\\farmnode: " in log and "SERVICE_NAME: WinRM" in log
        assert "task \\RenderFarm\\farmnode ended with 0" in log
        assert "task \\RenderFarm\\slow was ended after its time limit PT0.02S" in log and ends == ["ended"]
        assert "task \\RenderFarm\\lost: C:\\none.exe: The system cannot find the file specified." in log
        assert "\\RenderFarm\\off" not in log
        assert log.index("service WinRM is running") < log.index("task \\RenderFarm\\farmnode starts")
        await bench.host.power_off()

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------------------------ packages


def test_win_package_from_a_file(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        path = "C:\\Windows\\Temp\\Backburner.msi"
        lost = await bench.module("win_package", path=path)
        assert lost["msg"] == f"the file at the path '{path}' cannot be reached"
        bench.host.files.write_bytes(path, json.dumps(PACKAGE).encode())
        done = await settles(bench, "win_package", path=path, arguments="ADDLOCAL=ALL", log_path="C:\\Windows\\Temp\\l")
        assert done["rc"] == 0 and done["reboot_required"] is False
        files = bench.host.files
        assert files.read_bytes("C:\\Program Files (x86)\\Autodesk\\Backburner\\serversvc.exe") == b"\0\1"
        assert bench.host.registry.data("HKLM\\SOFTWARE\\Backburner", "Version") == "19"
        assert bench.host.services.get("Helper").start == "demand"
        assert bench.host.environment()["Path"].endswith("Autodesk\\Backburner")
        assert files.exists("C:\\Windows\\Temp\\l")
        await settles(bench, "win_package", product_id=CODE.lower(), state="absent")
        assert not files.exists("C:\\Program Files (x86)\\Autodesk")
        assert bench.host.services.find("Helper") is None

    run(scenario)


def test_win_package_from_a_url(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        content = json.dumps(PACKAGE).encode()
        bench.platform.web[("198.18.0.20:80", "/b.msi")] = Answer(content)
        task: dict[str, Any] = {"path": "http://198.18.0.20/b.msi", "product_id": CODE}
        wrong = await bench.module("win_package", **task, checksum="00", checksum_algorithm="sha256")
        assert wrong["failed"] and "did not match '00'" in wrong["msg"]
        digest = hashlib.sha256(content).hexdigest()
        await settles(bench, "win_package", **task, checksum=digest, checksum_algorithm="sha256")
        count = len(bench.platform.requests)
        await bench.module("win_package", **task)
        assert len(bench.platform.requests) == count, "an installed product is not downloaded"
        assert not [name for name in bench.host.files.names("C:\\Windows\\Temp") if name.endswith(".msi")]

    run(scenario)


def test_win_package_refuses_what_has_no_recipe(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        files = bench.host.files
        files.write_bytes("C:\\Windows\\Temp\\setup.exe", b"MZ")
        refused = await bench.module(
            "win_package", path="C:\\Windows\\Temp\\setup.exe", creates_path="C:\\x.exe", arguments="/S"
        )
        assert "no stand-in for the installer C:\\Windows\\Temp\\setup.exe" in refused["msg"]
        files.write_bytes("C:\\Windows\\Temp\\bad.msi", b"garbage")
        bad = await bench.module("win_package", path="C:\\Windows\\Temp\\bad.msi")
        assert "This installation package could not be opened. Contact the application vendor" in bad["msg"]
        assert (await bench.module("win_package", product_id="{X}", state="absent"))["changed"] is False

    run(scenario)
