from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.renderfarm.cloud.plugins.action import backburner_servers
from backburner_fakes import action

SERVERS = [
    {"handle": "06112233445F0000", "mac": "06:11:22:33:44:5f", "state": "idle", "name": "ip-10-0-0-21"},
    {"handle": "0611223344600000", "mac": "06:11:22:33:44:60", "state": "absent", "name": "ip-10-0-0-22"},
]
RECORDED: dict[str, Any] = {"changed": True, "rc": 0, "stdout": json.dumps({"servers": SERVERS}) + "\r\n"}


@pytest.mark.parametrize("check", [False, True])
def test_servers(check: bool) -> None:
    plugin = action(backburner_servers, {}, RECORDED, check=check)
    assert plugin.run(task_vars={}) == {"changed": False, "servers": SERVERS, "registered": 1, "missing": []}
    (call,) = plugin._execute_module.calls
    assert call["module_args"] == {"argv": [r"C:\RenderFarm\python\python.exe", "-I", "-m", "farmnode", "servers"]}
    assert call["check_mode"] is False and plugin._task.check_mode is check


def test_the_queue_is_asked_for_too() -> None:
    jobs = [{"handle": "1", "state": "busy", "name": "shot"}]
    said = {"servers": SERVERS, "jobs": jobs}
    plugin = action(backburner_servers, {"jobs": True}, {"rc": 0, "stdout": json.dumps(said)})
    assert plugin.run(task_vars={})["jobs"] == jobs
    assert plugin._execute_module.calls[0]["module_args"]["argv"][-2:] == ["servers", "--jobs"]


def test_missing_are_those_that_are_not_there_or_absent() -> None:
    options = {"expect": ["06-11-22-33-44-5F", "061122334460", "06:11:22:33:44:61"]}
    result = action(backburner_servers, options, RECORDED).run(task_vars={})
    assert result["missing"] == ["06:11:22:33:44:60", "06:11:22:33:44:61"]


def test_a_failure_can_be_asked_again() -> None:
    said = {"failed": True, "reason": "manager_unreachable", "msg": "no list"}
    plugin = action(
        backburner_servers, {"expect": ["06112233445F"]}, {"rc": 1, "failed": True, "stdout": json.dumps(said)}
    )
    assert plugin.run(task_vars={}) == said | {
        "changed": False,
        "servers": [],
        "registered": 0,
        "missing": ["06:11:22:33:44:5f"],
    }


@pytest.mark.parametrize("expect", ["x", "06:11:22:33:44", "06112233445G"])
def test_what_is_no_mac_is_refused(expect: str) -> None:
    plugin = action(backburner_servers, {"expect": [expect]}, RECORDED)
    with pytest.raises(AnsibleError, match=f"expect: '{expect}' is no MAC address"):
        plugin.run(task_vars={})
    assert not plugin._execute_module.calls
