"""The disks that machines start from: a stock Windows Server of EC2 and a studio's Windows workstation."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from rehearsal.windows import certificates, control, firewall, network, programs
from rehearsal.windows.accounts import ADMINISTRATORS, Accounts
from rehearsal.windows.registry import Registry
from rehearsal.windows.services import Service
from rehearsal.windows.state import State

_FOLDERS = (
    "Program Files/Common Files",
    "Program Files (x86)",
    "ProgramData",
    "Users/Public",
    "Windows/System32/config/systemprofile/AppData/Local",
    "Windows/System32/drivers/etc",
    "Windows/ServiceProfiles/LocalService/AppData/Local",
    "Windows/ServiceProfiles/NetworkService/AppData/Local",
    "Windows/Temp",
)
_HOSTS = (
    "# Copyright (c) 1993-2009 Microsoft Corp.\r\n#\r\n#\t127.0.0.1       localhost\r\n#\t::1             localhost\r\n"
)
_SVCHOST = r"C:\Windows\System32\svchost.exe -k"
# Services that a stock Windows has and that something here may look at.
_SERVICES = (
    ("Dnscache", "DNS Client", f"{_SVCHOST} NetworkService -p", "auto", "NT AUTHORITY\\NetworkService"),
    ("LanmanServer", "Server", f"{_SVCHOST} netsvcs -p", "auto", "LocalSystem"),
    ("LanmanWorkstation", "Workstation", f"{_SVCHOST} NetworkService -p", "auto", "NT AUTHORITY\\NetworkService"),
    ("MpsSvc", "Windows Defender Firewall", f"{_SVCHOST} LocalServiceNoNetworkFirewall -p", "auto",
     "NT AUTHORITY\\LocalService"),
    ("RemoteAccess", "Routing and Remote Access", f"{_SVCHOST} netsvcs", "disabled", "LocalSystem"),
    ("Schedule", "Task Scheduler", f"{_SVCHOST} netsvcs -p", "auto", "LocalSystem"),
    ("Spooler", "Print Spooler", r"C:\Windows\System32\spoolsv.exe", "auto", "LocalSystem"),
    ("W32Time", "Windows Time", f"{_SVCHOST} LocalService", "demand", "NT AUTHORITY\\LocalService"),
    ("WinRM", "Windows Remote Management (WS-Management)", f"{_SVCHOST} NetworkService -p", "auto",
     "NT AUTHORITY\\NetworkService"),
)  # fmt: skip
# Rules of Windows itself: file and printer sharing answers pings, WinRM over HTTP from the own subnet only.
_RULES = (
    firewall.Rule(
        name="File and Printer Sharing (Echo Request - ICMPv4-In)",
        id="FPS-ICMP4-ERQ-In",
        group="File and Printer Sharing",
        protocol=1,
        icmp="8:*",
        enabled=False,
    ),
    firewall.Rule(
        name="Windows Remote Management (HTTP-In)",
        id="WINRM-HTTP-In-TCP",
        group="Windows Remote Management",
        protocol=6,
        local_ports="5985",
        remote_addresses="LocalSubnet",
    ),
    firewall.Rule(
        name="File and Printer Sharing (SMB-In)",
        id="FPS-SMB-In-TCP",
        group="File and Printer Sharing",
        protocol=6,
        local_ports="445",
        remote_addresses="LocalSubnet",
        enabled=False,
    ),
)


def _drive(root: Path, executables: Iterable[str], python: str) -> None:
    drive = root / "c"
    for folder in _FOLDERS:
        (drive / folder).mkdir(parents=True, exist_ok=True)
    (drive / "Windows/System32/drivers/etc/hosts").write_bytes(_HOSTS.encode())
    standin = control.script(python)
    for name in executables:
        path = drive / "Windows" / "System32" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(standin)
        path.chmod(0o755)


def _registry(version: str, product: str) -> dict[str, dict[str, Any]]:
    keys: dict[str, dict[str, Any]] = {}
    registry = Registry(keys, lambda: None)
    current = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
    registry.set(current, "ProductName", "REG_SZ", product)
    registry.set(current, "CurrentBuild", "REG_SZ", version.split(".")[2])
    environment = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
    folders = (r"%SystemRoot%\system32", "%SystemRoot%", r"%SystemRoot%\System32\Wbem")
    path = ";".join([*folders, r"%SYSTEMROOT%\System32\WindowsPowerShell\v1.0" + "\\"])
    registry.set(environment, "Path", "REG_EXPAND_SZ", path)
    registry.set(network.PARAMETERS, "IPEnableRouter", "REG_DWORD", 0)
    registry.create(network.PERSISTENT_ROUTES)
    for key in (
        r"HKCU\Software",
        r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall",
        r"HKLM\SOFTWARE\WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall",
        r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System",
    ):
        registry.create(key)
    return keys


def _services() -> dict[str, Any]:
    services = [
        Service(name, display, path, start=start, account=account)  # type: ignore[arg-type]
        for name, display, path, start, account in _SERVICES
    ]
    return {service.name: asdict(service) for service in services}


def stock_server(root: Path, *, python: str = sys.executable) -> None:
    """Make the disk of Amazon's Windows Server 2022 image in ``root``: sysprepped, with EC2Launch v2.

    Its name and machine identifier come at the first boot; Administrator has no password until EC2Launch sets one.
    WinRM runs with its HTTP listener, which the firewall opens to the local subnet only.
    """
    _drive(root, programs.IN_SYSTEM32, python)
    launch = root / "c" / "Program Files" / "Amazon" / "EC2Launch" / "EC2Launch.exe"
    launch.parent.mkdir(parents=True)
    launch.write_text("EC2Launch v2, run by rehearsal.windows.programs.ec2launch\n")
    (root / "c" / "ProgramData" / "Amazon" / "EC2Launch" / "config").mkdir(parents=True)
    accounts: dict[str, Any] = {}
    users = Accounts(accounts, lambda: "EC2AMAZ", lambda: None)
    users.add_user(
        "Administrator",
        rid=500,
        description="Built-in account for administering the computer/domain",
        groups=[ADMINISTRATORS],
        password_never_expires=False,
    )
    users.add_user("Guest", rid=501, disabled=True, groups=["S-1-5-32-546"])
    State.create(
        root / "host.json",
        {
            "edition": "server",
            "computer_name": "EC2AMAZ",
            "generalized": True,
            "accounts": accounts,
            "registry": _registry("10.0.20348", "Windows Server 2022 Datacenter"),
            "services": _services(),
            "firewall": {"enabled": True, "rules": [_rule(rule) for rule in _RULES]},
            "winrm": {"listeners": [_http_listener()], "basic": False},
        },
    )


def stock_workstation(root: Path, password: str, address: IPv4Address | str, *, python: str = sys.executable) -> None:
    """Make the disk of a studio's Windows 11 workstation in ``root``, prepared for Ansible.

    The user ``artist`` (an administrator) has ``password``; WinRM listens on 5986 with a certificate for ``address``
    that is also written to ``root/winrm.pem``.
    """
    address = IPv4Address(address)
    _drive(root, programs.IN_SYSTEM32, python)
    accounts: dict[str, Any] = {}
    users = Accounts(accounts, lambda: "WORKSTATION", lambda: None)
    users.add_user("Administrator", rid=500, disabled=True, groups=[ADMINISTRATORS])
    users.add_user("artist", password, groups=[ADMINISTRATORS, "S-1-5-32-545"], password_never_expires=True)
    stores: dict[str, dict[str, str]] = {}
    request = certificates.Request(
        subject=f"CN={address}",
        text_extensions=(f"2.5.29.17={{text}}IPAddress={address}", "2.5.29.37={text}1.3.6.1.5.5.7.3.1"),
    )
    stored = certificates.Certificates(stores, lambda: None).add(
        certificates.MY, *certificates.self_signed(request, datetime.now(UTC))
    )
    (root / "winrm.pem").write_bytes(stored.pem())
    listener = {**_http_listener(), "Transport": "HTTPS", "Port": 5986, "CertificateThumbprint": stored.thumbprint}
    rules = [*_RULES, firewall.Rule(name="WinRM over HTTPS", id="winrm-https", protocol=6, local_ports="5986")]
    State.create(
        root / "host.json",
        {
            "edition": "workstation",
            "computer_name": "WORKSTATION",
            "accounts": accounts,
            "registry": _registry("10.0.26100", "Windows 11 Pro"),
            "services": _services(),
            "certificates": stores,
            "firewall": {"enabled": True, "rules": [_rule(rule) for rule in rules]},
            "winrm": {"listeners": [listener], "basic": False},
        },
    )


def _rule(rule: firewall.Rule) -> dict[str, Any]:
    rule.check()
    return asdict(rule)


def _http_listener() -> dict[str, Any]:
    return {
        "Address": "*",
        "Transport": "HTTP",
        "Port": 5985,
        "Hostname": "",
        "Enabled": True,
        "CertificateThumbprint": "",
    }
