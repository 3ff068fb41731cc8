"""How real processes on a host (farmnode) call Windows' own programs.

``C:\\Windows\\System32\\X.exe`` are small scripts that send one JSON line to the host's Unix socket and print its
answer.  They start in about 15 ms because they import built-in modules only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ntpath
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.windows.errors import NoStandIn, WindowsError

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

LINE_LIMIT = 16 * 1024 * 1024  # bytes of one request

_SCRIPT = r"""#!{python} -IS
import _socket, binascii, posix, sys
def quoted(text):
    out = ""
    for c in text:
        n = ord(c)
        out += "\\" + c if c in '"\\' else c if 31 < n < 127 else "\\u%04x" % n
    return '"' + out + '"'
def field(name):
    start = line.index(b'"' + name + b'": ') + len(name) + 4
    return line[start:].lstrip(b'"')
where = posix.environ.get(b"REHEARSAL_SOCKET")
if not where:
    sys.exit("rehearsal: REHEARSAL_SOCKET is not set: a program of a simulated host was run outside of that host")
name = sys.argv[0].rpartition("/")[2]
link = _socket.socket(_socket.AF_UNIX)
try:
    link.connect(where)
except OSError as error:
    sys.exit("rehearsal: %s: the host has no power (%s)" % (name, error))
arguments = ", ".join(quoted(text) for text in sys.argv[1:])
given = b""
if name == "powershell.exe":
    while part := posix.read(0, 1 << 16):
        given += part
given = binascii.b2a_base64(given, newline=False).decode()
request = '{{"program": %s, "argv": [%s], "cwd": %s, "stdin": "%s"}}\n'
link.sendall((request % (quoted(name), arguments, quoted(posix.getcwd()), given)).encode())
line = b""
while not line.endswith(b"\n"):
    part = link.recv(1 << 16)
    if not part:
        sys.exit("rehearsal: %s: the host lost its power" % name)
    line += part
for number, key in ((1, b"stdout"), (2, b"stderr")):
    text = binascii.a2b_base64(field(key).partition(b'"')[0])
    while text:
        text = text[posix.write(number, text):]
code = int(field(b"rc").partition(b",")[0])
posix._exit(code & 255 or (1 if code else 0))
"""


def script(python: str = sys.executable) -> str:
    """The text of a stand-in executable.

    It forwards its own name, arguments and folder, and the standard input of PowerShell, the one that reads it.  The
    exit code is cut to eight bits, as a process of Linux has no more (1060 of sc.exe is seen as 36).
    """
    return _SCRIPT.format(python=python)


async def serve(host: WindowsHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one stand-in: ``{"program", "argv", "cwd", "stdin"}`` -> ``{"rc", "stdout", "stderr"}``."""
    try:
        line = await reader.readline()
        if not line:
            return
        request = json.loads(line)
        drive = str(host.files.root)
        try:
            outcome = await host.run(
                [str(request["program"]), *(_windows_text(str(text), drive) for text in request["argv"])],
                cwd=_windows_folder(host, str(request["cwd"])),
                stdin=base64.b64decode(request["stdin"]),
            )
            rc, stdout, stderr = outcome.rc, outcome.stdout, outcome.stderr
        except (WindowsError, NoStandIn) as error:
            host.log(f"{request['program']}: {error}")
            rc, stdout, stderr = getattr(error, "code", 1), b"", f"{error}\r\n".encode()
        answer = {
            "rc": rc,
            "stdout": base64.b64encode(stdout).decode(),
            "stderr": base64.b64encode(stderr).decode(),
        }
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    except ConnectionError:
        host.log("a program of a real process went away before its answer")
    finally:
        writer.close()


def _windows_text(text: str, drive: str) -> str:
    """An argument with the rehearsal's own paths turned back into Windows paths."""
    if text == drive or text.startswith(drive + "/"):
        return "C:\\" + text[len(drive) + 1 :].replace("/", "\\")
    return text


def _windows_folder(host: WindowsHost, folder: str) -> str:
    try:
        return host.files.windows(Path(folder))
    except ValueError:
        return ntpath.join("C:\\", "Windows", "System32")
