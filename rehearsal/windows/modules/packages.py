"""win_package, win_unzip."""

from __future__ import annotations

import io
import ntpath
import zipfile
from dataclasses import dataclass

from rehearsal.windows import commandline, http, msi
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.modules.base import Call
from rehearsal.windows.modules.files import checksum as file_checksum
from rehearsal.windows.modules.web import fetch

MSIEXEC = r"C:\Windows\System32\msiexec.exe"
_UNINSTALL = (r"HKLM\SOFTWARE\Microsoft", r"HKLM\SOFTWARE\Wow6432Node\Microsoft", r"HKCU\SOFTWARE\Microsoft")


@dataclass
class _Status:
    provider: str
    id: str
    installed: bool


def _status(call: Call, path: str | None) -> _Status:
    """Whether the product is installed, as the providers of the module find out."""
    host, product = call.host, call.text("product_id")
    provider = call.text("provider")
    if provider not in ("auto", "msi", "registry"):
        raise call.fail(f"rehearsal: the provider {provider} is not modelled")
    if path is not None and host.files.is_file(path):
        content = host.files.read_bytes(path)
        if provider == "msi" or (provider == "auto" and ntpath.splitext(path)[1].lower() == ".msi"):
            try:
                code = msi.read(content).product_code
            except WindowsError as error:
                raise call.fail(
                    f'Unhandled exception while executing module: Exception calling "OpenPackage" with "2" '
                    f'argument(s): "{error}"'
                ) from error
            status = _Status("msi", code, code.upper() in host.products)
        else:
            status = _Status("registry", product, _in_registry(call, product))
    elif product.upper() in host.products:
        status = _Status("msi", product, True)
    else:
        status = _Status("registry", product, _in_registry(call, product))
    if call.get("creates_path"):
        creates = call.path("creates_path")
        status.installed = host.files.exists(creates)
        if call.get("creates_version") and status.installed:
            raise call.fail("rehearsal: creates_version is not modelled: files here have no version resource")
    if call.get("creates_service"):
        status.installed = host.services.find(call.text("creates_service")) is not None
    return status


def _in_registry(call: Call, product: str) -> bool:
    if not product:
        return False
    keys = [f"{root}\\Windows\\CurrentVersion\\Uninstall\\{product}" for root in _UNINSTALL]
    return any(call.host.registry.exists(key) for key in keys)


async def win_package(call: Call) -> None:
    """Install or remove a package. Only Windows Installer packages of the rehearsal's format have a recipe."""
    host = call.host
    path: str | None = call.text("path") or None
    present = call.get("state") == "present"
    call.result["reboot_required"] = False
    url = path if path is not None and path.lower().startswith("http") else None
    arguments = call.get("arguments")
    extra = commandline.split("x " + arguments)[1:] if isinstance(arguments, str) else [str(a) for a in arguments or []]
    temporary: str | None = None
    try:
        status = _status(call, None) if url and call.get("product_id") and present else None
        if url is not None:
            path = None
            if not call.get("product_id") or (status is not None and not status.installed):
                path = temporary = await _fetch_package(call, url)
        elif path is not None and not host.files.exists(path) and not call.check_mode:
            raise call.fail(f"the file at the path '{path}' cannot be reached")
        if status is None or not status.installed:
            status = _status(call, path)
        changed = present != status.installed
        call.result["rc"] = 0
        if changed and not call.check_mode:
            if url is not None and path is None and status.provider != "msi":
                path = temporary = await _fetch_package(call, url)
            await _change(call, status, path, extra)
        if not present and call.get("product_id") is None and url is not None:
            raise call.fail(
                "Unable to find Product ID from the URL path. Please specify product_id when using state=absent"
            )
        call.result["changed"] = changed
    finally:
        if temporary is not None and host.files.exists(temporary):
            host.files.delete(temporary)


async def _fetch_package(call: Call, url: str) -> str:
    folder = call.host.files.make_directory(call.host.environment(call.user)["TEMP"])
    try:
        response = await fetch(call, url)
    except http.HttpError as error:
        raise call.fail(f"Unhandled exception while executing module: {error}") from error
    path = ntpath.join(folder, url.partition("?")[0].rpartition("/")[2])
    call.host.files.write_bytes(path, response.body)
    return path


async def _change(call: Call, status: _Status, path: str | None, extra: list[str]) -> None:
    host, present = call.host, call.get("state") == "present"
    if present and path is not None:
        digest = file_checksum(host.files, path, call.text("checksum_algorithm")).upper()
        call.result["checksum"] = digest
        wanted = call.text("checksum")
        if wanted and wanted.upper() != digest:
            raise call.fail(f"The checksum for {path} did not match '{wanted}', it was '{digest}'")
        if call.get("verify_signature"):
            raise call.fail("rehearsal: verify_signature is not modelled: packages here carry no signature")
    if status.provider != "msi":
        raise call.fail(
            f"rehearsal: no stand-in for the installer {path or status.id}: only Windows Installer packages of the "
            "format rehearsal-msi can be installed; serve such a package for this product"
        )
    # The module has msiexec write a log in any case; without log_path it is deleted after the run.
    log = call.path("log_path") or ntpath.join(
        host.files.make_directory(host.environment(call.user)["TEMP"]), "msiexec.log"
    )
    action = ["/i", str(path)] if present else ["/x", status.id]
    words = [MSIEXEC, *action, "/L*V", log, "/qn", "/norestart"]
    outcome = await host.run([*words, *extra], user=call.user, cwd=call.path("chdir") or "C:\\Windows\\System32")
    text = host.files.read_bytes(log).decode("utf-16") if host.files.is_file(log) else ""
    if not call.get("log_path") and host.files.exists(log):
        host.files.delete(log)
    call.result["rc"] = outcome.rc
    if outcome.rc not in call.get("expected_return_code"):
        line = commandline.join([*words, *extra])
        raise call.fail(
            f"unexpected rc from '{line}': see rc, stdout, and stderr for more details",
            stdout=outcome.stdout.decode(errors="replace"),
            stderr=outcome.stderr.decode(errors="replace"),
            log=text,
        )
    call.result["reboot_required"] = outcome.rc == 3010


def win_unzip(call: Call) -> None:
    """Extract a zip file (every run changes, as the real module's does, unless ``creates`` exists)."""
    files, source, dest = call.host.files, call.path("src"), call.path("dest")
    call.result.update(dest=dest, removed=False, src=source)
    if call.get("creates") and files.exists(call.path("creates")):
        call.result.update(skipped=True, msg=f"The file or directory '{call.path('creates')}' already exists.")
        return
    if not files.exists(source):
        raise call.fail(f"File '{source}' does not exist.")
    if ntpath.splitext(source)[1].lower() != ".zip" or call.get("recurse") or call.get("password"):
        raise call.fail("rehearsal: only plain zip files are modelled, without recurse and password")
    try:
        if not files.is_directory(dest) and not call.check_mode:
            files.make_directory(dest)
    except WindowsError as error:
        raise call.fail(f"Error creating '{dest}' directory! Msg: {error}") from error
    root = ntpath.normpath(dest) + "\\"
    try:
        archive = zipfile.ZipFile(io.BytesIO(files.read_bytes(source)))
    except zipfile.BadZipFile:
        raise call.fail(
            f"Error unzipping '{source}' to '{dest}'!. Method: System.IO.Compression.ZipFile, Exception: Exception "
            'calling "Open" with "3" argument(s): "End of Central Directory record could not be found."'
        ) from None
    with archive:
        for entry in archive.infolist():
            path = ntpath.normpath(ntpath.join(dest, entry.filename.replace("/", "\\")))
            if not (path + "\\").startswith(root):
                raise call.fail(
                    f"Error unzipping '{source}' to '{dest}'! Filename contains relative paths which would extract "
                    f"outside the destination: {path}"
                )
            call.changed()
            if call.check_mode:
                continue
            files.make_directory(path if entry.is_dir() else ntpath.dirname(path))
            if not entry.is_dir():
                files.write_bytes(path, archive.read(entry))
    if call.get("delete_archive"):
        if not call.check_mode:
            files.delete(source, force=True)
        call.result["removed"] = True
