"""Trouble on purpose: throttled, failing and unreachable API."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterable

from rehearsal.cloud.calls import DROPPED_KEY, REQUEST_KEY, Application, StartResponse
from rehearsal.cloud.errors import ApiError
from rehearsal.cloud.protocol import ApiRequest, Environ, render_error

# EC2 API Reference, "Error codes": what is the server's fault is 500 or 503.
STATUS = {
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
    "ServiceUnavailable": 503,
    "InternalError": 500,
    "InternalFailure": 500,
    "InsufficientInstanceCapacity": 500,
    "UnauthorizedOperation": 403,
}
MESSAGES = {"RequestLimitExceeded": "Request limit exceeded."}


class Faults:
    """WSGI middleware that refuses requests as it was told to. ``*`` as the action means any."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._pending: dict[str, list[ApiError]] = defaultdict(list)
        self._down = False

    def fail_next(self, action: str, code: str, count: int) -> None:
        """``count`` 0 takes back what was told about ``action`` before."""
        if not count:
            with self._lock:
                self._pending.pop(action, None)
            return
        message = MESSAGES.get(code, f"Injected by the rehearsal: {code}")
        with self._lock:
            self._pending[action] += [ApiError(code, message, STATUS.get(code, 400))] * count

    def down(self, value: bool) -> None:
        self._down = value

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()
        self._down = False

    def _next(self, action: str) -> ApiError | None:
        with self._lock:
            for name in (action, "*"):
                if self._pending.get(name):
                    return self._pending[name].pop(0)
        return None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request: ApiRequest = environ[REQUEST_KEY]
        if self._down:
            # The client sees a connection that ends without an answer.
            environ[DROPPED_KEY] = True
            connection = environ.get("werkzeug.socket")
            if connection is not None:
                connection.shutdown(socket.SHUT_RDWR)
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        error = self._next(request.action)
        if error is None:
            return self._application(environ, start_response)
        body, kind = render_error(error, as_json=bool(request.document))
        start_response(f"{error.status} Refused", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]
