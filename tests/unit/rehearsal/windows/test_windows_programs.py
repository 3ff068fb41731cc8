"""The programs: grammar, layout of what they print, effect, refusal of what is not known."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from windows_bench import CODE, PACKAGE, Bench, FakePlatform

from rehearsal.windows.programs import TABLE
from rehearsal.windows.programs.python import search_path

Run = Callable[[Any], Any]
TCPIP = r"HKLM\SYSTEM\CurrentControlSet\Services\Tcpip\Parameters"


@pytest.mark.parametrize(
    "line",
    [
        "sc.exe",
        "sc.exe \\\\other query",
        "sc.exe sdset WinRM D:",
        "sc.exe query type= driver",
        "sc.exe config WinRM start= sometimes",
        "sc.exe config WinRM start=",
        "sc.exe failure WinRM reset= 5",
        "sc.exe start WinRM argument",
        "route.exe",
        "route.exe CHANGE 1.2.3.4",
        "route.exe -f",
        "route.exe ADD 10.1.0.0 10.0.0.1",
        "route.exe PRINT 10.*",
        "reg.exe export HKLM\\SOFTWARE x.reg",
        "reg.exe add HKLM\\SOFTWARE\\X /v a",
        "reg.exe query HKLM\\SOFTWARE /f x",
        "netsh.exe interface show interface",
        "netsh.exe advfirewall reset",
        "shutdown.exe",
        "shutdown.exe /h",
        "shutdown.exe /s /r",
        "shutdown.exe /s /t soon",
        "net.exe use Z: \\\\manager\\projects",
        "net.exe localgroup",
        "cmd.exe /c dir",
        "cmd.exe /d /c copy /b C:\\x C:\\y",
        "tasklist.exe /m",
        "tasklist.exe /fi status",
        "hostname.exe -x",
        "getmac.exe /s other",
        "powercfg.exe /list",
        "msiexec.exe /qn",
        "msiexec.exe /i C:\\x.msi",
        "msiexec.exe /i C:\\x.msi /qn /unknown",
    ],
)
def test_what_is_not_modelled_fails(run: Run, line: str) -> None:
    async def scenario(bench: Bench) -> None:
        rc, out, err = await bench.program(*line.split(" "))
        assert rc != 0 and (out + err).startswith("rehearsal: "), (rc, out, err)

    run(scenario)


def test_every_program_of_system32_has_a_stand_in(bench: Bench) -> None:
    names = [name for name in bench.host.files.names("C:\\Windows\\System32") if name.endswith(".exe")]
    assert len(names) == 16 and set(names) <= set(TABLE)


# ------------------------------------------------------------------------------------------------------------------ sc


def test_sc_query_and_states(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        rc, out, _ = await bench.program("sc.exe", "query", "spooler")
        assert rc == 0 and out == (
            "\nSERVICE_NAME: Spooler \n"
            "        TYPE               : 10  WIN32_OWN_PROCESS  \n"
            "        STATE              : 4  RUNNING \n"
            "                                (STOPPABLE, NOT_PAUSABLE, ACCEPTS_SHUTDOWN)\n"
            "        WIN32_EXIT_CODE    : 0  (0x0)\n"
            "        SERVICE_EXIT_CODE  : 0  (0x0)\n"
            "        CHECKPOINT         : 0x0\n"
            "        WAIT_HINT          : 0x0\n"
        )
        rc, out, _ = await bench.program("sc", "stop", "Spooler")
        assert rc == 0 and "STATE              : 3  STOP_PENDING" in out
        rc, out, _ = await bench.program("sc", "stop", "Spooler")
        assert rc == 1062 and out == "[SC] ControlService FAILED 1062:\n\nThe service has not been started.\n\n"
        rc, out, _ = await bench.program("sc", "queryex", "Spooler")
        assert "STATE              : 1  STOPPED" in out and "PID                : 0" in out
        rc, out, _ = await bench.program("sc", "start", "Spooler")
        assert rc == 0 and "STATE              : 2  START_PENDING" in out
        rc, out, _ = await bench.program("sc", "start", "Spooler")
        assert rc == 1056 and out.startswith("[SC] StartService FAILED 1056:\n\nAn instance of the service")
        rc, out, _ = await bench.program("sc", "query", "none")
        assert rc == 1060 and out.startswith("[SC] EnumQueryServicesStatus:OpenService FAILED 1060:")
        rc, out, _ = await bench.program("sc", "query", "state=", "all")
        assert rc == 0 and out.count("SERVICE_NAME:") == len(bench.host.services.names())
        rc, out, _ = await bench.program("sc", "query", "type=", "service", "state=", "inactive")
        assert "SERVICE_NAME: RemoteAccess" in out and "SERVICE_NAME: Spooler" not in out

    run(scenario)


def test_sc_configures(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        rc, out, _ = await bench.program(
            "sc",
            "create",
            "Farm",
            "binPath=",
            "C:\\f.exe",
            "start=",
            "delayed-auto",
            "obj=",
            "NT AUTHORITY\\LocalService",
        )
        assert (rc, out) == (0, "[SC] CreateService SUCCESS\n")
        assert (await bench.program("sc", "create", "farm", "binPath=", "x"))[0] == 1073
        rc, out, _ = await bench.program("sc", "qc", "Farm")
        assert "START_TYPE         : 2   AUTO_START  (DELAYED)\n" in out and "BINARY_PATH_NAME   : C:\\f.exe\n" in out
        assert "SERVICE_START_NAME : NT AUTHORITY\\LocalService\n" in out
        rc, out, _ = await bench.program("sc", "config", "Farm", "start=", "demand", "depend=", "Spooler/WinRM")
        assert (rc, out) == (0, "[SC] ChangeServiceConfig SUCCESS\n")
        rc, out, _ = await bench.program("sc", "qc", "Farm")
        assert "START_TYPE         : 3   DEMAND_START" in out
        assert "DEPENDENCIES       : Spooler\n                           : WinRM\n" in out
        rc, out, _ = await bench.program("sc", "config", "Farm", "obj=", "nobody")
        assert rc == 1057 and "ChangeServiceConfig FAILED 1057" in out
        rc, out, _ = await bench.program(
            "sc", "failure", "Farm", "reset=", "60", "actions=", "restart/5000/restart/10000//0"
        )
        assert (rc, out) == (0, "[SC] ChangeServiceConfig2 SUCCESS\n")
        rc, out, _ = await bench.program("sc", "qfailure", "Farm")
        assert "RESET_PERIOD (in seconds)    : 60" in out and out.count("RESTART -- Delay = ") == 2
        assert (await bench.program("sc", "description", "Farm", "A farm"))[0] == 0
        assert bench.host.services.get("Farm").description == "A farm"
        assert (await bench.program("sc", "delete", "Farm"))[1] == "[SC] DeleteService SUCCESS\n"
        assert (await bench.program("sc", "delete", "Farm"))[0] == 1060

    run(scenario)


# --------------------------------------------------------------------------------------------------------------- route


def test_routes_are_real_and_persistent(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        add = ("route.exe", "-p", "ADD", "192.168.1.0", "MASK", "255.255.255.0", "10.0.0.10", "METRIC", "3")
        assert await bench.program(*add) == (0, " OK!\n", "")
        assert {
            "dst": "192.168.1.0/24",
            "gateway": "10.0.0.10",
            "dev": "eth0",
            "metric": 3,
        } in bench.platform.route_table
        assert [value.name for value in bench.host.registry.values(TCPIP + r"\PersistentRoutes")] == [
            "192.168.1.0,255.255.255.0,10.0.0.10,3"
        ]
        rc, _, err = await bench.program(*add)
        assert rc == 1 and err == "The route addition failed: The object already exists.\n\n"
        rc, _, err = await bench.program("route.exe", "ADD", "10.8.0.0", "MASK", "255.255.255.0", "10.9.0.1")
        assert rc == 1 and "the gateway does not lie on the same network" in err
        rc, _, err = await bench.program("route.exe", "ADD", "10.8.0.1", "MASK", "255.255.255.0", "10.0.0.1")
        assert rc == 1 and "(Destination & Mask) != Destination" in err
        rc, _, err = await bench.program("route.exe", "ADD", "10.8", "MASK", "255.255.255.0", "10.0.0.1")
        assert rc == 1 and err.startswith("route: bad argument")
        rc, out, _ = await bench.program("route.exe", "PRINT", "-4")
        assert rc == 0
        assert "      192.168.1.0    255.255.255.0        10.0.0.10       10.0.0.21     18\n" in out
        assert "Persistent Routes:\n  Network Address          Netmask  Gateway Address  Metric\n" in out
        assert "      192.168.1.0    255.255.255.0        10.0.0.10       3\n" in out
        bench.platform.route_table.pop()
        await bench.host.power_off()
        after = bench.again(FakePlatform())
        await after.host.power_on()
        assert any(route["dst"] == "192.168.1.0/24" for route in after.platform.route_table), "set again at boot"
        done = await after.program("route.exe", "DELETE", "192.168.1.0", "MASK", "255.255.255.0", "10.0.0.10")
        assert done == (0, " OK!\n", "")
        assert not any(route["dst"] == "192.168.1.0/24" for route in after.platform.route_table)
        rc, out, _ = await after.program("route.exe", "print", "-4")
        assert out.endswith("Persistent Routes:\n  None\n")
        rc, _, err = await after.program("route.exe", "delete", "192.168.1.0")
        assert rc == 1 and err == "The route deletion failed: Element not found.\n\n"
        await after.host.power_off()

    run(scenario)


def test_a_route_over_the_loopback_adapter_drops(bench: Bench) -> None:
    async def scenario() -> None:
        await bench.host.power_on()
        way = ("MASK", "255.255.255.0", "10.0.0.1")
        add = ("route.exe", "-p", "ADD", "192.168.1.0", *way, "METRIC", "9999", "IF", "1")
        assert await bench.program(*add) == (0, " OK!\n", "")
        dropping = {"type": "blackhole", "dst": "192.168.1.0/24", "metric": 9999}
        assert dropping in bench.platform.route_table
        rc, _, err = await bench.program(*add)
        assert rc == 1 and "object already exists" in err
        rc, out, _ = await bench.program("route.exe", "PRINT", "-4")
        assert "192.168.1.0    255.255.255.0         10.0.0.1       127.0.0.1" in out
        rc, _, err = await bench.program(*add[:6], "127.0.0.1", *add[7:])
        assert rc == 1 and "parameter is incorrect" in err
        assert "only the loopback adapter" in (await bench.program(*add[:-1], "2"))[2]
        await bench.host.power_off()
        after = bench.again(FakePlatform())
        await after.host.power_on()
        assert dropping in after.platform.route_table, "set again at boot"
        assert await after.program("route.exe", "DELETE", "192.168.1.0", *way) == (0, " OK!\n", "")
        assert dropping not in after.platform.route_table
        await after.host.power_off()

    asyncio.run(scenario())


def test_forwarding_of_an_adapter_holds_at_once_and_after_a_boot(bench: Bench) -> None:
    async def scenario() -> None:
        key = "net.ipv4.conf.eth0.forwarding"
        await bench.host.power_on()
        show = ("netsh.exe", "interface", "ipv4", "show", "interfaces")
        rc, out, _ = await bench.program(*show, "level=verbose")
        assert rc == 0 and out.count("Forwarding                         : disabled") == 2
        assert "IfIndex                            : 2\n" in out
        assert "  2          15        1500  connected     Ethernet\n" in (await bench.program(*show))[1]
        change = ("netsh.exe", "interface", "ipv4", "set", "interface", "interface=2")
        assert await bench.program(*change, "forwarding=enabled") == (0, "Ok.\n\n", "")
        assert bench.platform.sysctls[key] == "1"
        assert "Forwarding                         : enabled" in (await bench.program(*show, "level=verbose"))[1]
        assert "only forwarding" in (await bench.program(*change, "mtu=1400"))[2]
        assert (await bench.program(*change[:-1], "interface=99", "forwarding=enabled"))[0] == 1
        await bench.host.power_off()
        after = bench.again(FakePlatform())
        await after.host.power_on()
        assert after.platform.sysctls[key] == "1"
        await after.host.power_off()

    asyncio.run(scenario())


def test_adapters_of_openvpn_are_there_without_a_tunnel(bench: Bench) -> None:
    async def scenario() -> None:
        bench.host.registry.set(r"HKLM\SOFTWARE\OpenVPN", "", "REG_SZ", "x")
        rc, out, _ = await bench.program("netsh", "interface", "ipv4", "show", "interfaces")
        assert rc == 0 and "disconnected  OpenVPN TAP-Windows6" in out
        change = ("netsh.exe", "interface", "ipv4", "set", "interface", "interface=1001", "forwarding=enabled")
        assert (await bench.program(*change))[0] == 0
        _, out, _ = await bench.program("netsh", "interface", "ipv4", "show", "interfaces", "level=verbose")
        assert out.count("Forwarding                         : enabled") == 1

    asyncio.run(scenario())


def test_a_persistent_route_without_its_link_is_logged(bench: Bench) -> None:
    async def scenario() -> None:
        bench.host.registry.set(TCPIP + r"\PersistentRoutes", "192.168.1.0,255.255.255.0,10.7.0.1,1", "REG_SZ", "")
        bench.host.registry.set(TCPIP, "IPEnableRouter", "REG_DWORD", 1)
        await bench.host.power_on()
        assert "persistent route 192.168.1.0/24 via 10.7.0.1: The route addition failed" in bench.log
        assert bench.platform.forwards == [True]
        await bench.host.power_off()

    asyncio.run(scenario())


# ----------------------------------------------------------------------------------------------------------------- reg


def test_reg(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        key = "HKLM\\SOFTWARE\\Farm"
        done = (0, "The operation completed successfully.\n\n", "")
        assert await bench.program("reg", "add", key, "/v", "Role", "/d", "manager", "/f") == done
        assert await bench.program("reg", "add", key, "/v", "N", "/t", "REG_DWORD", "/d", "0x10", "/f") == done
        assert await bench.program("reg", "add", key, "/ve", "/d", "x", "/f") == done
        rc, out, _ = await bench.program("reg", "query", key, "/v", "n")
        assert (rc, out) == (0, "\nHKEY_LOCAL_MACHINE\\SOFTWARE\\Farm\n    N    REG_DWORD    0x10\n\n")
        rc, out, _ = await bench.program("reg", "query", key)
        assert "    Role    REG_SZ    manager\n" in out and "    (Default)    REG_SZ    x\n" in out
        rc, _, err = await bench.program("reg", "query", key, "/v", "none")
        assert rc == 1 and err == "ERROR: The system was unable to find the specified registry key or value.\n"
        assert (await bench.program("reg", "query", "HKXX\\x"))[2].startswith("ERROR: Invalid key name.")
        assert (await bench.program("reg", "add", key, "/v", "x", "/t", "REG_DWORD", "/d", "z", "/f"))[0] == 1
        rc, out, _ = await bench.program("reg", "query", "HKLM\\SOFTWARE", "/s")
        assert "HKEY_LOCAL_MACHINE\\SOFTWARE\\Farm\n" in out
        assert await bench.program("reg", "delete", key, "/v", "N", "/f") == done
        assert await bench.program("reg", "delete", key, "/f") == done
        assert (await bench.program("reg", "delete", key, "/f"))[0] == 1

    run(scenario)


# --------------------------------------------------------------------------------------------------------------- netsh


def test_netsh(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        rule = ("netsh", "advfirewall", "firewall")
        add = (*rule, "add", "rule", "name=Render farm", "dir=in", "action=allow", "protocol=UDP", "localport=1194")
        assert (await bench.program(*add, "remoteip=192.168.1.0/24"))[:2] == (0, "Ok.\n\n")
        assert "ip saddr { 192.168.1.0/24 } udp dport { 1194 } accept" in bench.platform.rulesets[-1]
        rc, out, _ = await bench.program(*rule, "show", "rule", "name=render farm")
        assert (
            "Rule Name:                            Render farm\n" in out
            and "LocalPort:                            1194" in out
        )
        rc, out, _ = await bench.program(*rule, "set", "rule", "name=Render farm", "new", "enable=no")
        assert (rc, out) == (0, "\nUpdated 1 rule(s).\nOk.\n\n") and "1194" not in bench.platform.rulesets[-1]
        rc, out, _ = await bench.program(*rule, "delete", "rule", "name=Render farm", "protocol=UDP", "localport=1194")
        assert (rc, out) == (0, "\nDeleted 1 rule(s).\nOk.\n\n")
        rc, out, _ = await bench.program(*rule, "delete", "rule", "name=Render farm")
        assert (rc, out) == (1, "\nNo rules match the specified criteria.\n\n")
        rc, out, _ = await bench.program(*rule, "add", "rule", "name=x", "dir=in", "action=allow", "port=3")
        assert rc == 1 and "'port=3' is not a valid argument" in out
        rc, out, _ = await bench.program(*rule, "add", "rule", "name=x", "dir=in")
        assert rc == 1 and "essential parameters" in out
        assert (await bench.program("netsh", "advfirewall", "set", "allprofiles", "state", "off"))[0] == 0
        assert bench.platform.rulesets[-1] == "table inet host {\n}\n"

    run(scenario)


# ------------------------------------------------------------------------------------------------------ small programs


def test_shutdown(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        rc, _, err = await bench.program("shutdown.exe", "/a")
        assert rc == 1116 and "(1116)" in err
        assert (await bench.program("shutdown.exe", "/s", "/t", "60", "/c", "idle", "/f"))[0] == 0
        assert (await bench.program("shutdown.exe", "/r"))[0] == 1190
        assert (await bench.program("shutdown.exe", "/a"))[0] == 0
        assert (await bench.program("shutdown.exe", "-s", "-t", "0"))[0] == 0
        assert bench.platform.powered == []
        await asyncio.sleep(0.01)
        assert bench.platform.powered == ["shutdown"]
        assert (await bench.program("shutdown.exe", "/r", "/t", "0"))[0] == 1115

    run(scenario)


def test_net(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.program("net", "stop", "spooler"))[1] == (
            "The Print Spooler service is stopping.\nThe Print Spooler service was stopped successfully.\n\n"
        )
        rc, _, err = await bench.program("net", "stop", "spooler")
        assert rc == 2 and "is not started" in err and "NET HELPMSG 3521" in err
        assert (await bench.program("net", "start", "Print Spooler"))[0] == 0
        assert "NET HELPMSG 2182" in (await bench.program("net", "start", "spooler"))[2]
        assert "NET HELPMSG 2185" in (await bench.program("net", "start", "none"))[2]
        assert (await bench.program("net", "start", "RemoteAccess"))[2].startswith("System error 1058 has occurred.")
        assert "   Print Spooler\n" in (await bench.program("net", "start"))[1]
        assert "Administrator" in (await bench.program("net", "user"))[1]
        assert "Share name" in (await bench.program("net", "share"))[1]

    run(scenario)


def test_tasklist_getmac_powercfg_hostname(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        _, out, _ = await bench.program("tasklist", "/fo", "csv", "/nh", "/fi", "IMAGENAME eq spoolsv.exe")
        assert re.fullmatch(r'"spoolsv.exe","\d+","Services","0","8,192 K"\n', out)
        assert "Spooler" in (await bench.program("tasklist", "/svc"))[1]
        assert (await bench.program("tasklist", "/fi", "imagename eq 3dsmax.exe"))[1].startswith("INFO: No tasks")
        assert '"02-1A-2B-3C-4D-5E"' in (await bench.program("getmac", "/fo", "csv", "/nh"))[1]
        assert "Ethernet" in (await bench.program("getmac", "/v"))[1]
        assert "Physical Address: 02-1A-2B-3C-4D-5E" in (await bench.program("getmac", "/fo", "list"))[1]
        assert (await bench.program("hostname"))[1].strip() == bench.host.computer_name
        assert (await bench.program("powercfg", "/setactive", "SCHEME_MIN"))[0] == 0
        assert "(High performance)" in (await bench.program("powercfg", "/getactivescheme"))[1]
        assert (await bench.program("powercfg", "/change", "standby-timeout-ac", "0"))[0] == 0
        assert (await bench.program("powercfg", "/hibernate", "off"))[0] == 0
        assert (await bench.program("powercfg", "/setactive", "none"))[0] == 1

    run(scenario)


def test_cmd_writes_to_the_serial_port_only(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        bench.host.files.write_bytes("C:\\Windows\\Temp\\line", b"RENDERFARM-NODE {}\r\n")
        copy = ("cmd.exe", "/d", "/c", "copy", "/b")
        assert await bench.program(*copy, "line", "\\\\.\\COM1", cwd="C:\\Windows\\Temp") == (
            0,
            "        1 file(s) copied.\n",
            "",
        )
        assert bench.platform.console == b"RENDERFARM-NODE {}\r\n"
        rc, out, _ = await bench.program(*copy, "C:\\none", "\\\\.\\COM1")
        assert (rc, out) == (1, "The system cannot find the file specified.\n")

    run(scenario)


# -------------------------------------------------------------------------------------- msiexec, Backburner, EC2Launch


def test_msiexec(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        files = bench.host.files
        files.write_bytes("C:\\Windows\\Temp\\b.msi", json.dumps(PACKAGE).encode())
        install = ("msiexec.exe", "/i", "b.msi", "/qn", "/norestart", "/L*V", "C:\\Windows\\Temp\\log", "ADDLOCAL=ALL")
        assert await bench.program(*install, cwd="C:\\Windows\\Temp") == (0, "", "")
        assert files.is_file("C:\\Program Files (x86)\\Autodesk\\Backburner\\serversvc.exe")
        assert "install of {1" in files.read_bytes("C:\\Windows\\Temp\\log").decode("utf-16")
        assert (await bench.program("msiexec", "/x", CODE, "/qn"))[0] == 0
        assert (await bench.program("msiexec", f"/X{CODE}", "/quiet"))[0] == 1605
        assert (await bench.program("msiexec", "/i", "C:\\none.msi", "/qn"))[0] == 1619
        for content in (b"garbage", b'{"format": "other"}', json.dumps({**PACKAGE, "more": 1}).encode()):
            files.write_bytes("C:\\Windows\\Temp\\b.msi", content)
            assert (await bench.program("msiexec", "/i", "C:\\Windows\\Temp\\b.msi", "/qn"))[0] == 1620

    run(scenario)


def test_backburner_registers_its_services(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        folder = "C:\\Program Files (x86)\\Autodesk\\Backburner"
        bench.host.files.make_directory(folder)
        for name, service in (("serversvc.exe", "BACKBURNER_SRV_200"), ("managersvc.exe", "BACKBURNER_MGR_200")):
            bench.host.files.write_bytes(f"{folder}\\{name}", b"")
            program = f"{folder}\\{name}"
            assert (await bench.program(program, "-i"))[0] == 0
            registered = bench.host.services.get(service)
            assert (registered.start, registered.account) == ("auto", "NT AUTHORITY\\LocalService")
            assert registered.path == f'"{program}"'
            rc, _, err = await bench.program(program, "-i")
            assert rc == 1 and "already exists" in err
            assert (await bench.program(program, "-u"))[2].startswith("rehearsal: ")
            assert (await bench.program(program, "-r"))[0] == 0 and bench.host.services.find(service) is None

    run(scenario)


# -------------------------------------------------------------------------------------------------------------- python


def embed(bench: Bench, settings: str = "python312.zip\n.\n..\n#import site\n") -> str:
    files = bench.host.files
    files.make_directory("C:\\RenderFarm\\python")
    files.make_directory("C:\\RenderFarm\\tool")
    files.write_bytes("C:\\RenderFarm\\python\\python.exe", b"embeddable package 3.12.10")
    files.write_bytes("C:\\RenderFarm\\python\\python312._pth", settings.encode())
    files.write_bytes("C:\\RenderFarm\\tool\\__init__.py", b"")
    files.write_bytes(
        "C:\\RenderFarm\\tool\\__main__.py",
        b"import json, os, sys\nprint(json.dumps({'argv': sys.argv[1:], 'stdin': sys.stdin.read(), "
        b"'drive': os.environ['SystemDrive'], 'extra': os.environ.get('EXTRA'), 'name': os.environ['COMPUTERNAME'], "
        b"'site': 'site' in sys.modules, 'cwd': os.getcwd()}))\nsys.exit(3)\n",
    )
    return "C:\\RenderFarm\\python\\python.exe"


def test_python_runs_a_module_of_the_host(run: Run, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        python = embed(bench)
        await bench.host.serve_control(tmp_path / "s")
        outcome = await bench.host.run(
            [python, "-I", "-m", "tool", "a b", "C:\\x", 'q"'],
            cwd="C:\\Windows\\Temp",
            stdin="größe".encode(),
            environment={"EXTRA": "1"},
        )
        assert outcome.rc == 3, outcome.stderr
        said = json.loads(outcome.stdout)
        assert said["argv"] == ["a b", "C:\\x", 'q"'] and said["stdin"] == "größe"
        assert said["drive"] == str(bench.host.files.root) and said["name"] == bench.host.computer_name
        assert said["extra"] == "1" and not said["site"] and said["cwd"].endswith("/c/Windows/Temp")
        assert bench.platform.spawned[0][:4] == [sys.executable, "-I", "-S", "-c"]
        assert list(bench.host.files.real("C:\\RenderFarm").rglob("*.pyc")), "it keeps what it compiled, as on Windows"
        result = await bench.module("win_command", argv=[python, "-I", "-m", "tool"], stdin="x")
        assert result["rc"] == 3 and json.loads(result["stdout"])["stdin"] == "x"

    run(scenario)


def test_python_sees_only_what_its_path_file_lists(run: Run, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.host.serve_control(tmp_path / "s")
        python = embed(bench, "python312.zip\n.\n#import site\n")
        outcome = await bench.host.run([python, "-I", "-m", "tool"])
        rc, err = outcome.rc, outcome.stderr.decode()
        assert rc == 1 and "No module named tool" in err
        outcome = await bench.host.run([python, "-c", "import sys; print(sys.argv, 'ansible' in sys.path)", "a"])
        assert outcome.stdout.decode().strip() == "['-c', 'a'] False"
        bench.host.files.write_bytes("C:\\Windows\\Temp\\s.py", b"print(__name__)")
        outcome = await bench.host.run([python, "s.py"], cwd="C:\\Windows\\Temp")
        assert outcome.stdout.strip() == b"__main__"
        assert (await bench.program(python, "none.py"))[0] == 2
        assert (await bench.program(python, "--version"))[1] == "Python 3.12.10\n"
        for words in ((), ("-m",), ("-i",), ("-X", "dev", "-m", "tool")):
            rc, _, err = await bench.program(python, *words)
            assert rc == 1 and err.startswith("rehearsal: "), words
        bench.host.files.write_bytes("C:\\RenderFarm\\python\\python312._pth", b"import site\n")
        assert "'import site'" in (await bench.program(python, "-m", "tool"))[2]
        bench.host.files.delete("C:\\RenderFarm\\python\\python312._pth")
        assert "embeddable" in (await bench.program(python, "-m", "tool"))[2]

    run(scenario)


def test_path_files() -> None:
    folder = "C:\\RenderFarm\\python"
    assert search_path("python312.zip\n.\n..\n# import site\n", folder) == [
        f"{folder}\\python312.zip",
        folder,
        "C:\\RenderFarm",
    ]
    assert search_path("import site", folder) is None
