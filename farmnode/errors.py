"""The one exception that leaves this package, and what its reasons mean."""

from __future__ import annotations

import errno
from typing import Final

#: Each reason that a failure may carry, with what it says to the reader of last words and module results.
REASONS: Final = {
    "bad_desired_state": "what was asked for is not understood or contradicts itself",
    "bad_user_data": "the <farm> part of the instance's user data is missing or not understood",
    "broken_xml": "backburner.xml is not well-formed, or its encoding is not known",
    "busy": "another farmnode works on this machine and does not end",
    "broken_state": "farmnode's own state.json or image.json cannot be understood",
    "cut": "the boot was ended from outside before it was done",
    "disk_full": "the disk has no room for the new file; the old one is still whole",
    "forwarding": "the machine does not forward between its networks as it shall",
    "manager_unreachable": "nothing answers on the manager's port",
    "manager_protocol": "the manager answered something that its text protocol does not foresee",
    "metadata": "the instance metadata service does not answer, or lacks something",
    "missing_element": "backburner.xml lacks an element, or has it more than once",
    "missing_file": "a file that must be there is not",
    "no_share": "the farm's share cannot be reached, or its password is not to be had",
    "no_tunnel": "the machine has no address in the tunnel that shall lead it to the manager",
    "not_registered": "the manager does not list this machine",
    "not_sealed": "the image does not say whose identity its backburner.xml carries",
    "project": "the studio's project folder is not copied to the farm's share, or not whole",
    "reminder": "the mail that reminds of running machines cannot be made or sent",
    "program": "a program of Windows failed or took too long",
    "route": "a route cannot be set as asked",
    "smoke": "Backburner on the builder did not do the probe job",
    "service": "a Windows service is missing or does not reach the wanted state",
    "unexpected": "a defect of farmnode; its log has the traceback",
    "unknown_manager": "the manager's name does not resolve, or is no address",
    "unwritable_file": "a file is read-only, or may not be written by this account",
}


#: Reasons that may pass by themselves: an address that comes late, a name that does not resolve yet, a share whose
#: manager is later than its nodes, a file that a virus scanner holds, a service that Windows is not ready to start.
PASSING: Final = frozenset({"busy", "no_share", "program", "route", "service", "unknown_manager", "unwritable_file"})


class FarmNodeError(Exception):
    """Something that the farm must hear about: ``reason`` is one of `REASONS`, the text names thing and remedy."""

    def __init__(self, reason: str, message: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not a documented reason")
        super().__init__(message)
        self.reason = reason
        self.message = message

    def as_json(self) -> dict[str, object]:
        return {"failed": True, "reason": self.reason, "msg": self.message}


def writing_failed(error: OSError, shown: str) -> FarmNodeError:
    """Say why the file ``shown`` could not be written, and what helps."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FarmNodeError(
            "disk_full",
            f"no room on the disk to write {shown}; the file is as it was. "
            "Free space on that drive or give the image a larger volume.",
        )
    return FarmNodeError(
        "unwritable_file",
        f"cannot write {shown}: {error.strerror or error}. "
        "Clear its read-only flag, see who may write that folder, and that no program holds the file open.",
    )


def reading_failed(error: OSError, shown: str) -> FarmNodeError:
    """Say why the file ``shown`` could not be read."""
    if isinstance(error, FileNotFoundError):
        return FarmNodeError("missing_file", f"{shown} does not exist.")
    return FarmNodeError("missing_file", f"cannot read {shown}: {error.strerror or error}.")
