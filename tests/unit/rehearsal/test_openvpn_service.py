from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from rehearsal import openvpn
from rehearsal.interfaces import Outcome, RehearsalError
from rehearsal.openvpn import AutomaticService, command_line, configurations, foreign_path
from rehearsal.packages import openvpn_package
from rehearsal.windows import network
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.files import Files
from rehearsal.windows.registry import Registry

CONFIGURATIONS = r"C:\Program Files\OpenVPN\config-auto"
REAL = shutil.which("openvpn", path=os.environ.get("PATH", "") + ":/usr/sbin")

needs_openvpn = pytest.mark.skipif(REAL is None, reason="openvpn is not installed")


class Platform:
    name = "gateway"

    def __init__(self) -> None:
        self.started: list[list[str]] = []
        self.processes: list[asyncio.subprocess.Process] = []
        self.spawned: list[list[str]] = []
        self.answer = Outcome(0)

    async def daemon(self, argv, *, env, cwd, log):
        self.started.append(list(argv))
        with Path(log).open("ab") as stream:
            process = await asyncio.create_subprocess_exec(*argv, env=dict(env), cwd=cwd, stdout=stream, stderr=stream)
        self.processes.append(process)
        return process

    async def spawn(self, argv, *, env, cwd, stdin=b"", timeout=3600.0):
        self.spawned.append(list(argv))
        return self.answer


class Host:
    name = "gateway"

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.files = Files(root, {}, lambda: None)
        self.registry = Registry({}, lambda: None)
        self.platform = Platform()
        self.messages: list[str] = []
        package = openvpn_package()
        for path in package["files"]:
            self.files.make_directory(path.rpartition("\\")[0])
            self.files.write_bytes(path, b"")
        for key, name, kind, data in package["registry"]:
            self.registry.set(key, name, kind, data)

    def log(self, text: str) -> None:
        self.messages.append(text)

    def configure(self, name: str, text: str) -> None:
        path = f"{CONFIGURATIONS}\\{name}"
        self.files.make_directory(path.rpartition("\\")[0])
        self.files.write_bytes(path, text.replace("\n", "\r\n").encode())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "c")


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A program in the place of openvpn: it notes its arguments in the log and ends with TERM or at once (``once``)."""
    path = tmp_path / "openvpn"
    path.write_text(
        "#!/bin/sh\n"
        'log="$2"\n'
        'case "$*" in *once.ovpn*) echo "$@" >>"$log"; exit 1;; esac\n'
        "sleep 60 & sleeper=$!\n"
        "trap 'echo goodbye >>\"$log\"; kill $sleeper; exit 0' TERM\n"
        'echo "$@" >>"$log"\n'  # from here on TERM finds all that it needs
        "wait $sleeper\n"
    )
    path.chmod(0o755)
    return str(path)


async def until(condition, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_one_process_for_each_configuration_also_in_folders_below(host: Host, program: str):
    host.configure("studio.ovpn", "client\n")
    host.configure(r"nodes\Remote.OVPN", "client\n")
    host.configure(r"ccd-studio\gateway", "iroute 10.0.0.0 255.255.255.0\n")

    async def story() -> None:
        task = asyncio.create_task(AutomaticService(binary=program)(host, "OpenVPNService"))
        logs = host.files.real(r"C:\Program Files\OpenVPN\log")
        await until(lambda: all((logs / f"{name}.log").exists() for name in ("studio", "Remote")))
        await until(lambda: all((logs / f"{name}.log").read_text() for name in ("studio", "Remote")))
        await stop(task)
        assert (logs / "studio.log").read_text().endswith("goodbye\n")
        assert all(process.returncode == 0 for process in host.platform.processes)

    asyncio.run(story())
    assert len(host.platform.started) == 2
    assert "2 configurations below" in host.messages[0]
    folder = str(host.files.real(CONFIGURATIONS))
    started = next(argv for argv in host.platform.started if "studio.ovpn" in argv)
    assert started[1:5] == ["--log", folder.replace("config-auto", "log/studio.log"), "--cd", folder]
    assert host.files.read_bytes(CONFIGURATIONS + r"\studio.ovpn") == b"client\r\n"


def test_a_process_that_ended_is_started_again_after_a_while(host: Host, program: str):
    host.configure("once.ovpn", "client\n")

    async def story() -> None:
        task = asyncio.create_task(AutomaticService(binary=program, restart_delay=0.05)(host, "OpenVPNService"))
        await until(lambda: len(host.platform.started) >= 3)
        await stop(task)

    asyncio.run(story())
    assert "ended with 1; again in 0.05 s" in " ".join(host.messages)
    assert openvpn.RESTART_DELAY == 10


def test_without_configurations_the_service_runs(host: Host, program: str):
    async def story() -> None:
        task = asyncio.create_task(AutomaticService(binary=program)(host, "OpenVPNService"))
        await asyncio.sleep(0.05)
        assert not task.done()
        await stop(task)

    asyncio.run(story())


def test_log_append_is_read_from_the_registry(host: Host, program: str):
    host.registry.set(openvpn.KEY, "log_append", "REG_SZ", "1")
    host.configure("studio.ovpn", "client\n")

    async def story() -> None:
        task = asyncio.create_task(AutomaticService(binary=program)(host, "OpenVPNService"))
        await until(lambda: bool(host.platform.started))
        await stop(task)

    asyncio.run(story())
    assert host.platform.started[0][1] == "--log-append"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda host: host.registry.delete(openvpn.KEY), "has no value autostart_config_dir"),
        (lambda host: host.files.delete(CONFIGURATIONS), "config-auto does not exist"),
        (lambda host: host.files.delete(r"C:\Program Files\OpenVPN\bin\openvpn.exe"), r"openvpn\.exe does not exist"),
    ],
)
def test_a_damaged_installation_ends_the_service(host: Host, program: str, spoil, message: str):
    spoil(host)
    with pytest.raises(WindowsError, match=message):
        asyncio.run(AutomaticService(binary=program)(host, "OpenVPNService"))


def test_a_program_that_cannot_be_started_ends_the_service_with_its_reason(host: Host):
    host.configure("studio.ovpn", "client\n")
    with pytest.raises(FileNotFoundError, match="no-openvpn"):
        asyncio.run(AutomaticService(binary="/no-openvpn")(host, "OpenVPNService"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('ca "C:\\\\Program Files\\\\OpenVPN\\\\ca.crt"', "C:\\\\Program"),
        ("log D:/x.log\n", "D:/x.log"),
        ("\\\\server\\share", "\\\\server\\share"),
        ('push "route 10.0.0.0 255.255.255.0"\nremote vpn.example.net 1194\ntls-version-min 1.3\n', None),
        ("# C:\\x\n; C:\\x\n<ca>\nC:\\x\n</ca>\ncrl-verify crl.pem\n", None),
        ("data-ciphers AES-256-GCM:CHACHA20-POLY1305:AES-128-GCM\n", None),
    ],
)
def test_paths_of_windows_are_found(text: str, found: str | None):
    assert foreign_path(text.encode()) == found


def test_a_configuration_with_a_path_of_windows_is_refused_by_name(host: Host, program: str):
    host.configure("studio.ovpn", 'ca "C:\\\\keys\\\\ca.crt"\n')

    async def story() -> None:
        task = asyncio.create_task(AutomaticService(binary=program)(host, "OpenVPNService"))
        await until(lambda: len(host.messages) == 2)
        await stop(task)

    asyncio.run(story())
    assert host.platform.started == []
    assert host.messages[1].startswith(rf"rehearsal: {CONFIGURATIONS}\studio.ovpn names C:\\keys\\ca.crt")


def test_configurations_are_found_by_extension(host: Host):
    for name in ("b.ovpn", "A.OVPN", "c.conf", r"sub\d.ovpn"):
        host.configure(name, "")
    found = configurations(host.files, CONFIGURATIONS, "OVPN")
    assert sorted(path.name for path in found) == ["A.OVPN", "b.ovpn", "d.ovpn"]


@needs_openvpn
def test_the_real_program_takes_a_configuration_for_windows(host: Host):
    """Directives of Windows pass, CR LF and a byte order mark too; a directive that nobody knows is still an error."""
    text = (
        "\ufeffdev null\nproto udp4\nport 0\nwindows-driver wintun\nip-win32 dynamic\nregister-dns\nblock-outside-dns\n"
        'route-method exe\ndev-node "OpenVPN TAP-Windows6"\nverb 3\n'
    )
    host.configure("good.ovpn", text)
    host.configure("bad.ovpn", "dev null\nno-such-directive 1\n")

    async def story() -> None:
        task = asyncio.create_task(AutomaticService()(host, "OpenVPNService"))
        logs = host.files.real(r"C:\Program Files\OpenVPN\log")
        good, bad = logs / "good.log", logs / "bad.log"
        await until(lambda: good.exists() and "UDPv4 link" in good.read_text())
        await until(lambda: bad.exists() and "no-such-directive" in bad.read_text())
        await stop(task)
        assert "Options error: Unrecognized option" in bad.read_text()
        assert "process exiting" in good.read_text()

    asyncio.run(story())


def test_options_after_the_configuration_win_over_it():
    argv = command_line("openvpn", Path("/c/config-auto/a.ovpn"), Path("/c/log/a.log"), append=False)
    assert argv.index("--config") < argv.index("--dev-node") < argv.index("--pull-filter")
    assert argv[argv.index("--ignore-unknown-option") + 1 : argv.index("--config")] == list(openvpn.WINDOWS_ONLY)


def test_a_tunnel_has_the_forwarding_of_its_adapter(host: Host):
    asyncio.run(network.prepare_tunnel_adapters(host))
    assert host.platform.spawned == []
    host.registry.set(network.FORWARDING, "OpenVPN TAP-Windows6", "REG_DWORD", 1)
    asyncio.run(network.prepare_tunnel_adapters(host))
    assert host.platform.spawned == [["sysctl", "-w", "net.ipv4.conf.default.forwarding=1"]]


def test_forwarding_of_one_interface(host: Host):
    asyncio.run(network.set_device_forwarding(host.platform, "eth0", True))
    assert host.platform.spawned == [["sysctl", "-w", "net.ipv4.conf.eth0.forwarding=1"]]
    host.platform.answer = Outcome(255, stderr=b"cannot stat")
    with pytest.raises(RehearsalError, match="gateway: cannot stat"):
        asyncio.run(network.set_device_forwarding(host.platform, "nope", True))


def test_the_interactive_service_waits():
    async def story() -> None:
        task = asyncio.create_task(openvpn.SERVICE_PROGRAMS["openvpnserv.exe"](None, "OpenVPNServiceInteractive"))
        await asyncio.sleep(0.01)
        assert not task.done()
        await stop(task)

    asyncio.run(story())
