"""PowerShell, as far as user data and Ansible itself send it."""

from __future__ import annotations

from rehearsal.windows.powershell.interpreter import run

__all__ = ["run"]
