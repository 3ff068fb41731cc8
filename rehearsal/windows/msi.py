"""Windows Installer, for packages of the rehearsal's own format.

A package is a JSON document ``{"format": "rehearsal-msi", "product_name", "product_code", "version", "files":
{"C:\\…": "text" or "base64:…"}, "registry": [[path, name, type, data]], "services": [{name, display_name, path,
start_mode, username, dependencies, start}], "path_append": [folder]}``.  Anything else is no installation package.
"""

from __future__ import annotations

import base64
import json
import ntpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehearsal.windows import control
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.services import Service

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

FORMAT = "rehearsal-msi"
PROGRAM = "rehearsal-program"
"""Content of a file that real processes on the host can start; ``rehearsal.windows.programs`` acts for it."""
UNINSTALL_KEY = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"
PATH_KEY = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
_START_MODES = {"auto": "auto", "delayed": "delayed", "manual": "demand", "demand": "demand", "disabled": "disabled"}
_KEYS = frozenset(
    {"format", "product_name", "product_code", "version", "files", "registry", "services", "path_append", "publisher"}
)


@dataclass(frozen=True)
class Package:
    """What a package installs."""

    product_name: str
    product_code: str
    version: str
    files: dict[str, str]
    registry: list[list[Any]] = field(default_factory=list)
    services: list[dict[str, Any]] = field(default_factory=list)
    path_append: list[str] = field(default_factory=list)
    publisher: str = ""


def is_package(content: bytes) -> bool:
    """Whether a file's content is a package of this format."""
    try:
        document = json.loads(content)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def read(content: bytes) -> Package:
    """Read a package; WindowsError 1620 when it is none or has keys that are not known."""
    if not is_package(content):
        raise WindowsError(1620)
    document = json.loads(content)
    unknown = set(document) - _KEYS
    if unknown:
        raise WindowsError(1620, f"rehearsal: the package has unknown keys: {', '.join(sorted(unknown))}")
    document.pop("format")
    try:
        return Package(**document)
    except TypeError as error:
        raise WindowsError(1620, f"rehearsal: the package is not complete: {error}") from None


def _content(text: str) -> bytes:
    if text == PROGRAM:
        return control.script().encode()
    return base64.b64decode(text[len("base64:") :]) if text.startswith("base64:") else text.encode()


async def install(host: WindowsHost, package: Package) -> None:
    """Install a package; one that is installed is repaired (files, registry), its services are left alone.

    WindowsError 1603 when a service does not start; what was installed until then stays, nothing is rolled back.
    """
    for path, text in package.files.items():
        host.files.make_directory(ntpath.dirname(path))
        host.files.write_bytes(path, _content(text))
        if text == PROGRAM:
            host.files.real(path).chmod(0o755)
    for path, name, kind, data in package.registry:
        host.registry.set(path, name, kind, data)
    for entry in package.services:
        if host.services.find(entry["name"]) is None:
            host.services.create(_service(entry))
            if entry.get("start"):
                await _start(host, entry["name"])
    current = str(host.registry.data(PATH_KEY, "Path", r"C:\Windows\system32;C:\Windows"))
    known = [part.lower() for part in current.split(";")]
    added = [folder for folder in package.path_append if folder.lower() not in known]
    if added:
        host.registry.set(PATH_KEY, "Path", "REG_EXPAND_SZ", ";".join([current, *added]))
    key = f"{UNINSTALL_KEY}\\{package.product_code}"
    for name, data in (
        ("DisplayName", package.product_name),
        ("DisplayVersion", package.version),
        ("Publisher", package.publisher),
        ("UninstallString", f"MsiExec.exe /X{package.product_code}"),
    ):
        host.registry.set(key, name, "REG_SZ", data)
    host.products[package.product_code.upper()] = {
        "name": package.product_name,
        "version": package.version,
        "files": list(package.files),
        "registry": [[path, name] for path, name, _, _ in package.registry],
        "services": [entry["name"] for entry in package.services],
    }
    host.state.changed()
    host.log(f"installed {package.product_name} {package.version} {package.product_code}")


async def _start(host: WindowsHost, name: str) -> None:
    try:
        await host.services.start(name)
    except WindowsError as error:
        raise WindowsError(1603, f"Error 1920. Service '{name}' failed to start: {error}") from error


def _service(entry: dict[str, Any]) -> Service:
    mode = str(entry.get("start_mode", "manual"))
    if mode not in _START_MODES:
        raise WindowsError(1620, f"rehearsal: start mode {mode} of service {entry['name']} is not known")
    return Service(
        name=entry["name"],
        display_name=entry.get("display_name", entry["name"]),
        path=entry["path"],
        start=_START_MODES[mode],  # type: ignore[arg-type]
        account=entry.get("username", "LocalSystem"),
        dependencies=list(entry.get("dependencies", [])),
    )


async def uninstall(host: WindowsHost, product_code: str) -> None:
    """Remove a product: services, files that it brought, registry values; WindowsError 1605 when not installed."""
    product = host.products.get(product_code.upper())
    if product is None:
        raise WindowsError(1605)
    for name in product["services"]:
        if host.services.find(name) is not None:
            await host.services.delete(name)
    for path in product["files"]:
        if host.files.exists(path):
            host.files.delete(path, force=True)
        folder = ntpath.dirname(path)
        while host.files.is_directory(folder) and not host.files.names(folder) and len(folder) > 3:
            host.files.delete(folder)
            folder = ntpath.dirname(folder)
    for path, name in product["registry"]:
        host.registry.unset(path, name)
    host.registry.delete(f"{UNINSTALL_KEY}\\{product_code}")
    del host.products[product_code.upper()]
    host.state.changed()
    host.log(f"removed {product['name']}")
