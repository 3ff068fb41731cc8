"""Run under ``unshare``: the role openvpn_server on this Linux, a client, its revocation; prints what was seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).parent / "ansible-playbook"
PLAY = """\
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: renderfarm.cloud.vpn_pki, tasks_from: %(pki)s}
- hosts: studio-workstation
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: renderfarm.cloud.openvpn_server, tasks_from: %(server)s}
"""
CLIENT = """\
client
dev tun
proto udp4
remote 198.18.1.1 1194
nobind
remote-cert-tls server
verify-x509-name studio-workstation name
connect-retry 1 1
connect-timeout 3
tls-timeout 1
ca ca.crt
cert aws-gateway.crt
key aws-gateway.key
tls-crypt-v2 aws-gateway.tls-crypt-v2.key
"""


class Scenario:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{ROOT / 'tests/fixtures/systemd'}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "SYSTEMCTL_STATE": str(folder / "systemd"),
            "ANSIBLE_NOCOLOR": "1",
        }
        (folder / "systemd").mkdir()
        (folder / "inventory.yml").write_text(
            json.dumps(
                {
                    "all": {
                        "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
                        "hosts": {"localhost": {}},
                        "children": {"workstation_linux": {"hosts": {"studio-workstation": {"ansible_become": False}}}},
                    }
                }
            )
        )

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=90)
        if check and done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def play(self, pki: str, server: str, **variables: Any) -> dict[str, Any]:
        (self.folder / "play.yml").write_text(PLAY % {"pki": pki, "server": server})
        settings = {
            "farm_state_dir": str(self.folder),
            "farm_name": "studio",
            "farm_vpn_server_side": "studio",
            "farm_vpn_port": 1194,
            "farm_lan_network": "192.168.1.0/24",
            "farm_cloud_network": "10.0.0.0/24",
            "farm_tunnel_network": "10.8.0.0/24",
            "farm_remote_network": "10.9.0.0/24",
            "farm_installers": {"openvpn": {"url": "http://198.18.0.20/", "sha256": "0" * 64}},
            "vault_ca_passphrase": "a passphrase of the test",
        }
        (self.folder / "settings.json").write_text(json.dumps(settings | variables))
        files = ["-i", str(self.folder / "inventory.yml"), "-e", f"@{self.folder / 'settings.json'}"]
        output = self.run(str(ANSIBLE), *files, "-vvv", "--diff", str(self.folder / "play.yml"))
        recap = output.rpartition("PLAY RECAP")[2]
        return {
            "changed": sum(int(word.partition("=")[2]) for word in recap.split() if word.startswith("changed=")),
            "output": output,
        }

    def reached(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if " 0% packet loss" in self.run(
                "ping", "-c", "1", "-W", "1", "-I", "192.168.1.10", "10.0.0.10", check=False
            ):
                return True
            time.sleep(0.2)
        return False

    def calls(self) -> list[str]:
        path = self.folder / "systemd/calls"
        return path.read_text().splitlines() if path.exists() else []


def network(scenario: Scenario) -> None:
    for folder in ("/run", "/etc/openvpn/server", "/etc/sysctl.d", "/etc/systemd/system"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        scenario.run("mount", "-t", "tmpfs", "tmpfs", folder)
    for line in (
        "ip link set lo up",
        "ip addr add 192.168.1.10/32 dev lo",
        "ip netns add client",
        "ip link add cable type veth peer name cable netns client",
        "ip addr add 198.18.1.1/24 dev cable",
        "ip link set cable up",
        "ip -n client addr add 198.18.1.2/24 dev cable",
        "ip -n client link set cable up",
        "ip -n client link set lo up",
        "ip -n client addr add 10.0.0.10/32 dev lo",
    ):
        scenario.run(*line.split())


def main(folder: Path) -> None:
    scenario = Scenario(folder)
    network(scenario)
    result: dict[str, Any] = {"ip_forward_before": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()}
    first = scenario.play("main", "linux_configure")
    second = scenario.play("main", "linux_configure")
    result["second_changed"] = second["changed"]
    result["routes"] = scenario.run("ip", "route").splitlines()
    result["ip_forward"] = Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()
    result["configuration"] = oct(Path("/etc/openvpn/server/studio.conf").stat().st_mode & 0o777)
    result["entries"] = sorted(path.name for path in Path("/etc/openvpn/server/ccd-studio").iterdir())
    result["calls"] = scenario.calls()

    client = [
        "ip",
        "netns",
        "exec",
        "client",
        "/usr/sbin/openvpn",
        "--cd",
        str(folder / "pki"),
        "--config",
        str(folder / "client.conf"),
    ]
    (folder / "client.conf").write_text(CLIENT)
    log = (folder / "client.log").open("w")
    with subprocess.Popen(client, stdout=log, stderr=log) as process:
        result["reached"] = scenario.reached(15)
        revoked = scenario.play("revoke", "revocations", vpn_pki_revoke=["aws-gateway"])
        result["reached_after"] = scenario.reached(6)
        process.terminate()
    again = scenario.play("revoke", "revocations", vpn_pki_revoke=["aws-gateway"])
    result["revoke_changed"], result["again_changed"] = revoked["changed"], again["changed"]
    result["restarts"] = [call for call in scenario.calls() if call.startswith("restart openvpn")]
    result["log"] = (folder / "systemd/openvpn-server@studio.service.log").read_text().splitlines()
    result["null_route_after_stop"] = _after_stop(scenario)
    result["output"] = first["output"] + second["output"] + revoked["output"]
    print(json.dumps(result))


def _after_stop(scenario: Scenario) -> str:
    """What becomes of a packet for the cloud when the server is down."""
    scenario.run("systemctl", "stop", "openvpn-server@studio.service")
    return scenario.run("ip", "route", "get", "10.0.0.10", check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
