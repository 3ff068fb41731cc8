"""python.exe of CPython's embeddable package: a real interpreter that sees the host's C:.

The package's ``python3*._pth`` beside it is all of ``sys.path`` (reference: Python documentation, "The embeddable
package" and "Finding modules"); the standard library, which the real package has in ``python3*.zip``, is that of the
real interpreter.

The interpreter can hold still in one phase of farmnode's boot until the machine's power is cut there (``power-cut`` in
`rehearsal.faults`): a phase may be over in a few milliseconds, before anybody sees from outside that it began.
"""

from __future__ import annotations

import ntpath
import re
import shutil
from typing import TYPE_CHECKING

from rehearsal.interfaces import Outcome, RehearsalError
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.programs.base import Invocation, console, failure, refuse

if TYPE_CHECKING:
    from rehearsal.windows.host import WindowsHost

#: Audit hooks run before a program opens, connects or starts anything (PEP 578). What was remembered by an earlier boot
#: is no phase of this one.
_HOLD_STILL = """\
import posix
def hold_still():
    import json, os, signal, sys
    phase, memory, sign = os.environ["REHEARSAL_POWER_CUT"].split("\\n")
    def written():
        try:
            return os.stat(memory).st_mtime_ns
        except FileNotFoundError:
            return None
    def due():
        if written() in (None, before):
            return False
        with open(memory, "rb") as file:
            boot = json.load(file).get("boot", {})
        return (boot.get("event"), boot.get("phase")) == ("booting", phase)
    def look(event, arguments):
        if not looking:
            looking.append(event)
            try:
                if due():
                    open(sign, "wb").close()
                    os.kill(os.getpid(), signal.SIGSTOP)
            finally:
                looking.clear()
    before, looking = written(), []
    sys.addaudithook(look)
if b"REHEARSAL_POWER_CUT" in posix.environ:
    hold_still()
"""
_BOOTSTRAP = (
    _HOLD_STILL
    + """\
import sys
path, kind, what = sys.argv[1].split("\\n"), sys.argv[2], sys.argv[3]
sys.path[:0] = path
if kind == "-m":
    import runpy
    sys.argv[:] = [what, *sys.argv[4:]]
    runpy.run_module(what, run_name="__main__", alter_sys=True)
elif kind == "-c":
    sys.argv[:] = ["-c", *sys.argv[4:]]
    exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
else:
    import runpy
    sys.argv[:] = [what, *sys.argv[4:]]
    runpy.run_path(what, run_name="__main__")
"""
)
_HOSTS = r"C:\Windows\System32\drivers\etc\hosts"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIME_LIMIT = 30 * 86400.0  # seconds: what limits a program on Windows is whoever started it
_FLAGS = frozenset({"-I", "-E", "-s", "-S", "-u", "-B"})


async def main(invocation: Invocation) -> Outcome:
    """``python.exe [-I -E -s -S -u -B] [-X utf8] -m MODULE | -c TEXT | FILE  arguments``; ``-V``."""
    host = invocation.host
    folder = ntpath.dirname(invocation.path)
    settings = [name for name in host.files.names(folder) if re.fullmatch(r"python3\d*\._pth", name, re.IGNORECASE)]
    if len(settings) != 1:
        return refuse(invocation, f"there is no python3*._pth in {folder}: only the embeddable package is modelled")
    words = list(invocation.arguments)
    while words and (words[0] in _FLAGS or words[:2] == ["-X", "utf8"]):
        del words[: 2 if words[0] == "-X" else 1]
    if words in (["-V"], ["--version"]):
        found = re.search(rb"\d+\.\d+\.\d+", host.files.read_bytes(invocation.path)[:4096])
        if found is None:
            return refuse(invocation, "its file does not say which version it is")
        return console(f"Python {found[0].decode()}\n")
    if not words or (words[0].startswith("-") and (words[0] not in ("-m", "-c") or len(words) < 2)):
        return refuse(invocation)
    kind = words.pop(0) if words[0].startswith("-") else ""
    what = words.pop(0)
    if not kind:
        path = what if ntpath.isabs(what) else ntpath.join(invocation.cwd, what)
        if not host.files.is_file(path):
            text = f"{invocation.path}: can't open file '{path}': [Errno 2] No such file or directory\n"
            return failure(text, 2)
        what = str(host.files.real(path))
    try:
        path_entries = search_path(host.files.read_bytes(ntpath.join(folder, settings[0])).decode("utf-8-sig"), folder)
    except WindowsError as error:
        return failure(f"{error}\n")
    if path_entries is None:
        return refuse(invocation, f"'import site' in {settings[0]} is not modelled; leave it out or commented")
    real = [str(host.files.real(entry)) for entry in path_entries]
    argv = [host.python, "-I", "-S", "-c", _BOOTSTRAP, "\n".join(real), kind, what, *words]
    if "-u" in invocation.arguments:
        argv.insert(1, "-u")
    return await host.platform.spawn(
        [*_with_names(host), *argv],
        env={**invocation_environment(invocation), "PYTHONUTF8": "1"},
        cwd=host.files.real(invocation.cwd),
        stdin=invocation.stdin,
        timeout=_TIME_LIMIT,
    )


def _with_names(host: WindowsHost) -> list[str]:
    """What lets the process resolve the names of the host's hosts file, when it has any: Windows asks it first."""
    if not host.files.is_file(_HOSTS):
        return []
    lines = host.files.read_bytes(_HOSTS).decode("utf-8", "replace").splitlines()
    if not any(line.partition("#")[0].strip() for line in lines):
        return []
    unshare, mount = shutil.which("unshare", path=_PATH), shutil.which("mount", path=_PATH)
    if unshare is None or mount is None:
        raise RehearsalError("unshare or mount not found; install with: sudo apt-get install util-linux mount")
    # in a mount namespace of its own, which goes with the process; the GNU resolver takes the ends of lines as they are
    place = f'{mount} --bind "$0" /etc/hosts && exec "$@"'
    return [unshare, "--mount", "--", "/bin/sh", "-c", place, str(host.files.real(_HOSTS))]


def invocation_environment(invocation: Invocation) -> dict[str, str]:
    """The mapped environment, with what the caller set on top."""
    given = invocation.host.environment(invocation.user)
    extra = {name: value for name, value in invocation.environment.items() if given.get(name) != value}
    return {**extra, **invocation.host.real_environment()}


def search_path(text: str, folder: str) -> list[str] | None:
    """The entries of a ``._pth`` file as Windows paths; None when it imports site."""
    entries = []
    for line in text.splitlines():
        entry = line.split("#", 1)[0].strip()
        if not entry:
            continue
        if entry.startswith("import "):
            return None
        entries.append(ntpath.normpath(ntpath.join(folder, entry)))
    return entries
