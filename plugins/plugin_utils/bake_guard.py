# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ends what a bake leaves behind, also when ansible-playbook does not live to do it.

Ansible runs no ``always`` when it is interrupted (Ctrl-C), and nothing runs after ``kill -9``. So a bake starts this
file as a process of its own, in a session of its own, which a Ctrl-C in the terminal does not reach. It waits for the
end of ansible-playbook. When the bake's record is still there then, the bake did not end by itself, and the guard
terminates its builder and deletes its unfinished image.

What a bake made is found by the tag ``renderfarm:bake``. Records are ``<state>/bakes/<bake>.json``; the guard's own
words are in the ``.log`` beside. Run as a program it needs nothing but botocore; the action plugin imports it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

TAG_BAKE = "renderfarm:bake"
TAG_FARM = "renderfarm:farm"
TAG_ROLE = "renderfarm:role"
ALIVE = ["pending", "running", "stopping", "stopped"]
# A builder is stopped for its image only. It cannot be gone on with then: WinRM is off, and the next start is a clone's
# first. It would not end itself either, because its deadline is a shutdown that Windows has planned and a stop undoes.
GOES_ON = ("pending", "running")
# A task that was under way when ansible-playbook was killed may still launch or make something, and EC2 shows it late.
QUIET_SECONDS = 20.0
LONGEST_SECONDS = 3600.0
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Record:
    """One bake and the process that does it. ``started`` is in clock ticks since boot (proc(5), stat, field 22)."""

    bake: str
    farm: str
    region: str
    keep_builder: bool
    pid: int
    started: int
    ended: bool = False
    """It ended by itself, and left its builder for a later bake."""

    def alive(self) -> bool:
        return not self.ended and process_start(self.pid) == self.started


def process_start(pid: int) -> int | None:
    """When the process started; None when there is none (a zombie is none either)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def record_path(state: Path, bake: str) -> Path:
    return state / "bakes" / f"{bake}.json"


def records(state: Path) -> list[Record]:
    """All bakes of this controller that have not ended by themselves. ValueError: a record that cannot be read."""
    found = []
    for path in sorted((state / "bakes").glob("*.json")):
        try:
            found.append(Record(**json.loads(path.read_text())))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({error}): delete it") from error
    return found


def write(record: Record, state: Path) -> Path:
    """Write the record; a reader sees the old one or the new one. OSError passes through."""
    path = record_path(state, record.bake)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(record)) + "\n")
    return new.replace(path)


def start(record: Record, state: Path) -> None:
    """Write the record, then start the guard. OSError passes through."""
    path = write(record, state)
    with path.with_suffix(".log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(state), record.bake],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


def forget(state: Path, bake: str) -> None:
    """The bake has ended by itself. Its log goes when it is empty."""
    path = record_path(state, bake)
    path.unlink(missing_ok=True)
    log = path.with_suffix(".log")
    if log.exists() and not log.stat().st_size:
        log.unlink()


class Unended(Exception):
    """Something that ``bake`` made may still be there. ``problems``: what could not be done, and the API's error."""

    def __init__(self, bake: str, problems: Sequence[tuple[str, Exception]]) -> None:
        super().__init__("; ".join(f"could not {doing}: {error}" for doing, error in problems))
        self.bake = bake
        self.problems = problems


def clean(ec2: Any, bake: str, *, keep_builder: bool) -> list[str]:
    """One pass: terminate the bake's builder, delete its unfinished image and snapshots. What was ended, in words.

    An image that is available is whole, and stays. ``keep_builder`` keeps a builder that can be gone on with. Unended:
    some of it was not possible; the rest was done.
    """
    by_bake = [{"Name": f"tag:{TAG_BAKE}", "Values": [bake]}]
    ended: list[str] = []
    problems: list[tuple[str, Exception]] = []

    def attempt(doing: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # botocore's have no common class; all of them are told
            problems.append((doing, error))
            return None

    for builder in attempt("look for its builder", lambda: instances(ec2, by_bake)) or ():
        if not (keep_builder and builder["State"]["Name"] in GOES_ON):
            name = f"builder {builder['InstanceId']}"
            terminate = partial(ec2.terminate_instances, InstanceIds=[builder["InstanceId"]])
            if attempt(f"terminate the {name}", terminate) is not None:
                ended.append(name)
    images = attempt("look for its image", lambda: ec2.describe_images(Owners=["self"], Filters=by_bake)["Images"])
    settled = {name for image in images or () for name in snapshot_ids(image) if image["State"] == "available"}
    for image in images or ():
        if image["State"] != "available":
            name = f"unfinished image {image['ImageId']}"
            done = attempt(f"delete the {name}", partial(deregister, ec2, image["ImageId"]))
            if done is not None:
                ended.append(name)
                settled |= {each for each, code in done.items() if code in ("success", "skipped")}
    if images is not None:  # else nobody knows which snapshots are of a whole image
        found = attempt("look for its snapshots", lambda: _snapshots(ec2, by_bake)) or ()
        for name in (each for each in found if each not in settled):
            if attempt(f"delete the snapshot {name}", partial(ec2.delete_snapshot, SnapshotId=name)) is not None:
                ended.append(f"snapshot {name}")
    if problems:
        raise Unended(bake, problems)
    return ended


def deregister(ec2: Any, image_id: str) -> dict[str, str]:
    """Delete an image with its snapshots; what became of each (EC2 API Reference, DeleteSnapshotReturnCode)."""
    answer = ec2.deregister_image(ImageId=image_id, DeleteAssociatedSnapshots=True)
    return {each["SnapshotId"]: each["ReturnCode"] for each in answer.get("DeleteSnapshotResults", [])}


def snapshot_ids(image: Mapping[str, Any]) -> list[str]:
    return [
        disk["Ebs"]["SnapshotId"]
        for disk in image.get("BlockDeviceMappings", [])
        if disk.get("Ebs", {}).get("SnapshotId")
    ]


def _snapshots(ec2: Any, filters: list[dict[str, Any]]) -> list[str]:
    return [each["SnapshotId"] for each in ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"]]


def instances(ec2: Any, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The instances that are not terminated."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[*filters, {"Name": "instance-state-name", "Values": ALIVE}]
    )
    return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def tag(resource: Mapping[str, Any], key: str) -> str:
    return next((str(each["Value"]) for each in resource.get("Tags", []) if each["Key"] == key), "")


def make_client(region: str) -> Any:
    """An EC2 client with the environment's credentials. Imported late, so that a waiting guard stays small."""
    import botocore.session
    from botocore.config import Config

    config = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
    return botocore.session.Session().create_client("ec2", region_name=region, config=config)


def clean_until_quiet(
    client: Callable[[], Any],
    record: Record,
    say: Callable[[str], None],
    wanted: Callable[[], bool] = lambda: True,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Clean again and again until nothing was found for a while; False when an hour was not enough.

    It ends early when it is no longer ``wanted``: another bake has taken the record, and cleans itself.
    """
    begin = last = clock()
    while (now := clock()) - begin < LONGEST_SECONDS:
        if not wanted():
            return True
        try:
            ended = clean(client(), record.bake, keep_builder=record.keep_builder)
        except Exception as error:  # the network, the API: the bill runs on, so the guard does too
            say(f"{type(error).__name__}: {error}; tries again")
            ended = ["unknown"]
        else:
            for what in ended:
                say(f"ended {what}")
        if ended:
            last = now
        if now - last >= QUIET_SECONDS:
            return True
        sleep(POLL_SECONDS)
    return False


def wait_for_end(pid: int) -> None:
    """Return when the process has ended. The same pid is not given again while the descriptor is open."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with contextlib.closing(os.fdopen(descriptor)):
        select.select([descriptor], [], [])


def main(state: Path, bake: str) -> int:
    """Wait, then clean. The exit code is for the log only: nobody waits for it."""
    path = record_path(state, bake)
    record = _read(path)
    if record is not None and record.alive():
        wait_for_end(record.pid)
        record = _read(path)
    if record is None or record.ended:
        return 0
    say(f"ansible-playbook ({record.pid}) is gone in the middle of {bake}: cleaning up in {record.region}")
    clients: list[Any] = []

    def client() -> Any:
        if not clients:
            clients.append(make_client(record.region))
        return clients[0]

    if not clean_until_quiet(client, record, say, path.exists):
        say("gave up after an hour; the next bake-ami.yml cleans up, the builder ends itself at its deadline")
        return 1
    if record.keep_builder:
        say("kept a builder that runs, as ami_bake_resume wishes; the next bake goes on with it or ends it")
    else:
        path.unlink(missing_ok=True)
        say("nothing is left")
    return 0


def _read(path: Path) -> Record | None:
    """The record; None when the bake has ended by itself."""
    try:
        return Record(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)


def own_record(bake: str, options: Mapping[str, Any], pid: int) -> Record:
    """The record of the bake that the process ``pid`` does."""
    started = process_start(pid)
    assert started is not None, "the process that asks is alive"
    return Record(bake, options["farm"], options["region"], options["keep_builder"], pid, started)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
