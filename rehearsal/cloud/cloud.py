"""The simulated region: a served API, and what the hypervisor asks and tells."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from rehearsal.cloud import catalog, console, quotas, view
from rehearsal.cloud.calls import CallLog
from rehearsal.cloud.endpoint import Endpoint
from rehearsal.cloud.errors import ApiError
from rehearsal.cloud.faults import Faults
from rehearsal.cloud.limits import Limits
from rehearsal.cloud.records import Instance, Lifecycle
from rehearsal.cloud.region import Region
from rehearsal.cloud.settings import CloudSettings
from rehearsal.cloud.states import BY_GUEST, advance, stop, terminate
from rehearsal.interfaces import CallRecord, CloudView, RehearsalError

log = logging.getLogger(__name__)
TICK = 0.1  # seconds between two looks at the clock
INTERRUPTION_NOTICE = 120.0  # seconds; EC2 User Guide, "Spot Instance interruption notices"


class QuietHandler(WSGIRequestHandler):  # type: ignore[misc]
    """The call log tells what was asked; werkzeug's own access log would only repeat it."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Cloud:
    """Implements :class:`rehearsal.interfaces.CloudApi`. Every method may be called from any thread."""

    def __init__(self, settings: CloudSettings | None = None) -> None:
        self.settings = settings or CloudSettings()
        self.calls: list[CallRecord] = []
        self.region = Region(self.settings)
        self._callbacks: list[Callable[[], None]] = []
        self._endpoint = Endpoint(self.region)
        self._limits = Limits(self.settings.clock)
        self._faults = Faults(self._endpoint, self._limits)
        self._log = CallLog(self._faults, self.calls, self.settings.clock, self.settings.call_log, self._after_call)
        self._server: BaseWSGIServer | None = None
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    # ------------------------------------------------------------------------------------------------------- life cycle

    def serve(self, sock: socket.socket) -> None:
        """Answer requests on a listening socket, in threads, until :meth:`stop`. Returns at once."""
        if self._server is not None:
            raise RehearsalError("The cloud is being served already: stop it first.")
        host, port = sock.getsockname()[:2]
        self._stopping.clear()
        self._server = make_server(host, port, self._log, threaded=True, request_handler=QuietHandler, fd=sock.fileno())
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(TICK,), name="cloud-api", daemon=True),
            threading.Thread(target=self._tick, name="cloud-clock", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End serving. The records stay; a later :meth:`serve` goes on with them."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for thread in self._threads:
            thread.join()
        self._threads = []

    def reset(self) -> None:
        """Forget everything but the settings; for tests."""
        self.region = Region(self.settings)
        self._endpoint.region = self.region
        self._faults.clear()
        self._callbacks.clear()
        self.calls.clear()

    def _tick(self) -> None:
        while not self._stopping.wait(TICK):
            with self.region.lock:
                changed = advance(self.region)
            if changed:
                self._changed()

    def _after_call(self, record: CallRecord) -> None:
        if record.mutating and record.status < 400:  # 0: the answer was lost, but perhaps it took effect
            self._changed()

    def _changed(self) -> None:
        for callback in list(self._callbacks):
            callback()

    # -------------------------------------------------------------------------------------------- for the hypervisor

    def view(self) -> CloudView:
        with self.region.lock:
            advance(self.region)
            return view.view(self.region)

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def _instance(self, instance_id: str) -> Instance:
        try:
            return self.region.instance(instance_id)
        except ApiError as error:
            raise RehearsalError(error.message) from error

    def console_write(self, instance_id: str, data: bytes) -> None:
        with self.region.lock:
            console.write(self.region, self._instance(instance_id), data)

    def console(self, instance_id: str) -> bytes:
        with self.region.lock:
            return bytes(self._instance(instance_id).console)

    def password_data(self, instance_id: str, password: str) -> None:
        with self.region.lock:
            console.publish_password(self.region, self._instance(instance_id), password)

    def guest_power_off(self, instance_id: str) -> None:
        """The guest shut itself down; an instance that is going down anyway is left alone."""
        with self.region.lock:
            advance(self.region)
            instance = self._instance(instance_id)
            if instance.state not in ("pending", "running"):
                return
            if instance.shutdown_behavior == "terminate" or instance.lifecycle == "spot":
                terminate(self.region, instance, BY_GUEST)
            else:
                stop(self.region, instance, BY_GUEST)
        self._changed()

    def image_ready(self, image_id: str, *, error: str | None = None) -> None:
        """An image that was deregistered meanwhile is left alone."""
        with self.region.lock:
            image = self.region.images.get(image_id)
            if image is None:
                if image_id in self.region.deregistered:
                    return
                raise RehearsalError(f"There is no image {image_id}")
            image.copied, image.failure = True, error
            changed = advance(self.region)
        if changed:
            self._changed()

    # ----------------------------------------------------------------------------------------------------------- faults

    def set_capacity(
        self, instance_type: str, zone: str, count: int | None, lifecycle: Lifecycle | None = None
    ) -> None:
        """How many instances of the type fit into the zone, of ``lifecycle`` or altogether; None: plenty.

        ``*`` means all types that the zone offers, and all zones.
        """
        pools = [
            (kind, place, lifecycle)
            for kind, place in catalog.offered(self.settings.region)
            if instance_type in ("*", kind) and zone in ("*", place)
        ]
        if not pools:
            raise RehearsalError(f"{zone} does not offer {instance_type}: the zones are {self.settings.zones}")
        with self.region.lock:
            for pool in pools:
                if count is None:
                    self.region.capacity.pop(pool, None)
                else:
                    self.region.capacity[pool] = count

    def set_vcpu_quota(self, lifecycle: Lifecycle, vcpus: float) -> None:
        """How many vCPUs of the standard families may run, by Service Quotas and at each launch."""
        with self.region.lock:
            self.region.vcpu_quotas[quotas.QUOTAS[lifecycle]] = vcpus

    def spot_interrupt(self, instance_id: str, in_seconds: float = INTERRUPTION_NOTICE) -> None:
        """Announce that EC2 takes the spot instance away, and do so after ``in_seconds``."""
        with self.region.lock:
            instance = self._instance(instance_id)
            if instance.lifecycle != "spot":
                raise RehearsalError(f"{instance_id} is not a spot instance: only those are interrupted.")
            instance.spot_action_time = self.region.now() + in_seconds
            request = self.region.spot_requests[instance.spot_request_id or ""]
            request.status = "marked-for-termination"
        self._changed()

    def throttle(self, action: str, count: int) -> None:
        """Answer the next ``count`` calls of ``action`` with RequestLimitExceeded."""
        self._faults.fail_next(action, "RequestLimitExceeded", count)

    def fail_next(self, action: str, code: str, count: int = 1) -> None:
        """Answer the next ``count`` calls of ``action`` (``*``: any) with the error ``code``."""
        self._faults.fail_next(action, code, count)

    def lose_answers(self, action: str, count: int = 1) -> None:
        """The next ``count`` calls of ``action`` (``*``: any) take effect, but nobody hears the answer."""
        self._faults.lose_answers(action, count)

    def deny(self, action: str, value: bool) -> None:
        """While true, the caller may not do ``action``, by a dry run or as a part of another one either."""
        with self.region.lock:
            (self.region.denied.add if value else self.region.denied.discard)(action)

    def limit(self, level: float | None) -> None:
        """Throttle as EC2 documents it, with buckets that are full to ``level`` (0 to 1) at first; None: not at all."""
        if level is None:
            self._limits.stop()
        else:
            self._limits.start(level)

    def unknown_for(self, seconds: float) -> None:
        """New instances, images and snapshots become known one after the other within ``seconds``.

        Until then Describe calls do not list them. No call finds an instance by its id, and those that describe images
        and snapshots do not find these.
        """
        with self.region.lock:
            self.region.unknown_seconds = seconds

    def api_down(self, value: bool) -> None:
        """While true, every connection ends without an answer."""
        self._faults.down(value)
