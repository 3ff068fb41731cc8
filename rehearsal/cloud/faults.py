"""Trouble on purpose: throttled, forbidden, failing and unreachable API, and answers that are lost."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterable

from rehearsal.cloud.calls import DROPPED_KEY, REQUEST_KEY, StartResponse
from rehearsal.cloud.endpoint import Endpoint
from rehearsal.cloud.errors import ApiError
from rehearsal.cloud.limits import Limits
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

    def __init__(self, application: Endpoint, limits: Limits) -> None:
        self._application = application
        self._limits = limits
        self._lock = threading.Lock()
        self._pending: dict[str, list[ApiError]] = defaultdict(list)
        self._lost: dict[str, int] = defaultdict(int)
        self._down = False

    def fail_next(self, action: str, code: str, count: int) -> None:
        message = MESSAGES.get(code, f"Injected by the rehearsal: {code}")
        with self._lock:
            self._pending[action] += [ApiError(code, message, STATUS.get(code, 400))] * count

    def lose_answers(self, action: str, count: int) -> None:
        """The next ``count`` calls of ``action`` do what they shall, but the connection ends without an answer."""
        with self._lock:
            self._lost[action] += count

    def down(self, value: bool) -> None:
        self._down = value

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()
            self._lost.clear()
        self._limits.stop()
        self._down = False

    def _refusal(self, request: ApiRequest) -> ApiError | None:
        action = request.action
        if action in self._application.region.denied:
            code = "UnauthorizedOperation" if request.service == "ec2" else "AccessDeniedException"
            message = f"You are not authorized to perform this operation: {request.service}:{action}."
            return ApiError(code, message, 403 if request.service == "ec2" else 400)
        with self._lock:
            for name in (action, "*"):
                if self._pending.get(name):
                    return self._pending[name].pop(0)
        if request.service == "ec2" and self._limits.refuses(action, request.form):
            return ApiError("RequestLimitExceeded", MESSAGES["RequestLimitExceeded"], 503)
        return None

    def _loses(self, action: str) -> bool:
        with self._lock:
            for name in (action, "*"):
                if self._lost[name]:
                    self._lost[name] -= 1
                    return True
        return False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request: ApiRequest = environ[REQUEST_KEY]
        if self._down:
            return _drop(environ, start_response)
        error = self._refusal(request)
        if error is not None:
            body, kind = render_error(error, as_json=bool(request.document))
            start_response(f"{error.status} Refused", [("Content-Type", kind), ("Content-Length", str(len(body)))])
            return [body]
        if self._loses(request.action):
            list(self._application(environ, lambda *answer: None))
            return _drop(environ, start_response)
        return self._application(environ, start_response)


def _drop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The client sees a connection that ends without an answer."""
    environ[DROPPED_KEY] = True
    connection = environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
    start_response("503 Service Unavailable", [("Content-Length", "0")])
    return []
