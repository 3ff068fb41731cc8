"""A host as a whole: power, what survives, commands, real processes."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from windows_bench import Bench, FakePlatform

from rehearsal.interfaces import RehearsalError, Request
from rehearsal.windows import images
from rehearsal.windows.host import WindowsHost

Run = Callable[[Any], Any]


def test_boot_is_fast_and_gives_a_sysprepped_image_its_name(bench: Bench) -> None:
    async def scenario() -> None:
        before = bench.host.accounts.machine_sid
        start = time.process_time()
        await bench.host.power_on()
        assert time.process_time() - start < 0.05
        assert bench.host.computer_name.startswith("EC2AMAZ-") and len(bench.host.computer_name) == 15
        assert bench.host.accounts.machine_sid != before
        with pytest.raises(RehearsalError, match="has power already"):
            await bench.host.power_on()
        await bench.host.power_off()

    asyncio.run(scenario())


def test_a_copy_of_the_disk_is_a_clone_with_its_own_card(bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> None:
        await bench.host.power_on()
        name, sid = bench.host.computer_name, bench.host.accounts.machine_sid
        bench.host.files.write_bytes("C:\\mark", b"x")
        await bench.host.power_off()
        state = json.loads((bench.root / "host.json").read_text())
        assert "02:1a:2b:3c:4d:5e" not in json.dumps(state) and "10.0.0.21" not in json.dumps(state)
        (tmp_path / "clone").mkdir()
        shutil.copytree(bench.root / "c", tmp_path / "clone" / "c", symlinks=True)
        shutil.copy(bench.root / "host.json", tmp_path / "clone")
        clone = Bench(tmp_path / "clone", FakePlatform("clone", "10.0.0.22"))
        await clone.host.power_on()
        assert (clone.host.computer_name, clone.host.accounts.machine_sid) == (name, sid)
        assert clone.host.files.read_bytes("C:\\mark") == b"x"
        await clone.host.power_off()

    asyncio.run(scenario())


def test_a_folder_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match="made from an image"):
        WindowsHost(tmp_path, FakePlatform())
    (tmp_path / "host.json").write_text("{")
    with pytest.raises(RehearsalError, match="not readable"):
        WindowsHost(tmp_path, FakePlatform())
    (tmp_path / "host.json").write_text('{"version": 0}')
    with pytest.raises(RehearsalError, match="version 0"):
        WindowsHost(tmp_path, FakePlatform())


def test_changes_are_written_together(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        path = bench.root / "host.json"
        before = path.stat().st_ino
        for number in range(50):
            bench.host.registry.set(r"HKLM\SOFTWARE\T", str(number), "REG_DWORD", number)
        assert path.stat().st_ino == before
        await asyncio.sleep(0.3)
        after = path.stat().st_ino
        assert after != before and '"49":' in path.read_text()

    run(scenario)


def test_winrm_listens_while_its_service_runs(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        host, ports = bench.host, bench.platform.ports
        await host.services.stop("LanmanServer")
        await asyncio.sleep(0.01)
        assert list(ports) == [5985] and host.winrm_up()
        await host.services.stop("WinRM")
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert not ports and not host.winrm_up()
        await host.services.start("WinRM")
        await asyncio.sleep(0.01)
        assert list(ports) == [5985]
        host.winrm_settings["listeners"][0].update(Transport="HTTPS", Port=5986, CertificateThumbprint="AB")
        await host.update_listeners()
        assert not ports and "certificate AB of the HTTPS listener is not in the store" in bench.log

    run(scenario)


def test_file_sharing_listens_while_its_service_runs(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        host, ports = bench.host, bench.platform.ports
        await asyncio.sleep(0.01)
        assert 445 in ports
        await host.services.stop("LanmanServer")
        await asyncio.sleep(0.01)
        assert 445 not in ports
        await host.services.start("LanmanServer")
        await asyncio.sleep(0.01)
        assert 445 in ports

    run(scenario)


def test_who_may_log_on_over_winrm(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        accounts = bench.host.accounts
        assert bench.host.winrm_users() == {}, "Administrator has no password yet"
        accounts.users["administrator"].password = "p"
        accounts.add_user("plain", "p")
        accounts.add_user("remote", "r", groups=["S-1-5-32-580"])
        accounts.add_user("off", "r", groups=["S-1-5-32-544"], disabled=True)
        assert bench.host.winrm_users() == {"Administrator": "p", "remote": "r"}
        assert not bench.host.winrm_basic_allowed()

    run(scenario)


def test_files_come_and_go_over_winrm(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        execute = bench.host.execute
        made = await execute(Request("mkdtemp", parameters={"Directory": "%TEMP%", "Name": "ansible-1"}))
        folder = made.stdout.decode().strip()
        assert folder == "C:\\Windows\\Temp\\ansible-1"
        content = bytes(range(256)) * 10
        lines = "\n".join(base64.b64encode(content[i : i + 1000]).decode() for i in range(0, len(content), 1000))
        put = await execute(Request("put_file", parameters={"Path": folder + "\\f"}, data=lines))
        assert len(json.loads(put.stdout)["sha1"]) == 40
        fetched = b""
        while True:
            parameters = {"Path": folder + "\\F", "BufferSize": 700, "Offset": len(fetched)}
            part = await execute(Request("fetch_file", parameters=parameters))
            if not part.stdout:
                break
            fetched += base64.b64decode(part.stdout)
        assert fetched == content
        where = {"BufferSize": 1, "Offset": 0}
        assert (await execute(Request("fetch_file", parameters={"Path": folder, **where}))).stdout == b"[DIR]\r\n"
        missing = await execute(Request("fetch_file", parameters={"Path": "C:\\no", **where}))
        assert missing.rc == 1 and b"C:\\no does not exist" in missing.stderr
        refused = await execute(Request("put_file", parameters={"Path": "C:\\no\\such\\folder"}, data=""))
        assert refused.rc == 1 and b"Could not find a part of the path" in refused.stderr
        home = await execute(Request("expand_user", parameters={"Path": "~\\x"}))
        assert home.stdout.strip().endswith(b"systemprofile\\x")
        removal = await execute(Request("powershell", script=f"Remove-Item '{folder}' -Force -Recurse"))
        assert removal.rc == 0 and not bench.host.files.exists(folder)

    run(scenario)


def test_plain_commands_and_scripts(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        reply = await bench.host.execute(Request("command", script="hostname"))
        assert reply.stdout.decode().strip() == bench.host.computer_name
        reply = await bench.host.execute(Request("command", script="nothing.exe -x"))
        assert reply.rc == 1 and b"cannot find the file" in reply.stderr
        reply = await bench.host.execute(Request("script", script="& x.ps1"))
        assert reply.rc == 1 and b"rehearsal: no stand-in for scripts" in reply.stderr

    run(scenario)


def test_become_needs_a_known_user(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.accounts.add_user("artist", "secret")

        async def ask(user: str, password: str | None = None) -> str:
            become = {"BecomeUser": user, **({} if password is None else {"BecomePassword": password})}
            request = Request("module", module="ansible.windows.setup", become=become)
            reply = await bench.host.execute(request)
            if reply.rc:
                return reply.stderr.decode()
            return str(json.loads(reply.stdout)["ansible_facts"]["ansible_user_id"])

        assert await ask("artist", "secret") == "artist"
        assert await ask(".\\artist") == "artist"
        assert await ask("SYSTEM") == "SYSTEM"
        assert "Failed to become user 'artist'" in await ask("artist", "wrong")
        assert "Failed to become user 'nobody'" in await ask("nobody", "x")

    run(scenario)


def test_asynchronous_modules_leave_their_result_in_a_file(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        wrapper = {"AsyncDir": "%USERPROFILE%\\.ansible_async", "AsyncJid": "j1", "StartupTimeout": 5, "Timeout": 30}
        request = Request("module", module="ansible.windows.win_ping", asynchronous=wrapper)
        started = json.loads((await bench.host.execute(request)).stdout)
        assert started["started"] is True and started["finished"] is False
        job = started["ansible_job_id"]
        folder = {"_async_dir": "%USERPROFILE%\\.ansible_async", "jid": job}
        assert (await bench.module("async_status", **folder))["finished"] is False
        await asyncio.sleep(0.01)
        status = await bench.module("async_status", **folder)
        assert status["finished"] is True and status["ping"] == "pong"
        assert (await bench.module("async_status", mode="cleanup", **folder))["erased"].endswith(job)
        gone = await bench.module("async_status", **folder)
        assert gone["failed"] and gone["msg"].startswith("could not find job at 'C:\\Windows\\System32\\config")
        late = {**wrapper, "Timeout": 0.01}
        program = {"argv": ["shutdown.exe", "/a"]}
        bench.host.programs["shutdown.exe"] = _slow
        request = Request("module", module="ansible.windows.win_command", arguments=program, asynchronous=late)
        job = json.loads((await bench.host.execute(request)).stdout)["ansible_job_id"]
        await asyncio.sleep(0.05)
        result = await bench.module("async_status", _async_dir=wrapper["AsyncDir"], jid=job)
        assert result["failed"] and "timed out waiting for module completion" in result["msg"]

    run(scenario)


async def _slow(invocation: Any) -> Any:
    await asyncio.sleep(10)


def test_reboot_as_win_reboot_asks_for_it(run: Run) -> None:
    """The three texts of the installed ansible.windows, as its action sends them."""
    from ansible_collections.ansible.windows.plugins.plugin_utils import _reboot

    source = Path(_reboot.__file__).read_text()
    template = source.split('reboot_command = r"""', 1)[1].split('"""', 1)[0]
    key = _reboot._LOGON_UI_KEY
    tail = (
        "; If (-not $?) { If (Get-Variable LASTEXITCODE -ErrorAction SilentlyContinue) { exit $LASTEXITCODE } "
        "Else { exit 1 } }"
    )
    assert tail.strip("; ") in source
    if "last_boot_time" not in source:
        pytest.skip("the stand-in follows win_reboot of ansible.windows 3.8; the farm itself never restarts a machine")

    async def scenario(bench: Bench) -> None:
        async def ask(text: str) -> Any:
            return await bench.host.execute(Request("powershell", script=text + tail))

        boot_time = (await ask(_reboot._DEFAULT_BOOT_TIME_COMMAND)).stdout.decode().strip()
        assert boot_time.isdigit() and len(boot_time) == 18
        test = f"Get-Item -LiteralPath '{key}' -ErrorAction Stop; 'success-1'"
        assert (await ask(test)).stdout.decode().splitlines()[-1] == "success-1"
        reply = await ask(template % ("True", key, 0, "'It''s time'"))
        assert json.loads(reply.stdout) == {"stdout": "", "stderr": "", "rc": 0}
        failed = await ask(test)
        assert failed.rc == 1 and b"does not exist" in failed.stderr
        again = json.loads((await ask(template % ("True", key, 0, "'x'"))).stdout)
        assert again["rc"] == 1190 and "(1190)" in again["stderr"]
        await asyncio.sleep(0.01)
        assert bench.platform.powered == ["reboot"]
        bench.host.platform.powered.clear()  # type: ignore[attr-defined]
        await bench.host.power_off()
        after = bench.again()
        await after.host.power_on()
        second = (
            await after.host.execute(Request("powershell", script=_reboot._DEFAULT_BOOT_TIME_COMMAND + tail))
        ).stdout
        assert int(second) > int(boot_time)
        assert (await after.host.execute(Request("powershell", script=test + tail))).rc == 0
        aborted = await after.host.execute(Request("powershell", script=r"C:\Windows\System32\shutdown.exe /a" + tail))
        assert aborted.rc == 1116
        await after.host.power_off()
        bench.host.powered = False

    run(scenario)


def test_real_processes_call_the_programs_of_their_host(run: Run, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(RehearsalError, match="serve_control"):
            bench.host.real_environment()
        await bench.host.serve_control(tmp_path / "s")
        environment = bench.host.real_environment()
        system32 = Path(environment["SystemRoot"]) / "System32"

        def call(*words: str) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                [str(system32 / words[0]), *words[1:]], env=environment, capture_output=True, check=False, cwd=system32
            )

        done = await asyncio.to_thread(call, "sc.exe", "query", "WinRM")
        assert done.returncode == 0 and b"STATE              : 4  RUNNING" in done.stdout
        done = await asyncio.to_thread(call, "sc.exe", "query", 'größe "x\\')
        assert done.returncode == 1060 & 255 and b"FAILED 1060:" in done.stdout
        bench.host.files.write_bytes("C:\\Windows\\Temp\\line", b"hello\r\n")
        mapped = str(bench.host.files.real("C:\\Windows\\Temp\\line"))
        for path in (mapped, "C:\\Windows\\Temp\\line"):
            done = await asyncio.to_thread(call, "cmd.exe", "/d", "/c", "copy", "/b", path, "\\\\.\\COM1")
            assert done.returncode == 0
        assert bench.platform.console == b"hello\r\n" * 2
        refused = await asyncio.to_thread(call, "netsh.exe", "wlan")
        assert refused.returncode == 1 and refused.stderr.startswith(b"rehearsal: netsh.exe wlan")
        bench.host.programs.pop("getmac.exe")
        missing = await asyncio.to_thread(call, "getmac.exe")
        assert missing.returncode == 1 and b"no stand-in for the program" in missing.stderr
        del environment["REHEARSAL_SOCKET"]
        lost = await asyncio.to_thread(call, "sc.exe", "query")
        assert lost.returncode == 1 and b"REHEARSAL_SOCKET is not set" in lost.stderr

    run(scenario)


def test_the_workstation_speaks_tls_with_the_certificate_beside_it(tmp_path: Path) -> None:
    import ssl

    images.stock_workstation(tmp_path, "secret", "192.168.1.10")

    async def scenario() -> None:
        platform = FakePlatform("workstation", "192.168.1.10", "192.168.1.0/24")
        bench = Bench(tmp_path, platform)
        await bench.host.power_on()
        assert bench.host.winrm_users() == {"artist": "secret"}
        assert "tcp dport { 5986 } accept" in platform.rulesets[-1]
        _, server_context = platform.ports[5986]

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]
        trust = ssl.create_default_context(cafile=str(tmp_path / "winrm.pem"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="192.168.1.10")
        assert await reader.read() == b"hello"
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="192.168.1.11")
        server.close()
        await bench.host.power_off()

    asyncio.run(scenario())
