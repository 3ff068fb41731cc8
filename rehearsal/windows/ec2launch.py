"""EC2Launch v2 at boot: the first password, user data, "Windows is Ready to use".

Reference: Amazon EC2 User Guide, "EC2Launch v2 overview" (order of the stages), "Run commands when you launch an EC2
instance with user data input" (``<powershell>``, ``<persist>``), "EC2Launch v2 settings" (``.run-once``, reset).
"""

from __future__ import annotations

import re
import secrets
import string
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rehearsal.windows import http, powershell

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

PROGRAM = r"C:\Program Files\Amazon\EC2Launch\EC2Launch.exe"
FOLDER = r"C:\ProgramData\Amazon\EC2Launch"
RUN_ONCE = FOLDER + r"\state\.run-once"
LOG = FOLDER + r"\log\agent.log"
METADATA = "http://169.254.169.254/latest"
READY = "Windows is Ready to use"
_POWERSHELL = re.compile(r"<powershell>(.*?)</powershell>", re.DOTALL)
_PERSIST = re.compile(r"<persist>\s*true\s*</persist>")


def installed(host: WindowsHost) -> bool:
    """Whether the image has EC2Launch."""
    return host.files.is_file(PROGRAM)


def reset(host: WindowsHost, *, clean: bool) -> None:
    """Forget what ran once; ``clean`` also removes the logs."""
    if host.files.exists(RUN_ONCE):
        host.files.delete(RUN_ONCE)
    if clean and host.files.exists(LOG):
        host.files.delete(LOG)
    host.log("EC2Launch: reset")


def _report(host: WindowsHost, text: str, level: str = "Info") -> None:
    """A line in EC2Launch's own log."""
    stamp = datetime.fromtimestamp(host.clock(), UTC).strftime("%Y-%m-%d %H:%M:%S")
    host.files.make_directory(FOLDER + r"\log")
    host.files.append_bytes(LOG, f"{stamp} {level}: {text}\r\n".encode())


def _console(host: WindowsHost, text: str) -> None:
    """A line on the serial console, with the time in front as EC2Launch writes it."""
    stamp = datetime.fromtimestamp(host.clock(), UTC).strftime("%Y/%m/%d %H:%M:%SZ")
    host.platform.serial(f"{stamp}: {text}\r\n".encode())


def new_password() -> str:
    """A password as EC2Launch makes it: 32 characters of all four kinds."""
    kinds = (string.ascii_uppercase, string.ascii_lowercase, string.digits, "!@#$%^&*()-=.?;")
    characters = [secrets.choice(kind) for kind in kinds]
    characters += [secrets.choice("".join(kinds)) for _ in range(28)]
    secrets.SystemRandom().shuffle(characters)
    return "".join(characters)


async def user_data(host: WindowsHost) -> str:
    """The instance's user data through IMDSv2, "" when there is none; HttpError when the service does not answer."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = await http.request(host, "PUT", f"{METADATA}/api/token", headers=ttl)
    headers = {"X-aws-ec2-metadata-token": token.body.decode()}
    try:
        answer = await http.request(host, "GET", f"{METADATA}/user-data", headers=headers)
    except http.HttpError as error:
        if error.status == 404:
            return ""
        raise
    return answer.body.decode("utf-8", errors="replace")


async def run(host: WindowsHost) -> None:
    """Do what EC2Launch does at this boot."""
    first = not host.files.exists(RUN_ONCE)
    if first and host.platform.key_name is not None:
        password = new_password()
        administrator = host.accounts.user("Administrator") or host.accounts.add_user("Administrator", rid=500)
        administrator.password = password
        administrator.disabled = False
        host.accounts.save()
        host.platform.set_password(password)
        _report(host, "Administrator password was set and encrypted with the key pair of the instance")
    _console(host, READY)
    try:
        text = await user_data(host)
    except http.HttpError as error:
        _report(host, f"user data could not be read: {error}", "Error")
        _console(host, f"EC2Launch: user data could not be read: {error}")
        return
    await _run_user_data(host, text, first=first)
    if first:
        host.files.make_directory(FOLDER + r"\state")
        host.files.write_bytes(RUN_ONCE, b"")


async def _run_user_data(host: WindowsHost, text: str, *, first: bool) -> None:
    if not text.strip():
        _report(host, "there is no user data")
        return
    if re.match(r"\s*(---\s*)?version:", text) or "<script>" in text:
        _report(host, "rehearsal: user data in YAML and <script> are not modelled; use <powershell>", "Error")
        _console(host, "EC2Launch: rehearsal: user data in YAML and <script> are not modelled; use <powershell>")
        return
    scripts = _POWERSHELL.findall(text)
    if not scripts:
        _report(host, "user data has no <powershell>")
        return
    if not first and not _PERSIST.search(text):
        _report(host, "user data ran at the first boot and has no <persist>true</persist>: not run")
        return
    for script in scripts:
        outcome = await powershell.run(host, script, "SYSTEM")
        if outcome.rc:
            reason = outcome.stderr.decode(errors="replace").strip()
            _report(host, f"user data script failed with exit code {outcome.rc}: {reason}", "Error")
            _console(host, f"EC2Launch: user data script failed with exit code {outcome.rc}: {reason}")
        else:
            _report(host, "user data script completed")
