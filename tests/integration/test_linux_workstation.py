"""The role openvpn_server on Linux, with the real ``openvpn`` and Debian's own unit file, in namespaces of its own.

There is no systemd here: ``tests/fixtures/systemd/systemctl`` runs the command lines of the unit files. The
installation by ``apt`` is not run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UNIT = Path("/lib/systemd/system/openvpn-server@.service")
SCENARIO = Path(__file__).with_name("linux_workstation_scenario.py")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(shutil.which("openvpn", path="/usr/sbin:/usr/bin") is None, reason="openvpn is not installed"),
    pytest.mark.skipif(not UNIT.exists(), reason="no unit file of Debian's package openvpn"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*command, sys.executable, str(SCENARIO), str(tmp_path_factory.mktemp("workstation"))],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_server_runs_by_the_units_and_second_run_changes_nothing(seen: dict[str, Any]) -> None:
    assert seen["second_changed"] == 0
    assert "enable openvpn-server@studio.service" in seen["calls"]
    assert seen["calls"].count("start openvpn-server@studio.service") == 1
    assert not [call for call in seen["calls"] if call.startswith("restart openvpn")]
    assert seen["configuration"] == "0o600"
    assert seen["entries"] == ["aws-gateway"]


def test_workstation_forwards_and_has_null_routes(seen: dict[str, Any]) -> None:
    assert (seen["ip_forward_before"], seen["ip_forward"]) == ("0", "1")
    for network in ("10.0.0.0/24", "10.8.0.0/24", "10.9.0.0/24"):
        assert [line for line in seen["routes"] if line.startswith(f"unreachable {network}") and "metric 9999" in line]
        assert [line for line in seen["routes"] if line.startswith(network) and "tun" in line]
    assert "No route to host" in seen["null_route_after_stop"]  # and not: Network is unreachable


def test_client_is_reached_until_it_is_revoked(seen: dict[str, Any]) -> None:
    assert seen["reached"] is True
    assert seen["reached_after"] is False
    assert seen["restarts"] == ["restart openvpn-server@studio.service"]
    assert [line for line in seen["log"] if "certificate revoked" in line and "CN=aws-gateway" in line]


def test_second_revocation_changes_nothing(seen: dict[str, Any]) -> None:
    assert seen["revoke_changed"] > 0
    assert seen["again_changed"] == 0


def test_no_key_is_in_the_output(seen: dict[str, Any]) -> None:
    assert "PRIVATE KEY-----" not in seen["output"]
    assert "OpenVPN tls-crypt-v2" not in seen["output"]
