"""``backburner.log``: one line per event, prefix ERR, WRN, INF or DBG."""

from __future__ import annotations

from datetime import UTC, datetime

from rehearsal.backburner.host import FILE_ERRORS, PROFILE, Host

LOG_FILE = PROFILE + r"\backburner.log"


class Log:
    """The log file of a machine's Backburner services.

    A line is ``<time> <prefix> <text>``. The prefixes are documented (Backburner Installation Guide, log settings), the
    form of the time is not: ISO 8601 in UTC with milliseconds is ours, so that lines of all machines can be compared.
    """

    def __init__(self, host: Host, program: str) -> None:
        self._host = host
        self._program = program

    def error(self, text: str) -> None:
        self._write("ERR", text)

    def warning(self, text: str) -> None:
        self._write("WRN", text)

    def info(self, text: str) -> None:
        self._write("INF", text)

    def debug(self, text: str) -> None:
        self._write("DBG", text)

    def _write(self, prefix: str, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = f"{now} {prefix} {text}"
        try:
            self._host.files.make_directory(PROFILE)
            self._host.files.append_bytes(LOG_FILE, line.encode() + b"\r\n")
        except FILE_ERRORS as error:  # a full disk must not stop the service; the machine's own log keeps the line
            self._host.log(f"{self._program}: cannot write {LOG_FILE}: {error}; the line was: {line}")
