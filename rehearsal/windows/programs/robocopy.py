"""robocopy.exe from a folder of C: to a share that is mapped (reference: Windows Commands, "robocopy").

The log's lines are those of an English Windows, as far as somebody reads them: header, files, errors, summary.
"""

from __future__ import annotations

import asyncio
import ntpath
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rehearsal.interfaces import Outcome
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.files import Entry
from rehearsal.windows.programs.base import Invocation, console, refuse
from rehearsal.windows.smb import Client

COPIED, EXTRA, MISMATCH, FAILED, FATAL = 1, 2, 4, 8, 16
# Those without which the program does something else than is modelled, or asks a million times.
_NEEDED = {"/E", "/XO", "/XJ", "/Z", "/NP", "/NDL", "/BYTES"}
_TRIES = re.compile(r"/([RW]):(\d+)", re.IGNORECASE)
_LOG = "/UNILOG:"
_PIECE = 32 * 1024
#: NTFS counts in steps of 100 nanoseconds; a number of seconds with fractions is coarser.
_SAME_TIME = 0.001


@dataclass
class _Job:
    """One run: options, what is counted, and the log."""

    tries: int
    wait: float
    lines: list[str] = field(default_factory=list)
    folders: list[int] = field(default_factory=lambda: [0] * 6)
    files: list[int] = field(default_factory=lambda: [0] * 6)
    bytes: list[int] = field(default_factory=lambda: [0] * 6)

    def count(self, column: int, size: int) -> None:
        """A file in one of the columns copied 1, skipped 2, mismatch 3, failed 4, extra 5; extras are in no total."""
        for row, number in ((self.files, 1), (self.bytes, size)):
            row[column] += number
            row[0] += number if column != _EXTRA else 0

    @property
    def code(self) -> int:
        rows = (self.folders, self.files)
        bits = {COPIED: 1, MISMATCH: 3, FAILED: 4, EXTRA: 5}
        return sum(bit for bit, column in bits.items() if any(row[column] for row in rows))

    def summary(self) -> str:
        head = "".join(f"{word:>10}" for word in ("Total", "Copied", "Skipped", "Mismatch", "FAILED", "Extras"))
        rows = (("Dirs", self.folders), ("Files", self.files), ("Bytes", self.bytes))
        table = [f"{name:>8} :" + "".join(f"{number:>10}" for number in row) for name, row in rows]
        return "\n".join(["", "-" * 78, "", " " * 10 + head, *table])


_COPIED, _SKIPPED, _MISMATCH, _FAILED, _EXTRA = range(1, 6)


async def main(invocation: Invocation) -> Outcome:
    r"""``robocopy FOLDER X:\FOLDER /E /XO /XJ /Z /R:n /W:n /NP /NDL /BYTES /UNILOG:FILE``."""
    words = invocation.arguments
    tries = {found[1].upper(): int(found[2]) for word in words[2:] if (found := _TRIES.fullmatch(word))}
    logs = [word[len(_LOG) :] for word in words[2:] if word.upper().startswith(_LOG)]
    plain = {word.upper() for word in words[2:] if not _TRIES.fullmatch(word) and not word.upper().startswith(_LOG)}
    if plain != _NEEDED or set(tries) != {"R", "W"} or len(logs) != 1:
        return refuse(invocation, "only FOLDER X:\\FOLDER with these options is modelled", FATAL)
    host, (source, destination) = invocation.host, words[:2]
    if host.network_files.leads_away(source) or not host.network_files.leads_away(destination):
        return refuse(invocation, "only from C: to a mapped drive is modelled", FATAL)
    job = _Job(tries["R"], float(tries["W"]))
    started = datetime.fromtimestamp(host.clock(), UTC).strftime("%A, %B %d, %Y %H:%M:%S")
    job.lines += ["-" * 79, "   ROBOCOPY     ::     Robust File Copy for Windows", "-" * 79, ""]
    job.lines += [f"  Started : {started}", f"   Source : {source}\\", f"     Dest : {destination}\\", ""]
    code = await _run(invocation, job, source, destination)
    host.files.write_bytes(logs[0], ("\ufeff" + "\r\n".join(job.lines) + "\r\n").encode("utf-16-le"))
    return console(f"\n Log File : {logs[0]}\n", code)


async def _run(invocation: Invocation, job: _Job, source: str, destination: str) -> int:
    host = invocation.host
    if not host.files.is_directory(source):
        job.lines.append(_error(2, f"Accessing Source Directory {source}\\"))
        return FATAL
    try:
        await _folder(invocation, job, source, destination)
    except WindowsError as error:
        job.lines.append(_error(error.code, f"Accessing Destination Directory {destination}\\"))
        return FATAL
    job.lines += job.summary().split("\n")
    return job.code


async def _folder(invocation: Invocation, job: _Job, source: str, destination: str) -> None:
    host, far = invocation.host, invocation.host.network_files
    job.folders[0] += 1
    try:
        there = {name.lower(): row for name, row in (await far.names(destination)).items()}
        job.folders[_SKIPPED] += 1
    except WindowsError as error:
        if error.code not in (2, 3):
            raise
        await far.make_directory(destination)
        there = {}
        job.folders[_COPIED] += 1
    inside = [host.files.entry(ntpath.join(source, name)) for name in host.files.names(source)]
    for name in set(there) - {ntpath.basename(entry.path).lower() for entry in inside}:
        folder, size, _ = there[name]
        if folder:
            job.folders[_EXTRA] += 1
        else:
            job.count(_EXTRA, size)
            job.lines.append(f"\t*EXTRA File \t\t{size:>10}\t{name}")
    for entry in sorted(inside, key=lambda each: each.is_directory):
        name = ntpath.basename(entry.path)
        target, known = ntpath.join(destination, name), there.get(name.lower())
        if known is not None and known[0] != entry.is_directory:
            job.count(_MISMATCH, entry.size)
        elif entry.is_directory:
            await _folder(invocation, job, entry.path, target)
        elif known is not None and (
            entry.written < known[2] - _SAME_TIME
            or (entry.size == known[1] and abs(entry.written - known[2]) <= _SAME_TIME)
        ):
            job.count(_SKIPPED, entry.size)
        else:
            await _file(invocation, job, entry, target, "New File" if known is None else "Newer")


async def _file(invocation: Invocation, job: _Job, entry: Entry, target: str, kind: str) -> None:
    data = invocation.host.files.read_bytes(entry.path)
    job.lines.append(f"\t    {kind}  \t\t{entry.size:>10}\t{ntpath.basename(entry.path)}")
    for left in reversed(range(job.tries + 1)):
        try:
            await _send(invocation.host.network_files, target, data, entry.written)
        except WindowsError as error:
            job.lines.append(_error(error.code, f"Copying File {entry.path}"))
            if left:
                job.lines.append(f"Waiting {job.wait:.0f} seconds... Retrying...")
                await asyncio.sleep(job.wait)
        else:
            job.count(_COPIED, entry.size)
            return
    job.lines += ["ERROR: RETRY LIMIT EXCEEDED.", ""]
    job.count(_FAILED, entry.size)


async def _send(far: Client, target: str, data: bytes, written: float) -> None:
    """Write a file there. Until it is whole it bears a time so old that the next run takes it for an older one."""
    await far.write(target, data[:_PIECE])
    await far.set_written(target, 0.0)
    for start in range(_PIECE, len(data), _PIECE):
        await far.write(target, data[start : start + _PIECE], append=True)
        await far.set_written(target, 0.0)
    await far.set_written(target, written)


def _error(code: int, what: str) -> str:
    return f"ERROR {code} (0x{code:08X}) {what}\n{WindowsError(code)}"
