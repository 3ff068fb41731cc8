"""msiexec.exe (reference: Microsoft, "Standard installer command-line options")."""

from __future__ import annotations

import ntpath
import re

from rehearsal.interfaces import Outcome
from rehearsal.windows import msi
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.programs.base import Invocation, failure, refuse

_PROPERTY = re.compile(r"^[A-Z_][A-Z0-9_.]*=", re.IGNORECASE)
_QUIET = frozenset({"/qn", "/quiet", "/passive", "/qb", "/qb!", "/q"})
_CODE = re.compile(r"^\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}$", re.IGNORECASE)


async def main(invocation: Invocation) -> Outcome:
    """``/i|/package FILE`` and ``/x|/uninstall FILE-or-code`` with /qn, /norestart, a log and properties."""
    host = invocation.host
    action = target = log = ""
    quiet = False
    words = iter(invocation.arguments)
    for word in words:
        option = word.lower().replace("-", "/", 1) if word.startswith("-") else word.lower()
        if option in ("/i", "/package", "/x", "/uninstall"):
            action, target = ("install" if option in ("/i", "/package") else "uninstall"), next(words, "")
        elif re.match(r"^/x\{", option):
            action, target = "uninstall", word[2:]
        elif option in _QUIET:
            quiet = True
        elif option in ("/norestart", "/forcerestart"):
            continue
        elif option == "/log" or re.match(r"^/l[iwearucmopvx+!*]*$", option):
            log = next(words, "")
        elif not _PROPERTY.match(word):
            return refuse(invocation, f"{word} is not modelled", 1639)
    if not action or not target:
        return refuse(invocation, "there is neither /i nor /x", 1639)
    if not quiet:
        return refuse(invocation, "without /qn msiexec shows a window and waits for a person")
    try:
        if action == "install":
            path = target if ntpath.isabs(target) else ntpath.join(invocation.cwd, target)
            if not host.files.is_file(path):
                raise WindowsError(1619)
            package = msi.read(host.files.read_bytes(path))
            await msi.install(host, package)
            code = package.product_code
        else:
            code = target if _CODE.match(target) else msi.read(host.files.read_bytes(target)).product_code
            await msi.uninstall(host, code)
        text, rc = f"{action} of {code} succeeded\r\n", 0
    except WindowsError as error:
        text, rc = f"{action} of {target} failed with {error.code}: {error}\r\n", error.code
    if log:
        host.files.write_bytes(log, ("\ufeff" + text).encode("utf-16-le"))
    return failure(text if text.startswith("rehearsal:") else "", rc)
