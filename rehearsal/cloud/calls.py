"""The log of API calls: who asked what, and how it ended."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rehearsal.cloud import s3
from rehearsal.cloud.protocol import ApiRequest, Environ, read_request
from rehearsal.interfaces import CallRecord

StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
READING = ("Describe", "Get", "List", "Search", "Lookup", "BatchGet", "Head")
ERROR_CODE = re.compile(rb"<Code>([^<]+)</Code>|\"__type\": *\"(?:[^\"#]*#)?([^\"]+)\"")
REQUEST_KEY = "rehearsal.request"
DROPPED_KEY = "rehearsal.dropped"  # the client got no answer


def is_mutating(request: ApiRequest) -> bool:
    """Whether the action changes something; a dry run never does."""
    dry = request.form.get("DryRun", "").lower() == "true"
    return not dry and not request.action.startswith(READING)


class CallLog:
    """WSGI middleware: keeps a :class:`CallRecord` per request and writes it to a file as a line of JSON.

    The request that it read is left in the environment under ``rehearsal.request`` for the application.
    """

    def __init__(
        self,
        application: Application,
        calls: list[CallRecord],
        clock: Callable[[], float],
        path: Path | None = None,
        after: Callable[[CallRecord], None] = lambda record: None,
    ) -> None:
        self._application = application
        self._calls = calls
        self._clock = clock
        self._after = after
        self._lock = threading.Lock()
        self._path = path

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        moment = self._clock()
        try:
            request = s3.read_request(environ) if s3.is_request(environ) else read_request(environ)
        except (ValueError, UnicodeDecodeError) as error:
            body = f"This is the EC2 endpoint of the rehearsal. The request cannot be read: {error}.\n".encode()
            start_response("400 Bad Request", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
            return [body]
        environ[REQUEST_KEY] = request
        status = 0

        def remember(line: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            nonlocal status
            status = int(line.split()[0])
            return start_response(line, headers, *rest)

        body = b"".join(self._application(environ, remember))
        code = error_code(body) if status >= 400 else None
        if environ.get(DROPPED_KEY):
            status, code = 0, "ConnectionReset"
        record = CallRecord(
            time=moment,
            service=request.service,
            action=request.action,
            mutating=is_mutating(request),
            status=status,
            error=code,
            region=request.region,
            agent=request.agent,
        )
        self._keep(record)
        self._after(record)
        return [body]

    def _keep(self, record: CallRecord) -> None:
        with self._lock:
            self._calls.append(record)
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(record)) + "\n")


def error_code(body: bytes) -> str:
    found = ERROR_CODE.search(body)
    return (found[1] or found[2]).decode() if found else "Unknown"
