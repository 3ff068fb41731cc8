"""What the clock does: instances change state, images finish, spot instances are taken away."""

from __future__ import annotations

from datetime import UTC, datetime

from rehearsal.cloud.disks import release_volumes
from rehearsal.cloud.eni import release_interfaces
from rehearsal.cloud.errors import ApiError
from rehearsal.cloud.records import STATE_CODES, Image, Instance, Params, State
from rehearsal.cloud.region import Region

BY_USER = ("Client.UserInitiatedShutdown", "User initiated shutdown", "User initiated")
BY_GUEST = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown", "")
BY_SPOT = ("Server.SpotInstanceTermination", "Spot instance termination", "Server.SpotInstanceTermination")
Cause = tuple[str, str, str]


def state_of(instance: Instance) -> Params:
    return {"Code": STATE_CODES[instance.state], "Name": instance.state}


def power_on(region: Region, instance: Instance) -> None:
    """Launch or start: pending, later running. Counts as a boot."""
    _go(region, instance, "pending", region.settings.pending_seconds, "running")
    instance.boots += 1
    instance.launch_time = region.now()
    instance.reason = instance.reason_code = instance.transition_reason = ""
    for interface in instance.interfaces.values():
        if interface.wants_public and interface.automatic is None and region.elastic_address(interface.id) is None:
            interface.automatic = region.take_public_address()


def stop(region: Region, instance: Instance, cause: Cause = BY_USER) -> None:
    _why(region, instance, cause)
    _go(region, instance, "stopping", region.settings.stopping_seconds, "stopped")


def terminate(region: Region, instance: Instance, cause: Cause = BY_USER) -> None:
    """Shut down for good; a second time changes nothing (EC2 API Reference, TerminateInstances)."""
    if not instance.alive:
        return
    _why(region, instance, cause)
    _go(region, instance, "shutting-down", region.settings.stopping_seconds, "terminated")
    request = region.spot_requests.get(instance.spot_request_id or "")
    if request is not None and request.state != "cancelled":
        request.state = "closed"
        request.status = "instance-terminated-by-user" if cause is not BY_SPOT else "instance-terminated-no-capacity"


def _go(region: Region, instance: Instance, state: State, seconds: float, then: State) -> None:
    instance.state, instance.then = state, then
    instance.due = region.now() + seconds
    # EC2 User Guide, "Instance console output": without Latest one sees what was posted around the last transition.
    instance.posted, instance.posted_time = bytes(instance.console), instance.console_time


def _why(region: Region, instance: Instance, cause: Cause) -> None:
    code, text, short = cause
    instance.reason_code, instance.reason = code, f"{code}: {text}"
    if short:
        moment = datetime.fromtimestamp(region.now(), UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
        instance.transition_reason = f"{short} ({moment})"


def advance(region: Region) -> bool:
    """Do everything that is due. Returns whether something changed."""
    now = region.now()
    changed = False
    for instance in list(region.instances.values()):
        if instance.spot_action_time is not None and now >= instance.spot_action_time and instance.alive:
            terminate(region, instance, BY_SPOT)
            changed = True
        if instance.due is not None and now >= instance.due:
            _arrive(region, instance)
            changed = True
        if instance.ended is not None and now >= instance.ended + region.settings.terminated_visible_seconds:
            del region.instances[instance.id]
            region.forget_tags(instance.id)
            changed = True
    for image in region.images.values():
        if image.state == "pending" and image.copied and now >= image.earliest:
            _finish_image(region, image)
            changed = True
    return changed


def _arrive(region: Region, instance: Instance) -> None:
    assert instance.then is not None
    instance.state, instance.due, instance.then = instance.then, None, None
    if instance.state == "stopped":
        for interface in instance.interfaces.values():
            interface.automatic = None
    elif instance.state == "terminated":
        instance.ended = region.now()
        release_volumes(region, instance)
        release_interfaces(region, instance)


def _finish_image(region: Region, image: Image) -> None:
    image.state = "failed" if image.failure else "available"
    image.reason = image.failure or ""
    for disk in image.disks:
        snapshot = region.snapshots.get(disk.snapshot_id)
        if snapshot is not None:
            snapshot.state = "error" if image.failure else "completed"


def require_state(instance: Instance, allowed: tuple[State, ...], purpose: str) -> None:
    if instance.state not in allowed:
        raise ApiError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can be {purpose}. It is {instance.state}.",
        )
