r"""What the rehearsal's download server offers in place of the real installers.

CPython's embeddable package is a zip with the files that count (python.exe is a marker: the host runs the interpreter
of the rehearsal).  Installers are documents of the form that the host's Windows Installer reads
(``rehearsal/windows/msi.py``).  Product names, file names and folders are those of the real products; product codes
are ours.  The content depends on nothing but this file, so its checksums are the same everywhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

PYTHON_VERSION = "3.12.10"
PYTHON_PACKAGE = f"python-{PYTHON_VERSION}-embed-amd64.zip"
BACKBURNER_PACKAGE = "Backburner.msi"
OPENVPN_PACKAGE = "OpenVPN-2.6.22-I001-amd64.msi"
MAX_PACKAGE = "3dsMax-2026-deployment.msi"

PYTHON_PATHS = "python312.zip\r\n.\r\n\r\n# Uncomment to run site.main() automatically\r\n#import site\r\n"
"""``python312._pth`` as it is in the real package: nothing beside it and the library is importable."""

SettingsEncoding = Literal["utf-8", "utf-16"]

_BACKBURNER = r"C:\Program Files (x86)\Autodesk\Backburner"
_OPENVPN = r"C:\Program Files\OpenVPN"
_MAX = r"C:\Program Files\Autodesk\3ds Max 2026"
_OPENVPN_FEATURES = "OpenVPN,OpenVPN.Service,Drivers,Drivers.TAPWindows6,Drivers.OvpnDco"


def write_packages(folder: Path, base_url: str, *, settings_encoding: SettingsEncoding = "utf-8") -> dict[str, Any]:
    """Write all packages into ``folder``; gives the value of the setting ``farm_installers`` for them.

    ``base_url`` is where ``folder`` is served; ``settings_encoding`` is what the installed Backburner writes its
    backburner.xml in (its real encoding is not documented). OSError passes through.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def offer(name: str, content: bytes, **settings: str) -> dict[str, str]:
        (folder / name).write_bytes(content)
        url = f"{base_url.rstrip('/')}/{name}"
        return {"url": url, "sha256": hashlib.sha256(content).hexdigest(), **settings}

    def installer(name: str, package: Mapping[str, Any], **settings: str) -> dict[str, str]:
        return offer(name, _document(package), product_id=str(package["product_code"]), **settings)

    return {
        "python": offer(PYTHON_PACKAGE, python_package()),
        "backburner": installer(BACKBURNER_PACKAGE, backburner_package(settings_encoding)),
        "openvpn": installer(OPENVPN_PACKAGE, openvpn_package(), arguments=f"ADDLOCAL={_OPENVPN_FEATURES}"),
        "renderers": [{"name": "3ds Max 2026", **installer(MAX_PACKAGE, max_package())}],
    }


def python_package() -> bytes:
    """The embeddable package (reference: Python documentation, "The embeddable package")."""
    library = io.BytesIO()
    with zipfile.ZipFile(library, "w"):
        pass
    files: dict[str, str | bytes] = {
        "python.exe": _program("python.exe", PYTHON_VERSION),
        "pythonw.exe": _program("pythonw.exe", PYTHON_VERSION),
        "python3.dll": _program("python3.dll", PYTHON_VERSION),
        "python312.dll": _program("python312.dll", PYTHON_VERSION),
        "python312._pth": PYTHON_PATHS,
        "python312.zip": library.getvalue(),
        "LICENSE.txt": "A stand-in of the rehearsal.\r\n",
    }
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return package.getvalue()


def backburner_package(settings_encoding: SettingsEncoding = "utf-8") -> dict[str, Any]:
    """Autodesk Backburner: programs, nrapi.conf, its folder on PATH; the installer registers no service."""
    programs = ("manager.exe", "server.exe", "monitor.exe", "managersvc.exe", "serversvc.exe")
    plug_path = _BACKBURNER.replace("\\", "/") + "/"
    return {
        "product_name": "Autodesk Backburner 2019.0",
        "product_code": "{B0A5C1D2-7E19-4B6A-9C3D-2019000B0001}",
        "version": "2019.0.0.0",
        "publisher": "Autodesk",
        "files": {
            **{f"{_BACKBURNER}\\{name}": _program(name, "2019.0.0") for name in programs},
            f"{_BACKBURNER}\\cmdjob.exe": "rehearsal-program",
            f"{_BACKBURNER}\\nrapi.conf": f"PlugPath={plug_path}\r\nSettingsEncoding={settings_encoding}\r\n",
            f"{_BACKBURNER}\\nrres.dat": "A stand-in of the rehearsal.\r\n",
        },
        "path_append": [_BACKBURNER],
    }


def openvpn_package() -> dict[str, Any]:
    """OpenVPN 2.6 as its MSI leaves a machine that had none: registry, services, folders (OpenVPN/openvpn-build).

    Folders end with a backslash there (Windows Installer, "Using a Directory Property in a Path").
    """
    values: Sequence[tuple[str, str]] = (
        ("", f"{_OPENVPN}\\"),
        ("exe_path", f"{_OPENVPN}\\bin\\openvpn.exe"),
        ("config_dir", f"{_OPENVPN}\\config\\"),
        ("config_ext", "ovpn"),
        ("autostart_config_dir", f"{_OPENVPN}\\config-auto\\"),
        ("log_dir", f"{_OPENVPN}\\log\\"),
        ("log_append", "0"),
        ("priority", "NORMAL_PRIORITY_CLASS"),
        ("ovpn_admin_group", "OpenVPN Administrators"),
    )
    programs = ("openvpn.exe", "openvpnserv.exe", "openvpnserv2.exe", "tapctl.exe")
    return {
        "product_name": "OpenVPN 2.6.22-I001 amd64",
        "product_code": "{0BE4F1A7-2C5D-4E86-8F31-260220010001}",
        "version": "2.6.2201",
        "publisher": "OpenVPN, Inc.",
        "files": {
            **{f"{_OPENVPN}\\bin\\{name}": _program(name, "2.6.22") for name in programs},
            **{
                f"{_OPENVPN}\\{name}\\README.txt": "A stand-in of the rehearsal.\r\n"
                for name in ("config", "config-auto", "log")
            },
        },
        "registry": [[r"HKLM\SOFTWARE\OpenVPN", name, "REG_SZ", data] for name, data in values],
        "services": [
            {
                "name": "OpenVPNServiceInteractive",
                "display_name": "OpenVPN Interactive Service",
                "path": f'"{_OPENVPN}\\bin\\openvpnserv.exe"',
                "start_mode": "auto",
                "username": "LocalSystem",
                "start": True,
            },
            {
                "name": "OpenVPNService",
                "display_name": "OpenVPNService",
                "path": f'"{_OPENVPN}\\bin\\openvpnserv2.exe"',
                "start_mode": "auto",
                "username": "LocalSystem",
                "dependencies": ["OpenVPNServiceInteractive"],
                "start": True,
            },
        ],
        "path_append": [f"{_OPENVPN}\\bin"],
    }


def max_package() -> dict[str, Any]:
    """A deployment of 3ds Max 2026: the programs of the process tree that renders."""
    programs = ("3dsmax.exe", "3dsmaxcmd.exe", "maxadapter.adp.exe")
    return {
        "product_name": "Autodesk 3ds Max 2026",
        "product_code": "{52B37B0C-D828-4A1E-80E1-202600000409}",
        "version": "28.0.0.0",
        "publisher": "Autodesk",
        "files": {f"{_MAX}\\{name}": _program(name, "28.0.0") for name in programs},
        "registry": [[r"HKLM\SOFTWARE\Autodesk\3dsMax\28.0", "Installdir", "REG_SZ", f"{_MAX}\\"]],
    }


def _program(name: str, version: str) -> str:
    """The content of an executable: no program, only a mark that says what it stands for."""
    return f"rehearsal stand-in for {name} {version}\r\n"


def _document(package: Mapping[str, Any]) -> bytes:
    return json.dumps({"format": "rehearsal-msi", **package}, indent=1).encode() + b"\n"
