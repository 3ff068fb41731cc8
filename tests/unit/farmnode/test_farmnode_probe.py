"""``farmnode probe``: lists of probes, and the machine that they run on."""

from __future__ import annotations

import io
import json
import re
import socket
import sys
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import Bench, FakeClock

from farmnode import cli, probe
from farmnode.errors import FarmNodeError
from farmnode.ping import Echo
from farmnode.probe import Prober
from farmnode.programs import Completed
from tests.ports import free_port


class FakeSystem:
    """Answers every ping, and keeps what was asked."""

    def __init__(self) -> None:
        self.pings: list[dict[str, Any]] = []
        self.firewall: list[Any] = []

    def ping(self, address: str, **options: Any) -> Echo:
        self.pings.append({"address": address, **options})
        return Echo(options["count"], (1.0,) * options["count"])

    def routes(self) -> list[tuple[IPv4Network, IPv4Address]]:
        return [(IPv4Network("10.0.0.0/24"), IPv4Address("192.168.1.10"))]

    def forwarding(self) -> bool | None:
        return False

    def openvpn(self) -> dict[str, Any]:
        return {"ok": True, "service": "running", "logs": {}}

    def let_in(self, port: int, networks: Sequence[str]) -> None:
        self.firewall.append((port, list(networks)))

    def shut_out(self) -> None:
        self.firewall.append("shut")


def run(*probes: Any, system: FakeSystem | None = None) -> list[dict[str, Any]]:
    return Prober(system or FakeSystem(), FakeClock()).run(list(probes))


def test_results_are_in_the_order_of_the_probes() -> None:
    system = FakeSystem()
    results = run(
        {"kind": "clock"},
        {"kind": "ping", "address": "10.0.0.10", "size": 1372, "df": True, "count": 2},
        {"kind": "routes"},
        {"kind": "openvpn"},
        {"kind": "forwarding"},
        {"kind": "name", "name": "localhost", "expect": "127.0.0.1"},
        {"kind": "name", "name": "localhost", "expect": "127.0.0.2"},
        {"kind": "name", "name": "no-such-name.invalid", "expect": "127.0.0.1"},
        system=system,
    )
    assert [each["ok"] for each in results] == [True, True, True, True, False, True, False, False]
    assert results[0]["now"] == 1_800_000_000.0
    assert system.pings == [{"address": "10.0.0.10", "count": 2, "size": 1372, "df": True, "ttl": None, "wait": 2}]
    assert results[2]["routes"] == [{"network": "10.0.0.0/24", "gateway": "192.168.1.10"}]
    assert results[6]["addresses"] == ["127.0.0.1"] and results[7]["error"] == "it does not resolve"


def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (result,) = run({"kind": "tcp", "address": "127.0.0.1", "port": port})
        assert result["ok"] is True and result["ms"] >= 0
    assert run({"kind": "tcp", "address": "127.0.0.1", "port": port}) == [{"ok": False, "error": "refused"}]


def test_transfer_opens_the_firewall_and_shuts_it() -> None:
    port = free_port()
    system = FakeSystem()
    answers: list[dict[str, Any]] = []
    listen = {"kind": "listen", "transfers": 2, "port": port, "networks": ["10.0.0.0/24"], "seconds": 20}
    thread = threading.Thread(target=lambda: answers.extend(run(listen, system=system)))
    thread.start()
    common = {"address": "127.0.0.1", "port": port, "bytes": 200_000}
    sent, received = run({"kind": "send", **common}, {"kind": "receive", **common})
    thread.join(20)
    assert sent["ok"] and received["ok"] and sent["bytes"] == 200_000 and sent["mbit"] > 0
    assert answers[0]["ok"] is True and len(answers[0]["served"]) == 2
    assert system.firewall == [(port, ["10.0.0.0/24"]), "shut"]


def test_a_taken_port_is_said_and_the_firewall_shut() -> None:
    system = FakeSystem()
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        listen = {"kind": "listen", "transfers": 1, "port": port, "networks": ["10.0.0.0/24"]}
        (result,) = run(listen, system=system)
    assert result["ok"] is False and f"port {port}" in result["error"] and system.firewall[-1] == "shut"


def test_a_failed_transfer_is_a_result() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (result,) = run({"kind": "send", "address": "127.0.0.1", "port": port, "bytes": 1, "patience": 1})
    assert result["ok"] is False and "nothing listens" in result["error"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "a probe has a kind of clock, forwarding"),
        ("ping", "a probe has a kind"),
        ({"kind": "pong"}, "a probe has a kind"),
        ({"kind": "ping"}, "missing address"),
        ({"kind": "ping", "address": "host"}, "address cannot be 'host'"),
        ({"kind": "ping", "address": "-n"}, "address cannot be '-n'"),
        ({"kind": "ping", "address": "10.0.0.1", "size": 70000}, "size cannot be 70000"),
        ({"kind": "ping", "address": "10.0.0.1", "count": True}, "count cannot be True"),
        ({"kind": "ping", "address": "10.0.0.1", "df": 1}, "df cannot be 1"),
        ({"kind": "ping", "address": "10.0.0.1", "speed": 1}, "unknown speed"),
        ({"kind": "tcp", "address": "10.0.0.1", "port": 0}, "port cannot be 0"),
        ({"kind": "name", "name": "-x", "expect": "10.0.0.1"}, "name cannot be '-x'"),
        ({"kind": "send", "address": "10.0.0.1", "bytes": 1 << 31}, "bytes cannot be"),
        ({"kind": "listen", "transfers": 1, "networks": []}, "networks cannot be"),
        ({"kind": "listen", "transfers": 1, "networks": ["10.0.0.0/24,any"]}, "networks cannot be"),
    ],
)
def test_what_is_not_understood_is_refused_before_anything_runs(bad: Any, message: str) -> None:
    system = FakeSystem()
    with pytest.raises(FarmNodeError, match=re.escape(message)) as caught:
        run({"kind": "ping", "address": "10.0.0.1"}, bad, system=system)
    assert caught.value.reason == "bad_desired_state" and "probe 2" in caught.value.message
    assert system.pings == []


def test_probes_are_a_list() -> None:
    with pytest.raises(FarmNodeError, match="probes are a list, not dict"):
        Prober(FakeSystem(), FakeClock()).run({})


def test_every_kind_is_in_the_text() -> None:
    assert set(re.findall(r"^(\w+)  +", probe.__doc__ or "", re.MULTILINE)) - {"kind"} == set(probe._KINDS)


# -------------------------------------------------------------------------------------------------------------- Windows


def windows(bench: Bench) -> probe.Windows:
    return probe.Windows(bench.windows, bench.clock)


def test_windows_openvpn(bench: Bench) -> None:
    folder = bench.drive / "Program Files" / "OpenVPN" / "log"
    folder.mkdir(parents=True)
    (folder / "server.log").write_bytes(b"x" * 20000 + b"\r\nVERIFY ERROR\r\n")
    key = ("reg.exe", "query", r"HKLM\SOFTWARE\OpenVPN")
    shown = r"    log_dir    REG_SZ    C:\Program Files\OpenVPN\log"
    bench.windows.answers[key] = Completed(0, f"\r\nHKEY_LOCAL_MACHINE\\SOFTWARE\\OpenVPN\r\n{shown}\r\n\r\n", "")
    bench.windows.services["OpenVPNService"] = type(bench.windows.services["BACKBURNER_SRV_200"])(state=4)
    said = windows(bench).openvpn()
    assert (said["ok"], said["service"], list(said["logs"])) == (True, "running", ["server"])
    assert len(said["logs"]["server"]) < 16400 and said["logs"]["server"].endswith("VERIFY ERROR\n")


def test_windows_without_openvpn(bench: Bench) -> None:
    bench.windows.answers[("reg.exe", "query")] = Completed(1, "", "ERROR")
    assert windows(bench).openvpn()["service"] == "missing"


@pytest.mark.parametrize("second", ["enabled", "disabled"])
def test_windows_forwarding(bench: Bench, second: str) -> None:
    def block(number: int, forwards: str) -> str:
        rows = {"IfLuid": f"ethernet_{number}", "IfIndex": number, "State": "connected", "Forwarding": forwards}
        shown = "".join(f"{label:<35}: {value}\r\n" for label, value in rows.items())
        return f"\r\nInterface {number} Parameters\r\n{'-' * 46}\r\n{shown}"

    text = block(4, "enabled") + block(7, second)
    bench.windows.answers[("netsh.exe", "interface")] = Completed(0, text, "")
    assert windows(bench).forwarding() is (second == "enabled")


def test_windows_firewall(bench: Bench) -> None:
    bench.windows.answers[("netsh.exe",)] = Completed(0, "Ok.", "")
    system = windows(bench)
    system.let_in(3235, ["192.168.1.0/24", "10.8.0.0/24"])
    (stale, added) = bench.windows.called("netsh.exe")
    assert stale[3:] == ["delete", "rule", "name=renderfarm-link-check"]
    assert added[3:6] == ["add", "rule", "name=renderfarm-link-check"]
    assert "localport=3235" in added and "remoteip=192.168.1.0/24,10.8.0.0/24" in added


def test_windows_routes(bench: Bench) -> None:
    assert windows(bench).routes() == [(IPv4Network("0.0.0.0/0"), IPv4Address("10.0.0.1"))]


# ------------------------------------------------------------------------------------------------------------- command


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # No folder of Windows is known: the command works on a controller, too.
    monkeypatch.delenv("ProgramData", raising=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps([{"kind": "clock"}]).encode())))
    assert cli.main(["probe", "--system", "linux"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["ok"] is True


def test_command_refuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    assert cli.main(["probe"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "bad_desired_state"


def test_logs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    assert probe._tails(tmp_path)["a"].startswith("(cannot be read")
    assert probe._tails(tmp_path / "none") == {}
