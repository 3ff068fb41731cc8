r"""The manager's queue: jobs, their tasks, and the ``Jobs`` folder that outlives a restart.

Documented: one folder per job, named ``<8 hexadecimal digits of the handle> <name>``, with the job's XML inside
(JobInfo, JobFlags, Output/Name).  The name of that XML file, the list of finished tasks in it and the fact that a
task is one frame that takes a given time are ours.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from rehearsal.backburner.host import PROFILE, Files
from rehearsal.backburner.protocol import COMPLETE, JOB_BUSY, JOB_SUSPENDED, WAITING, element, stamp

JOBS_FOLDER = PROFILE + r"\Jobs"
_FOLDER = re.compile(r"([0-9A-F]{8}) (.+)")
_FLAGS = (
    "Active",
    "Complete",
    "NonConcurrent",
    "NonStoppable",
    "IgnoreJobShare",
    "JobHasDependencies",
    "ZipArchive",
    "LeaveInQueue",
    "ArchiveWhenDone",
    "DeleteWhenDone",
    "OverrideBlockingTasks",
    "EnableBlockingTasks",
)


class JobError(Exception):
    """A job was described in a way that the manager cannot take."""


@dataclass
class Job:
    """One fake render job: every frame is a task that takes ``seconds`` and writes one file beside ``output``.

    A job of cmdjob.exe has a ``command`` instead, which each task runs.
    """

    handle: int
    name: str
    first: int
    last: int
    seconds: float
    output: str
    priority: int = 50
    user: str = "artist"
    computer: str = "workstation"
    submitted: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    suspended: bool = False
    finished: set[int] = field(default_factory=set)
    assigned: dict[int, str] = field(default_factory=dict)
    """Frame -> handle of the server that renders it now. Not kept over a restart."""
    command: list[str] = field(default_factory=list)
    """What each task runs instead of rendering, with the tokens of cmdjob.exe."""
    failures: dict[str, int] = field(default_factory=dict)
    """Server -> how often a task of this job failed on it."""

    @property
    def frames(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def state(self) -> int:
        if len(self.finished) == len(self.frames):
            return COMPLETE
        if self.suspended:
            return JOB_SUSPENDED
        return JOB_BUSY if self.assigned else WAITING

    @property
    def folder(self) -> str:
        return f"{JOBS_FOLDER}\\{self.handle:08X} {self.name}"

    def next_frame(self) -> int | None:
        """The first frame that nobody renders and that is not finished."""
        return next((frame for frame in self.frames if frame not in self.finished and frame not in self.assigned), None)

    def release(self, server: str) -> list[int]:
        """Take all tasks away from ``server``; gives their frames."""
        frames = [frame for frame, owner in self.assigned.items() if owner == server]
        for frame in frames:
            del self.assigned[frame]
        return frames


def new_job(handle: int, request: Mapping[str, Any]) -> Job:
    """A job as a client describes it: name, first, last, seconds (per frame), output; priority, user, computer."""
    try:
        job = Job(
            handle=handle,
            name=str(request["name"]),
            first=int(request["first"]),
            last=int(request["last"]),
            seconds=float(request["seconds"]),
            output=str(request["output"]),
            priority=int(request.get("priority", 50)),
            user=str(request.get("user", "artist")),
            computer=str(request.get("computer", "workstation")),
            command=[str(word) for word in request.get("command", [])],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"a job needs name, first, last, seconds and output: {error!r}") from error
    if not job.name.strip() or re.search(r'[<>:"/\\|?*\x00-\x1f]', job.name):
        raise JobError(f"the job name {job.name!r} is no name of a folder")
    if job.last < job.first or not 0 <= job.seconds < 86400 or not 0 <= job.priority <= 100:
        raise JobError("frames must go up, seconds must be less than a day, priority must be 0 to 100")
    return job


def info(job: Job) -> ElementTree.Element:
    """The answer to ``get jobinfo``: values by the positions that clients of the real manager use."""
    servers = sorted({*job.assigned.values(), *job.failures})
    return element(
        "Job",
        element(
            "JobInfo",
            element("Version", 200),
            element("Handle", job.handle),
            element("Name", job.name),
            element("Description", ""),
            element("Priority", job.priority),
            element("User", job.user),
            element("Computer", job.computer),
            element("LastUpdated", stamp(time.time())),
            element("Submitted", stamp(job.submitted)),
            element("Started", stamp(job.started)),
            element("Ended", stamp(job.ended)),
            element("NumberTasks", len(job.frames)),
            element("TasksCompleted", len(job.finished)),
            element("Encoding", "UTF-8"),
        ),
        element("JobFlags", *(element(name, "Yes" if _flag(job, name) else "No") for name in _FLAGS)),
        element("Output", element("Name", job.output)),
        element("JobPlugin", element("Name", "3dsmax"), element("Version", 2026)),
        element(
            "JobAlerts",
            element("Enabled", 0),
            *(element(name, "No") for name in ("Failure", "Progress", "Completion")),
            element("NthTask", 0),
            *(element(name, "No") for name in ("SendEmail", "IncludeSummary")),
            *(element(name, "") for name in ("From", "To", "Server")),
        ),
        element(
            "JobServers",
            *(
                element(
                    "JobServer",
                    element("Handle", server),
                    element("Active", "Yes" if server in job.assigned.values() else "No"),
                    element("TaskTime", job.seconds),
                    element("TaskTotal", list(job.assigned.values()).count(server)),
                    element("ContextSwitch", 0),
                    element("Failed", "Yes" if server in job.failures else "No"),
                )
                for server in servers
            ),
        ),
    )


def _flag(job: Job, name: str) -> bool:
    return {"Active": not job.suspended, "Complete": job.state == COMPLETE}.get(name, False)


def save(files: Files, job: Job) -> None:
    """Write the job's folder. FILE_ERRORS pass through."""
    root = info(job)
    root.append(
        element(
            "Tasks",
            element("First", job.first),
            element("Last", job.last),
            element("Seconds", job.seconds),
            element("Finished", " ".join(str(frame) for frame in sorted(job.finished))),
            element("SubmittedAt", job.submitted),
            element("Command", json.dumps(job.command)),
        )
    )
    files.make_directory(job.folder)
    files.write_bytes(f"{job.folder}\\{job.handle:08X}.xml", ElementTree.tostring(root, "UTF-8", xml_declaration=True))


def load(files: Files) -> Iterator[Job]:
    """The jobs of the ``Jobs`` folder. JobError names a folder whose XML cannot be read."""
    if not files.exists(JOBS_FOLDER):
        return
    for name in files.names(JOBS_FOLDER):
        match = _FOLDER.fullmatch(name)
        if match is None:
            continue
        path = f"{JOBS_FOLDER}\\{name}\\{match[1]}.xml"
        try:
            root = ElementTree.fromstring(files.read_bytes(path))
            job = new_job(
                int(match[1], 16),
                {
                    "name": match[2],
                    "first": root.findtext("Tasks/First"),
                    "last": root.findtext("Tasks/Last"),
                    "seconds": root.findtext("Tasks/Seconds"),
                    "output": root.findtext("Output/Name"),
                    "priority": root.findtext("JobInfo/Priority"),
                    "user": root.findtext("JobInfo/User"),
                    "computer": root.findtext("JobInfo/Computer"),
                    "command": json.loads(root.findtext("Tasks/Command", "[]")),
                },
            )
            job.suspended = root.findtext("JobFlags/Active") == "No"
            job.submitted = float(root.findtext("Tasks/SubmittedAt", ""))
            job.finished = {int(frame) for frame in root.findtext("Tasks/Finished", "").split()}
        except (ElementTree.ParseError, ValueError, JobError) as error:
            raise JobError(f"{path} cannot be read ({error}); delete the folder to drop the job") from error
        yield job


def by_priority(jobs: Iterable[Job]) -> list[Job]:
    """Jobs that want servers: lowest number first (0 is the highest priority), then the oldest."""
    return sorted((job for job in jobs if job.state in (WAITING, JOB_BUSY)), key=lambda job: (job.priority, job.handle))
