from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleError
from ansible_collections.renderfarm.cloud.plugins.action import link_probe
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import farmnode
from backburner_fakes import action

PROBES = [{"kind": "ping", "address": "10.0.0.10"}]
RESULTS = [{"ok": True, "received": 3}]
RECORDED: dict[str, Any] = {"changed": True, "rc": 0, "stdout": json.dumps({"results": RESULTS}) + "\r\n"}


def ready(
    result: dict[str, Any], *, windows: bool = True, transport: str = "local", probes: Any = PROBES, **more: Any
) -> Any:
    plugin = action(link_probe, {"probes": probes}, result, **more)
    plugin._connection._shell._IS_WINDOWS = windows
    plugin._connection.transport = transport
    plugin._connection._shell.join_path = lambda *parts: "/".join(parts)
    plugin._make_tmp_path = lambda: "/tmp/ansible"
    plugin._remove_tmp_path = MagicMock()
    plugin._transfer_data = MagicMock()
    return plugin


@pytest.mark.parametrize("check", [False, True])
def test_windows(check: bool) -> None:
    plugin = ready(RECORDED, check=check)
    result = plugin.run(task_vars={})
    assert result["changed"] is False and result["results"] == RESULTS and result["asked_at"] > 1.7e9
    (call,) = plugin._execute_module.calls
    assert call["module_name"] == "ansible.windows.win_command" and call["check_mode"] is False
    assert call["module_args"]["argv"][-2:] == ["farmnode", "probe"]
    assert json.loads(call["module_args"]["stdin"]) == PROBES and plugin._task.check_mode is check


@pytest.mark.parametrize(("transport", "python"), [("local", "/venv/python"), ("ssh", "python3")])
def test_elsewhere_farmnode_is_sent_along(transport: str, python: str) -> None:
    plugin = ready(RECORDED, windows=False, transport=transport)
    assert plugin.run(task_vars={"ansible_playbook_python": "/venv/python"})["results"] == RESULTS
    (call,) = plugin._execute_module.calls
    assert call["module_name"] == "ansible.builtin.command"
    words = [python, "-I", "/tmp/ansible/farmnode.zip", "probe", "--system", "linux"]
    assert call["module_args"] == {"argv": words, "stdin": json.dumps(PROBES)}
    plugin._transfer_data.assert_called_once()
    plugin._remove_tmp_path.assert_called_once_with("/tmp/ansible")


def test_nothing_to_ask_costs_no_connection() -> None:
    plugin = ready(RECORDED, probes=[])
    assert plugin.run(task_vars={})["results"] == [] and plugin._execute_module.calls == []


def test_failure_and_silence() -> None:
    said = {"failed": True, "reason": "bad_desired_state", "msg": "probe 1"}
    result = ready({"rc": 1, "failed": True, "stdout": json.dumps(said)}).run(task_vars={})
    assert result["failed"] is True and result["reason"] == "bad_desired_state" and "results" not in result
    assert (
        ready({"rc": 1, "failed": True, "stdout": "", "stderr": "not found"}).run(task_vars={})["reason"] == "no_answer"
    )
    assert ready({"unreachable": True, "msg": "timed out"}).run(task_vars={})["msg"] == "timed out"


def test_a_machine_that_does_not_listen_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        options = {"remote_addr": "127.0.0.1", "port": str(port)}
        plugin = ready(RECORDED, transport="winrm")
        plugin._connection.get_option = options.get
        assert plugin.run(task_vars={})["results"] == RESULTS
    plugin = ready(RECORDED, transport="winrm")
    plugin._connection.get_option = options.get
    result = plugin.run(task_vars={})
    assert result["unreachable"] is True
    assert result["msg"].startswith(f"WinRM at 127.0.0.1 port {port} cannot be reached")
    assert plugin._execute_module.calls == []

    def vanished(address: tuple[str, int], timeout: float) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", vanished)
    assert plugin.run(task_vars={})["msg"].endswith("timed out")


def test_probes_are_required() -> None:
    with pytest.raises(AnsibleError, match="probes"):
        action(link_probe, {}, RECORDED).run(task_vars={})


def test_archive_runs_anywhere(tmp_path: Path) -> None:
    data = farmnode.archive()
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert "__main__.py" in names and "farmnode/probe.py" in names and len(data) < 200_000
    path = tmp_path / "farmnode.zip"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-I", str(path), "probe", "--system", "linux"],
        input='[{"kind": "clock"}]',
        capture_output=True,
        text=True,
        cwd="/",
        env={},
        timeout=20,
        check=False,
    )
    assert json.loads(done.stdout)["results"][0]["ok"] is True, done.stderr
