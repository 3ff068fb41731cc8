"""A certificate is revoked on the rehearsal's Windows workstation: who had it cannot come back, and the log says so.

The client is the real ``openvpn`` on the controller's network, with the gateway's keys. No image and no farm is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rehearsal.session import Rehearsal, rehearsing

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="a rehearsal needs root"),
    pytest.mark.skipif(shutil.which("openvpn", path="/usr/sbin:/usr/bin") is None, reason="openvpn is not installed"),
]

SERVER_PLAY = "tests/integration/playbooks/vpn_server.yml"
CLIENT = """\
client
dev tun
proto udp4
remote 192.168.1.10 1194
nobind
remote-cert-tls server
verify-x509-name studio-workstation name
connect-retry 1 1
connect-timeout 3
tls-timeout 1
route-nopull
ca ca.crt
cert aws-gateway.crt
key aws-gateway.key
tls-crypt-v2 aws-gateway.tls-crypt-v2.key
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    folder = tmp_path_factory.mktemp("revoke") / "rehearsal"
    with rehearsing(folder, print) as made:
        yield made


def pki(farm: Rehearsal) -> Path:
    return farm.folder / "controller/pki"


def server_log(farm: Rehearsal) -> str:
    machine = next(machine for machine in farm.machines() if machine["name"] == "workstation")
    folder = Path(machine["c"]) / "Program Files/OpenVPN"
    return "".join(path.read_text() for path in sorted(folder.glob("log/*.log")))


@contextmanager
def client(farm: Rehearsal, keys: Path) -> Iterator[Path]:
    """The gateway's end of the tunnel on the controller's network; gives the path of its log."""
    (keys / "client.conf").write_text(CLIENT)
    log = keys / "client.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(farm.folder), "--"]
    command += ["/usr/sbin/openvpn", "--cd", str(keys), "--config", "client.conf", "--log", "client.log"]
    with subprocess.Popen(command) as process:
        try:
            yield log
        finally:
            process.terminate()


def completed(log: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if log.exists() and "Initialization Sequence Completed" in log.read_text():
            return True
        time.sleep(0.2)
    return False


def test_revoked_gateway_is_thrown_out_and_cannot_come_back(farm: Rehearsal, tmp_path: Path) -> None:
    farm.playbook(SERVER_PLAY)
    stolen = tmp_path / "stolen"
    shutil.copytree(pki(farm), stolen)
    with client(farm, stolen) as log:
        assert completed(log, 15), log.read_text()
        step = farm.playbook("playbooks/vpn-revoke.yml", "-e", "vpn_revoke_name=aws-gateway", "-vvv", "--diff")
        # the session was ended, and its owner tries again at once
        end = time.monotonic() + 15
        while "certificate revoked: CN=aws-gateway" not in server_log(farm) and time.monotonic() < end:
            time.sleep(0.2)
        assert "VERIFY ERROR: depth=0, error=certificate revoked: CN=aws-gateway" in server_log(farm)
        assert log.read_text().count("Initialization Sequence Completed") == 1
    with client(farm, stolen) as log:
        assert not completed(log, 5)
    keys = [line for path in pki(farm).rglob("*.key") for line in path.read_text().splitlines()[1:-2] if line]
    assert len(keys) > 20
    assert [line for line in keys if line in step.log.read_text()] == []


def test_second_run_changes_nothing(farm: Rehearsal) -> None:
    assert farm.playbook("playbooks/vpn-revoke.yml", "-e", "vpn_revoke_name=aws-gateway").changed == 0


def test_new_certificate_lets_the_gateway_in_but_not_the_old_one(farm: Rehearsal, tmp_path: Path) -> None:
    stolen, fresh = tmp_path / "stolen", tmp_path / "fresh"
    shutil.copytree(pki(farm), stolen)
    farm.playbook(SERVER_PLAY, "-e", json.dumps({"vpn_pki_renew": ["aws-gateway"]}))
    shutil.copytree(pki(farm), fresh)
    with client(farm, fresh) as log:
        assert completed(log, 15), log.read_text()
    with client(farm, stolen) as log:
        assert not completed(log, 5)
