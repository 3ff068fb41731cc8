from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.renderfarm.cloud.plugins.action import backburner_node
from backburner_fakes import action

FILE = r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner\backburner.xml"
LAN = {"network": "192.168.1.0/24", "gateway": "10.0.0.10", "metric": 1}
OLD = {"network": "192.168.7.0/24", "gateway": "10.0.0.10", "metric": 1}
SAID: dict[str, Any] = {
    "changed": True,
    "path": FILE,
    "identity": {"mac": "06:11:22:33:44:5f", "name": "ip-10-0-0-21", "address": "10.0.0.21"},
    "changes": {"ManagerName": ["localhost", "10.0.0.10"]},
    "routes": {"added": [LAN], "removed": [OLD], "kept": []},
    "backup": FILE + ".bak",
}
RECORDED: dict[str, Any] = {
    "changed": True,
    "rc": 0,
    "cmd": r"C:\RenderFarm\python\python.exe -I -m farmnode converge",
    "delta": "0:00:00.203125",
    "stdout": json.dumps(SAID) + "\r\n",
    "stdout_lines": [json.dumps(SAID)],
    "stderr": "",
    "stderr_lines": [],
}
PLUGINS = Path(__file__).parents[4] / "plugins"


def test_one_command_and_its_answer() -> None:
    plugin = action(backburner_node, {"manager": "10.0.0.10", "routes": [dict(LAN)]}, RECORDED)
    assert plugin.run(task_vars={}) == SAID
    (call,) = plugin._execute_module.calls
    options = call["module_args"]
    assert call["module_name"] == "ansible.windows.win_command"
    assert options["argv"] == [r"C:\RenderFarm\python\python.exe", "-I", "-m", "farmnode", "converge"]
    assert options["stdin"].isascii()
    assert json.loads(options["stdin"]) == {
        "manager": "10.0.0.10",
        "manager_port": 3234,
        "server_port": 3233,
        "routes": [LAN],
    }


def test_routes_alone_leave_the_file_alone() -> None:
    said = SAID | {"path": None, "identity": None, "changes": {}, "backup": None}
    plugin = action(backburner_node, {"routes": []}, RECORDED | {"stdout": json.dumps(said)})
    assert plugin.run(task_vars={})["path"] is None
    assert json.loads(plugin._execute_module.calls[0]["module_args"]["stdin"]) == {"routes": []}


def test_all_options_are_passed_on() -> None:
    options = {
        "manager": "mgr",
        "manager_port": "1234",
        "server_port": 4321,
        "network_mask": "255.255.0.0",
        "server_name": "größe",
        "identity": {"mac": "06-11-22-33-44-5F", "name": "n", "address": "10.0.0.21"},
        "path": r"C:\x\backburner.xml",
        "routes": [{"network": "192.168.1.0/24", "gateway": "10.0.0.10", "metric": "7"}],
    }
    plugin = action(backburner_node, options, RECORDED)
    plugin.run(task_vars={})
    stdin = plugin._execute_module.calls[0]["module_args"]["stdin"]
    assert stdin.isascii()
    assert json.loads(stdin) == options | {"manager_port": 1234, "routes": [LAN | {"metric": 7}]}


@pytest.mark.parametrize(("check", "diff", "words"), [(True, False, ["--check"]), (True, True, ["--check", "--diff"])])
def test_check_mode_asks_the_machine_and_comes_back(check: bool, diff: bool, words: list[str]) -> None:
    plugin = action(backburner_node, {"manager": "m"}, RECORDED, check=check, diff=diff)
    assert plugin.run(task_vars={})["changed"] is True
    (call,) = plugin._execute_module.calls
    assert call["check_mode"] is False
    assert call["module_args"]["argv"][5:] == words
    assert plugin._task.check_mode is True


def test_check_mode_comes_back_after_an_error() -> None:
    plugin = action(backburner_node, {"manager": "m"}, {"raises": AnsibleError("gone")}, check=True)
    with pytest.raises(AnsibleError, match="gone"):
        plugin.run(task_vars={})
    assert plugin._task.check_mode is True


def test_a_gateway_needs_no_manager() -> None:
    said = {
        "changed": True,
        "path": None,
        "routes": {"added": [], "removed": [], "kept": []},
        "null_routes": {"added": ["10.0.0.0/24"], "removed": [], "kept": ["10.8.0.0/24"]},
        "forwarding": {"enabled": True, "registry_changed": True, "interfaces_changed": [12]},
    }
    options = {"null_routes": ["10.0.0.0/24", "10.8.0.0/24"], "forwarding": True}
    plugin = action(backburner_node, options, RECORDED | {"stdout": json.dumps(said)}, diff=True)
    result = plugin.run(task_vars={})
    assert json.loads(plugin._execute_module.calls[0]["module_args"]["stdin"]) == options
    assert [(each["before_header"], each["before"], each["after"]) for each in result["diff"]] == [
        ("null routes of the farm", "10.8.0.0/24\n", "10.0.0.0/24\n10.8.0.0/24\n"),
        (
            "forwarding",
            "interface 12: disabled\nat the next start: disabled\n",
            "interface 12: enabled\nat the next start: enabled\n",
        ),
    ]


def test_diff_shows_file_and_routes() -> None:
    said = SAID | {"diff": {"before": "<a>\r\n</a>", "after": "<b>\r\n</b>"}}
    plugin = action(backburner_node, {"manager": "m"}, RECORDED | {"stdout": json.dumps(said)}, diff=True)
    assert plugin.run(task_vars={})["diff"] == [
        {"before_header": FILE, "after_header": FILE, "before": "<a>\n</a>", "after": "<b>\n</b>"},
        {
            "before_header": "persistent routes of the farm",
            "after_header": "persistent routes of the farm",
            "before": "192.168.7.0/24 via 10.0.0.10 metric 1\n",
            "after": "192.168.1.0/24 via 10.0.0.10 metric 1\n",
        },
    ]


def test_nothing_changed_shows_no_diff() -> None:
    said = SAID | {
        "changed": False,
        "routes": {"added": [], "removed": [], "kept": [LAN]},
        "diff": {"before": "<a/>", "after": "<a/>"},
    }
    plugin = action(backburner_node, {"manager": "m"}, RECORDED | {"stdout": json.dumps(said)}, diff=True)
    assert plugin.run(task_vars={})["diff"] == []


@pytest.mark.parametrize(
    ("recorded", "reason", "said"),
    [
        (
            {"failed": True, "rc": 1, "stdout": '{"failed": true, "reason": "disk_full", "msg": "no room"}\n'},
            "disk_full",
            "no room",
        ),
        ({"failed": True, "rc": 1, "stdout": "{}"}, "unexpected", r"farmnode gave no answer \(exit code 1\): {}"),
        ({"failed": True, "rc": 2, "stdout": "", "stderr": "usage: farmnode"}, "no_answer", "code 2.: usage: farmnode"),
        (
            {"failed": True, "msg": "cannot find python.exe"},
            "no_answer",
            "unknown.: cannot find python.exe.*role node_agent",
        ),
        ({"failed": True, "rc": 1, "stdout": "Traceback\nKeyError: 'x'"}, "no_answer", "KeyError: 'x'"),
        ({"rc": 0, "stdout": "[1]"}, "no_answer", r"\[1\]"),
        ({"rc": 0, "stdout": ""}, "no_answer", "no output"),
        ({"rc": 3, "stdout": '{"changed": false}'}, "unexpected", "exit code 3"),
    ],
)
def test_failures(recorded: dict[str, Any], reason: str, said: str) -> None:
    result = action(backburner_node, {"manager": "m"}, recorded | {"cmd": "SECRET"}).run(task_vars={})
    assert (result["failed"], result["changed"], result["reason"]) == (True, False, reason)
    assert re.search(said, result["msg"])
    assert "SECRET" not in str(result) and set(result) == {"failed", "changed", "reason", "msg"}


def test_unreachable_stays_unreachable() -> None:
    result = action(backburner_node, {"manager": "m"}, {"unreachable": True, "msg": "no route"}).run(task_vars={})
    assert result["unreachable"] is True and result["msg"] == "no route"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of the following is required: manager, routes, null_routes, forwarding"),
        ({"manager": "m", "speed": 1}, "Unsupported parameters.*speed"),
        ({"manager": "m", "manager_port": "x"}, "manager_port"),
        ({"routes": [{"network": "192.168.1.0/24"}]}, "gateway"),
        ({"manager": "m", "identity": {"mac": "x"}}, "address, name|name, address"),
        ({"routes": [], "path": "x"}, "missing parameter.*manager|manager.*required"),
    ],
)
def test_wrong_options_never_reach_the_machine(options: dict[str, Any], said: str) -> None:
    plugin = action(backburner_node, options, RECORDED)
    with pytest.raises(AnsibleError, match=said):
        plugin.run(task_vars={})
    assert not plugin._execute_module.calls


@pytest.mark.parametrize("name", ["backburner_node", "backburner_servers"])
def test_documentation_and_options_agree(name: str) -> None:
    documented = yaml.safe_load((PLUGINS / "modules" / f"{name}.yml").read_text("utf-8"))
    source = (PLUGINS / "action" / f"{name}.py").read_text("utf-8")
    options = documented["DOCUMENTATION"]["options"]
    assert all(f'"{option}": {{' in source for option in options)
    assert source.count('"type":') == len(options) + sum(len(each.get("suboptions", {})) for each in options.values())
    assert yaml.safe_load(documented["EXAMPLES"])
    assert not (PLUGINS / "modules" / f"{name}.py").read_text("utf-8").replace("#", "").startswith("import")
