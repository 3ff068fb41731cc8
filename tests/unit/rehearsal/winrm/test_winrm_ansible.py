"""The real ``ansible`` command against the server: HTTPS, NTLM, the host's own certificate pinned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rehearsal.interfaces import Reply, Request
from rehearsal.winrm import specs

ANSIBLE = Path(sys.executable).with_name("ansible")
pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="ansible is not in this virtualenv")


async def windows(request: Request) -> Reply:
    """Answer win_ping, with the arguments checked by the script in the payload."""
    try:
        checked = specs.check(request.module, request.arguments, script=request.script)
    except specs.ModuleArgumentError as error:
        return Reply(1, json.dumps({"failed": True, "changed": False, "msg": str(error)}).encode())
    return Reply(0, json.dumps({"changed": False, "ping": checked.arguments["data"]}).encode())


def ansible(folder: Path, listener: Any, trust: Path, arguments: str = "", password: str = "") -> tuple[int, str]:
    variables = {
        "ansible_connection": "winrm",
        "ansible_host": "127.0.0.1",
        "ansible_port": listener.port,
        "ansible_user": "Administrator",
        "ansible_password": password or listener.host.users["Administrator"],
        "ansible_winrm_transport": "ntlm",
        "ansible_winrm_ca_trust_path": str(trust),
    }
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {"node": variables}}}))
    (folder / "ansible.cfg").touch()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(str(path) for path in specs._collection_paths()),
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_NOCOLOR": "1",
        "NO_PROXY": "*",
    }
    command = [str(ANSIBLE), "-i", "hosts.json", "node", "-m", "ansible.windows.win_ping", "-a", arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_pinned_certificate_of_the_host_is_accepted(listen: Callable[..., Any], tmp_path: Path) -> None:
    """Python 3.13 verifies strictly (VERIFY_X509_STRICT); a lone self-signed certificate without CA fields passes."""
    listener = listen(answer=windows, basic=False)
    rc, output = ansible(tmp_path, listener, listener.certificate.pem, "data=hello")
    assert (rc, '"ping": "hello"' in output) == (0, True), output
    assert listener.endpoint.stats.commands == 1
    assert listener.endpoint.stats.connections == 1


def test_other_certificate_makes_the_host_unreachable(
    listen: Callable[..., Any], tmp_path: Path, other_certificate: Any
) -> None:
    listener = listen(answer=windows)
    rc, output = ansible(tmp_path, listener, other_certificate.pem)
    assert rc == 4
    assert "CERTIFICATE_VERIFY_FAILED" in output
    assert listener.endpoint.stats.commands == 0


def test_wrong_password_makes_the_host_unreachable(listen: Callable[..., Any], tmp_path: Path) -> None:
    listener = listen(answer=windows)
    rc, output = ansible(tmp_path, listener, listener.certificate.pem, password="wrong")
    assert rc == 4
    assert "the specified credentials were rejected by the server" in output


def test_wrong_option_fails_with_the_modules_message(listen: Callable[..., Any], tmp_path: Path) -> None:
    listener = listen(answer=windows)
    rc, output = ansible(tmp_path, listener, listener.certificate.pem, "dat=x")
    assert rc == 2
    assert (
        "Unsupported parameters for (ansible.windows.win_ping) module: dat. Supported parameters include: data"
        in output
    )
