r"""The farm's share, for every account of this machine: by its UNC name and as a drive letter.

Backburner's services log on as Local Service, which shows itself to other machines as nobody, and drive letters belong
to one logon session (Windows documentation, "LocalService account" and "Services and Redirected Drives").  What Windows
offers for that is a global mapping: "Any users, applications, or containers can now access data on the G: drive"
(SmbShare module, ``New-SmbGlobalMapping``; Windows Server 2019 and newer).

It is made at each boot and not kept.  Unless ``-Persistent $false`` says so Windows keeps it, with its password in the
Credential Manager ("-Persistent value is true by default", kubernetes-csi/csi-driver-smb, issue 219).

The password of the share is in no image, no user data and no file of a node.  The manager tells it over TLS to who asks
from the farm's networks (`farmnode.drives_keys`); its certificate, which is no secret, is in the user data.  It goes to
PowerShell by standard input, never by a command line.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Final

from farmnode import powershell
from farmnode.errors import FarmNodeError
from farmnode.programs import Programs

_LONGEST_ANSWER: Final = 4096
_UNC = re.compile(r"\\\\[A-Za-z0-9.-]+\\[A-Za-z0-9_.$-]+")
_DRIVE = re.compile(r"[D-Z]:")
_USER = re.compile(r"[A-Za-z0-9_.-]+(\\[A-Za-z0-9_.-]+)?")

#: Filled in with what `_UNC`, `_DRIVE` and `_USER` admit, none of which can end a quoted string.
_MAP: Final = r"""
$ErrorActionPreference = 'Stop'
$secret = ConvertTo-SecureString -String ([Console]::In.ReadLine()) -AsPlainText -Force
$who = New-Object -TypeName System.Management.Automation.PSCredential -ArgumentList '{user}', $secret
Get-SmbGlobalMapping -LocalPath '{drive}' -ErrorAction SilentlyContinue | Remove-SmbGlobalMapping -Force
New-SmbGlobalMapping -LocalPath '{drive}' -RemotePath '{unc}' -Credential $who -RequirePrivacy $true -Persistent $false
""".strip()

_UNMAP: Final = r"""
$ErrorActionPreference = 'Stop'
Remove-SmbGlobalMapping -LocalPath '{drive}' -Force
""".strip()


@dataclass(frozen=True)
class Share:
    """Where the share is, and who tells its password: ``certificate`` (PEM) answers at ``port`` of the manager."""

    unc: str
    drive: str
    port: int
    certificate: str

    @property
    def server(self) -> str:
        return self.unc.split("\\")[2]


def share_from_json(data: Any) -> Share:
    """The ``share`` of the user data. FarmNodeError unless it is exactly that."""
    kinds = {"unc": str, "drive": str, "port": int, "certificate": str}
    if not isinstance(data, dict) or set(data) != set(kinds):
        raise FarmNodeError("bad_user_data", f"share of the <farm> part must have exactly {', '.join(kinds)}.")
    wrong = [name for name, kind in kinds.items() if not isinstance(data[name], kind) or isinstance(data[name], bool)]
    if wrong:
        raise FarmNodeError("bad_user_data", f"share of the <farm> part: {', '.join(wrong)} is of the wrong kind.")
    share = Share(**data)
    if not _UNC.fullmatch(share.unc) or not _DRIVE.fullmatch(share.drive) or not 0 < share.port < 65536:
        raise FarmNodeError(
            "bad_user_data",
            rf"share of the <farm> part must be \\server\share, a drive from D: to Z: and a port, "
            f"not {share.unc}, {share.drive} and {share.port}.",
        )
    return share


def map_share(share: Share, programs: Programs) -> str:
    """Map ``share`` for all accounts; returns what was done. FarmNodeError says what is in the way."""
    user, password = fetch(share)
    map_drive(share.unc, share.drive, user, password, programs)
    return f"{share.drive} is {share.unc}, for every account"


def map_drive(unc: str, drive: str, user: str, password: str, programs: Programs) -> None:
    """Make ``unc`` the ``drive`` of every account. FarmNodeError says what is in the way."""
    if not _UNC.fullmatch(unc) or not _DRIVE.fullmatch(drive) or not _USER.fullmatch(user):
        raise FarmNodeError("no_share", rf"{unc}, {drive} and {user} are not \\server\share, a drive and an account.")
    script = _MAP.format(user=user, drive=drive, unc=unc)
    done = powershell.run(script, programs, stdin=(password + "\r\n").encode("utf-8"))
    if done.rc != 0:
        raise FarmNodeError(
            "no_share",
            f"{unc} cannot be mapped to {drive} as {user}: {done.text.replace(password, '***')} "
            "See that the manager shares it, and that TCP 445 is open from here.",
        )


def unmap_drive(drive: str, programs: Programs) -> None:
    """Take the mapping of ``drive`` away."""
    done = powershell.run(_UNMAP.format(drive=drive), programs)
    if done.rc != 0:
        raise FarmNodeError("no_share", f"{drive} stays mapped: {done.text}")


def fetch(share: Share, *, timeout: float = 10.0) -> tuple[str, str]:
    """User and password of the share, from the manager. FarmNodeError when it does not tell, or is somebody else."""
    where = f"{share.server}:{share.port}"
    try:
        # Nothing else is trusted: exactly this certificate must answer, for exactly this address.
        context = ssl.create_default_context(cadata=share.certificate)
        with (
            socket.create_connection((share.server, share.port), timeout) as connection,
            context.wrap_socket(connection, server_hostname=share.server) as secured,
        ):
            answer = b""
            while piece := secured.recv(_LONGEST_ANSWER):
                answer += piece
                if len(answer) > _LONGEST_ANSWER:
                    break
        told = json.loads(answer)
        user, password = told["user"], told["password"]
    except ssl.SSLEOFError as error:  # it has nothing to tell yet
        raise _untold(where, error) from error
    except ssl.SSLError as error:
        raise FarmNodeError("no_share", f"who answers at {where} is not the manager: {error}.") from error
    except OSError as error:
        raise _untold(where, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FarmNodeError("no_share", f"the answer at {where} is not user and password.") from error
    if not isinstance(password, str) or not password or "\n" in password or not _USER.fullmatch(str(user)):
        raise FarmNodeError("no_share", f"the answer at {where} is not user and password.")
    return str(user), password


def _untold(where: str, error: OSError) -> FarmNodeError:
    return FarmNodeError(
        "no_share", f"the manager does not tell the share's password at {where}: {error}. Run farm-up.yml again."
    )
