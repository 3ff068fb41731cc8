"""Processes, file sharing between hosts, and the programs that show and use them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from windows_bench import Bench

from farmnode import drives
from farmnode.programs import Completed, Programs
from rehearsal.windows import smb
from rehearsal.windows.accounts import User
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.processes import Processes
from rehearsal.windows.services import Service

IMAGES = ("maxadapter.adp.exe", "3dsmax.exe")


def test_only_the_renderer_computes_and_a_hung_one_stays() -> None:
    now = [100.0]
    processes = Processes(lambda: now[0])
    with processes.shown(IMAGES):
        now[0] += 5
        adapter, renderer = processes.all()
        used = processes.seconds(renderer)
        assert processes.seconds(adapter) == 0.0 and used >= 5.0
        assert processes.hang() == 2
        now[0] += 5
        assert processes.seconds(renderer) == used
    assert [process.image for process in processes.all()] == list(IMAGES)
    assert processes.kill("3DSMAX.exe") == [renderer.number]
    assert processes.kill("maxadapter.adp.exe") == [adapter.number]
    assert processes.all() == [] and processes.kill("3dsmax.exe") == []


def test_programs_that_end_are_gone() -> None:
    processes = Processes(lambda: 0.0)
    with processes.shown(IMAGES):
        pass
    assert processes.all() == [] and processes.hang() == 0


def test_work_goes_on_or_fails_with_its_program() -> None:
    async def scenario() -> None:
        processes = Processes(lambda: 0.0)
        with processes.shown(IMAGES) as running:
            await running.responds()
            processes.hang()
            waiting = asyncio.create_task(running.responds())
            await asyncio.sleep(0)
            assert not waiting.done()
            processes.go_on()
            await waiting
            processes.hang()
            waiting = asyncio.create_task(running.responds())
            await asyncio.sleep(0)
            processes.kill("3dsmax.exe")
            with pytest.raises(ChildProcessError):
                await waiting

    asyncio.run(scenario())


def test_tasklist_and_taskkill(bench: Bench) -> None:
    host = bench.host

    def run(*words: str) -> tuple[int, str]:
        done = asyncio.run(host.run(words))
        return done.rc, (done.stdout + done.stderr).decode()

    with host.processes.shown(IMAGES):
        rc, text = run("tasklist.exe", "/v", "/fo", "csv", "/nh")
        rows = [line.split('","') for line in text.splitlines()]
        assert rc == 0 and {len(row) for row in rows} == {9}
        assert [row[0].strip('"') for row in rows][-2:] == list(IMAGES)
        assert run("taskkill.exe", "/f", "/im", "3dsmax.exe")[0] == 0
    assert run("taskkill.exe", "/f", "/im", "3dsmax.exe") == (128, 'ERROR: The process "3dsmax.exe" not found.\r\n')
    assert run("taskkill.exe", "/f", "/im", "System")[1].startswith("rehearsal:")
    for words in (("taskkill.exe", "/im", "x"), ("taskkill.exe", "/f", "/im", "*"), ("tasklist.exe", "/v")):
        assert run(*words)[1].startswith("rehearsal:")


LOWER = r"""
$found = Get-CimInstance -ClassName Win32_Process -Filter "Name = 'serversvc.exe' or Name like '%.adp.exe'"
$done = $found | Invoke-CimMethod -MethodName SetPriority -Arguments @{ Priority = 16384 }
$done.ReturnValue
"""
PRIORITIES = "$found = Get-CimInstance -ClassName Win32_Process -Filter \"Name like '%'\"\n$found.Priority"


def test_what_a_process_of_low_priority_starts_has_it_too(bench: Bench) -> None:
    host = bench.host

    async def run(script: str) -> list[str]:
        done = await host.run(["powershell.exe", "-NoProfile", "-NonInteractive", "-Command", script])
        assert done.rc == 0, done
        return done.stdout.decode().split()

    async def program(_host: object, _service: str) -> None:
        await asyncio.sleep(3600)

    async def scenario() -> None:
        host.files.write_bytes(r"C:\serversvc.exe", b"")
        host.service_programs["serversvc.exe"] = program
        host.services.create(Service("SRV", "Backburner Server", r"C:\serversvc.exe"))
        await host.services.start("SRV")
        with host.show_processes(IMAGES, "SRV"):
            assert await run(PRIORITIES) == ["8", "8", "8"]
            assert await run(LOWER) == ["0", "0"]
            assert await run(PRIORITIES) == ["6", "8", "6"]
        with host.show_processes(IMAGES, "SRV"):
            assert await run(PRIORITIES) == ["6", "6", "6"]
        await host.services.stop("SRV")
        await host.services.start("SRV")
        assert await run(PRIORITIES) == ["8"]

    asyncio.run(scenario())


def test_icacls_names_who_may(bench: Bench) -> None:
    host = bench.host
    host.files.make_directory(r"C:\secret")

    def run(*words: str) -> tuple[int, str]:
        done = asyncio.run(host.run(["icacls.exe", *words]))
        return done.rc, (done.stdout + done.stderr).decode()

    assert run(r"C:\secret", "/inheritance:r", "/grant:r", "*S-1-5-18:(OI)(CI)F")[0] == 0
    assert host.access_rules[r"c:\secret"] == [
        {"sid": "S-1-5-18", "inherit": "(OI)(CI)", "rights": "F", "type": "allow"}
    ]
    assert run(r"C:\none", "/inheritance:r", "/grant:r", "*S-1-5-18:F")[0] == 2
    assert run(r"C:\secret", "/inheritance:r", "/grant:r", "SYSTEM:F")[1].startswith("rehearsal:")
    assert run(r"C:\secret", "/reset")[1].startswith("rehearsal:")


# -------------------------------------------------------------------------------------------------------- the shares


def shared(bench: Bench, right: str = "Change") -> None:
    host = bench.host
    host.files.make_directory(r"C:\Farm")
    host.shares["farm"] = {
        "name": "farm",
        "path": r"C:\Farm",
        "access": [{"account": f"{host.computer_name}\\renderfarm", "type": "Allow", "right": right}],
    }


def ask(bench: Bench, **request: object) -> dict[str, object]:
    """What a host answers another one."""

    class Wire:
        def __init__(self) -> None:
            self.sent = b""

        def write(self, data: bytes) -> None:
            self.sent += data

        async def drain(self) -> None: ...
        def close(self) -> None: ...

    async def scenario() -> bytes:
        reader, wire = asyncio.StreamReader(), Wire()
        reader.feed_data(json.dumps(request).encode() + b"\n")
        reader.feed_eof()
        await smb.serve(bench.host, reader, wire)  # type: ignore[arg-type]
        return wire.sent

    answer: dict[str, object] = json.loads(asyncio.run(scenario()))
    return answer


GOOD = {"share": "farm", "user": "renderfarm", "password": "secret-of-12", "path": "", "do": "open"}


@pytest.fixture
def sharing(bench: Bench) -> Bench:
    shared(bench)
    bench.host.accounts.users["renderfarm"] = User("renderfarm", 1100, "secret-of-12")
    return bench


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"user": "nobody"}, smb.LOGON_FAILURE),
        ({"password": "wrong"}, smb.LOGON_FAILURE),
        ({"share": "other"}, smb.BAD_NET_NAME),
        ({"do": "delete"}, smb.ACCESS_DENIED),
        ({"do": "write", "path": r"a\b.exr", "data": "aGk="}, 0),
    ],
)
def test_who_may_do_what(sharing: Bench, change: dict[str, object], code: int) -> None:
    assert ask(sharing, **{**GOOD, **change})["code"] == code
    if change.get("do") == "write":
        assert sharing.host.files.read_bytes(r"C:\Farm\a\b.exr") == b"hi"


def test_who_may_read_may_not_write(sharing: Bench) -> None:
    shared(sharing, "Read")
    assert ask(sharing, **GOOD)["code"] == 0
    assert ask(sharing, **{**GOOD, "do": "write", "path": "x", "data": ""})["code"] == smb.ACCESS_DENIED


def test_nobody_reaches_a_share_without_a_mapping(bench: Bench) -> None:
    client = bench.host.network_files
    assert client.leads_away(r"\\10.0.0.10\farm\x") and client.leads_away(r"F:\x") and not client.leads_away(r"c:\x")
    for path, code in ((r"\\10.0.0.10\farm\x", smb.ACCESS_DENIED), (r"F:\x", 3), (r"\\bad", smb.BAD_NETPATH)):
        with pytest.raises(WindowsError) as caught:
            asyncio.run(client.write(path, b""))
        assert caught.value.code == code


# ------------------------------------------------------------------------------------------------------- PowerShell

SCRIPT = r"""
$ErrorActionPreference = 'Stop'
$secret = ConvertTo-SecureString -String ([Console]::In.ReadLine()) -AsPlainText -Force
$credential = New-Object -TypeName System.Management.Automation.PSCredential -ArgumentList 'renderfarm', $secret
Get-SmbGlobalMapping -LocalPath 'F:' -ErrorAction SilentlyContinue | Remove-SmbGlobalMapping -Force
New-SmbGlobalMapping -LocalPath 'F:' -RemotePath '\\10.0.0.10\farm' -Credential $credential -RequirePrivacy $true
"""
MAPPING = smb.Mapping(r"\\10.0.0.10\farm", "renderfarm", "secret-of-12")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every share lets in who asks; the passwords that it was asked with."""
    asked: list[str] = []

    async def ask(self: smb.Client, mapping: smb.Mapping, do: str, path: str, **more: object) -> dict[str, object]:
        asked.append(mapping.password)
        return {"code": 0}

    monkeypatch.setattr(smb.Client, "_ask", ask)
    return asked


def powershell(bench: Bench, script: str, stdin: bytes = b"secret-of-12\r\n") -> tuple[int, str]:
    words = ["powershell.exe", "-NoProfile", "-NonInteractive", "-Command", script]
    done = asyncio.run(bench.host.run(words, stdin=stdin))
    return done.rc, (done.stdout + done.stderr).decode()


def test_a_mapping_replaces_the_one_before(bench: Bench, opened: list[str]) -> None:
    for _ in range(2):
        assert powershell(bench, SCRIPT)[0] == 0
    assert opened == ["secret-of-12"] * 2
    assert bench.host.network_files.mappings == {"F:": MAPPING}
    with pytest.raises(WindowsError) as caught:
        asyncio.run(bench.host.network_files.map("F:", MAPPING, persistent=False))
    assert caught.value.code == 85


def on_disk(bench: Bench, secret: bytes) -> list[str]:
    """The files of a host that have ``secret`` in them."""
    found = [path for path in bench.host.root.rglob("*") if path.is_file() and secret in path.read_bytes()]
    return [str(path.relative_to(bench.host.root)) for path in found]


async def reboot(bench: Bench) -> None:
    await bench.host.power_on()
    await bench.host.power_off()


@pytest.mark.usefixtures("opened")
def test_a_mapping_and_its_password_are_kept_unless_it_is_told_not_to(bench: Bench) -> None:
    assert powershell(bench, SCRIPT)[0] == 0
    asyncio.run(reboot(bench))
    assert bench.host.network_files.mappings == {"F:": MAPPING}
    assert on_disk(bench, b"secret-of-12") == ["c" + smb.KEPT[2:].replace("\\", "/")]
    assert powershell(bench, SCRIPT.rstrip() + " -Persistent $false")[0] == 0, "it replaces the kept one"
    assert bench.host.network_files.mappings == {"F:": MAPPING} and on_disk(bench, b"secret-of-12") == []
    asyncio.run(reboot(bench))
    assert bench.host.network_files.mappings == {}


@pytest.mark.usefixtures("opened")
def test_the_mapping_of_a_node_leaves_no_password_on_its_disk(bench: Bench) -> None:
    class Shell(Programs):
        def run(
            self, name: str, arguments: Sequence[str], *, timeout: float = 60.0, stdin: bytes | None = None
        ) -> Completed:
            rc, text = powershell(bench, arguments[-1], stdin or b"")
            return Completed(rc, text, "")

    drives.map_drive(r"\\10.0.0.10\farm", "F:", "renderfarm", "secret-of-12", Shell())
    assert bench.host.network_files.mappings == {"F:": MAPPING}
    assert on_disk(bench, b"secret-of-12") == []


@pytest.mark.parametrize(
    ("script", "stdin", "said"),
    [
        (SCRIPT, b"", "ConvertTo-SecureString"),
        (SCRIPT.replace("$secret\n", "'plain'\n"), b"x\n", "SecureString"),
        (SCRIPT.replace("-LocalPath 'F:' -RemotePath", "-RemotePath"), b"x\n", "not modelled"),
        (SCRIPT.replace("-RequirePrivacy", "-Privacy"), b"x\n", "matches parameter name 'Privacy'"),
        (SCRIPT.replace("$credential -Req", "'renderfarm' -Req"), b"x\n", "parameter 'Credential'"),
        ("Remove-SmbGlobalMapping -LocalPath 'F:'", b"", "without -Force"),
    ],
)
def test_scripts_that_cannot_map(bench: Bench, script: str, stdin: bytes, said: str) -> None:
    rc, text = powershell(bench, script, stdin)
    assert rc == 1 and said in text
    assert bench.host.network_files.mappings == {}


def test_other_forms_of_powershell_are_not_modelled(bench: Bench) -> None:
    done = asyncio.run(bench.host.run(["powershell.exe", "-File", "x.ps1"]))
    assert done.rc != 0 and done.stderr.startswith(b"rehearsal:")
