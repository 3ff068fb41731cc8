"""win_get_url, and the download that win_package shares with it."""

from __future__ import annotations

import base64
import hashlib
import ntpath
import re
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

from rehearsal.windows import http
from rehearsal.windows.modules.base import Call
from rehearsal.windows.modules.files import checksum as file_checksum

_NOT_MODELLED = (
    "client_cert", "client_cert_password", "proxy_url", "proxy_username", "proxy_password", "use_default_credential",
    "proxy_use_default_credential",
)  # fmt: skip


async def fetch(call: Call, url: str, method: str = "GET") -> http.Response:
    """Request a URL with the options that all modules with web requests share; HttpError when it fails."""
    for option in _NOT_MODELLED:
        if call.get(option):
            raise call.fail(f"rehearsal: the option {option} is not modelled")
    headers = {str(name): str(value) for name, value in (call.get("headers") or {}).items()}
    headers.setdefault("User-Agent", call.text("http_agent") or "ansible-httpget")
    if call.get("url_username"):
        token = base64.b64encode(f"{call.text('url_username')}:{call.text('url_password')}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    if (call.text("url_method") or method).upper() not in ("GET", "HEAD", method):
        raise call.fail(f"rehearsal: the method {call.text('url_method')} is not modelled")
    start = call.host.clock()
    try:
        response = await http.request(
            call.host,
            method,
            url,
            headers=headers,
            timeout=float(call.get("url_timeout") or 30),
            validate=call.get("validate_certs") is not False,
        )
    except http.HttpError as error:
        if error.status is not None:
            call.result["status_code"] = error.status
        raise
    finally:
        call.result["elapsed"] = call.host.clock() - start
    call.result.update(msg=response.reason or "OK", status_code=response.status)
    return response


async def win_get_url(call: Call) -> None:
    """Download a file, compare it with what is there, verify its checksum."""
    files, url = call.host.files, call.text("url")
    dest, algorithm = call.path("dest"), call.text("checksum_algorithm").strip().lower()
    call.result.update(elapsed=0, url=url)
    parts = urlsplit(url)
    if files.is_directory(dest):
        dest = ntpath.join(dest, ntpath.basename(unquote(parts.path)) or parts.hostname or "")
    elif not ntpath.basename(dest):
        raise call.fail(
            f"The destination path '{dest}' does not exist, or is not visible to the current user. Ensure download "
            "destination folder exists (perhaps using win_file state=directory) before win_get_url runs."
        )
    call.result["dest"] = dest
    wanted = call.text("checksum").strip().lower()
    if call.get("checksum_url"):
        wanted = await _remote_checksum(call, call.text("checksum_url").strip(), url)
    present = file_checksum(files, dest, algorithm) if files.is_file(dest) else None
    force = bool(call.get("force")) or (present is not None and wanted != "" and present != wanted)
    if present is not None and present == wanted and not force:
        pass
    elif force or present is None or await _newer(call, url, dest):
        await _download(call, url, dest, wanted, present, algorithm)
    if "checksum_dest" not in call.result and files.is_file(dest):
        call.result.update(checksum_dest=file_checksum(files, dest, algorithm), size=files.entry(dest).size)


async def _remote_checksum(call: Call, checksum_url: str, url: str) -> str:
    if urlsplit(checksum_url).scheme not in ("file", "ftp", "http", "https"):
        raise call.fail(f"Unsupported 'checksum_url' value for '{call.result['dest']}': '{checksum_url}'")
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    try:
        text = (await fetch(call, checksum_url)).body.decode("utf-8", errors="replace")
    except http.HttpError as error:
        raise call.fail(f"Error when getting the remote checksum from '{checksum_url}'. {error}") from error
    pattern = re.compile(rf"\s+\.?/?\\?{re.escape(name)}\s*$")
    line = next((line for line in text.splitlines() if pattern.search(line)), None)
    if line is None:
        raise call.fail(f"Checksum record not found for file name '{name}' in file from url: '{checksum_url}'")
    return re.sub(r"\W+", "", line.split(" ", 1)[0]).lower()


async def _newer(call: Call, url: str, dest: str) -> bool:
    try:
        response = await fetch(call, url, "HEAD")
    except http.HttpError as error:
        raise call.fail(f"Error when requesting 'Last-Modified' date from '{url}'. {error}") from error
    stamp = response.headers.get("last-modified")
    if stamp is None:  # .NET takes the present time when the server does not tell
        return True
    return parsedate_to_datetime(stamp).timestamp() > call.host.files.entry(dest).written


async def _download(call: Call, url: str, dest: str, wanted: str, present: str | None, algorithm: str) -> None:
    files, parent = call.host.files, ntpath.dirname(dest)
    if not files.is_directory(parent):
        raise call.fail(
            f"The path '{parent}' does not exist for destination '{dest}', or is not visible to the current user. "
            "Ensure download destination folder exists (perhaps using win_file state=directory) before win_get_url "
            "runs."
        )
    try:
        response = await fetch(call, url)
    except http.HttpError as error:
        raise call.fail(f"Error downloading '{url}' to '{dest}': {error}") from error
    digest = hashlib.new(algorithm, response.body, usedforsecurity=False).hexdigest()
    call.result["checksum_src"] = digest
    if wanted and wanted != digest:
        raise call.fail(f"The checksum for {url} did not match '{wanted}', it was '{digest}'")
    if present == digest:
        return
    call.changed()
    if not call.check_mode:
        files.write_bytes(dest, response.body)
