"""A rehearsal as a user has it: playbooks and commands run inside it, and what they did is written down."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

PLAYBOOK_SECONDS = 900  # longer than any playbook takes with a hundred nodes on two cores


class ProofError(Exception):
    """A promise does not hold. The text says which, what was expected and what was found."""


def end_orderly(stop: Callable[[int], NoReturn]) -> None:
    """From now on SIGTERM and SIGHUP call ``stop``, which raises, so that ``finally`` ends the rehearsal.

    Only the first one does: another one must not cut short what it began. The kernel would end this process at once
    (signal(7)), and leave a rehearsal standing that nobody uses.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP)

    def received(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        stop(number)

    for number in numbers:
        signal.signal(number, received)


@dataclass
class Step:
    """One playbook run: how long it took, what it asked of AWS, what Ansible says it did."""

    name: str
    seconds: float
    cpu: float  # seconds of ansible-playbook and everything that it started on the controller
    calls: int
    changes: list[str]
    recap: dict[str, dict[str, int]]
    trips: dict[str, int]  # machine -> commands that it was given over WinRM
    log: Path

    @property
    def changed(self) -> int:
        return sum(host["changed"] for host in self.recap.values())


def parse_recap(output: str) -> dict[str, dict[str, int]]:
    """Read the ``PLAY RECAP`` of ansible-playbook: host -> counter -> number.

    :raises ProofError: the output has no recap, so the playbook did not run to its end.
    """
    _, found, recap = output.rpartition("PLAY RECAP")
    if not found:
        raise ProofError("ansible-playbook ended without its recap")
    return {
        host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counters)}
        for host, counters in re.findall(r"^(\S+)\s+: (ok=.*)$", recap, re.MULTILINE)
    }


class Rehearsal:
    """A rehearsal in its folder, as the user's commands see it."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self._inside = [sys.executable, "-m", "rehearsal", "exec", "--dir", str(folder)]
        self.seen: dict[str, dict[str, Any]] = {}
        self.peak_kilobytes = 0
        self._count = 0

    # ------------------------------------------------------------------------------------------------- the other side

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def machines(self) -> list[dict[str, Any]]:
        machines: list[dict[str, Any]] = self.state()["machines"]
        return machines

    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "cloud.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def sample(self) -> None:
        """Remember every machine that is there now, and the most memory that rehearsal and playbook held together."""
        state = self.state()
        for machine in state["machines"]:
            known = {name: value for name, value in machine.items() if value is not None}
            self.seen.setdefault(machine["instance_id"] or machine["name"], {}).update(known)
        self.peak_kilobytes = max(self.peak_kilobytes, memory_of({os.getpid(), state["daemon_pid"]}))

    # ------------------------------------------------------------------------------------------------ the user's side

    def command(self, *arguments: str, on: str | None = None, timeout: float = 120.0) -> str:
        """Run a command of the user, on the controller or ``on`` another machine's network; returns what it printed.

        :raises ProofError: it failed; its error output is in the text.
        """
        place = ["--on", on] if on else []
        done = subprocess.run(
            [*self._inside, *place, "--", *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise ProofError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def aws(self, *arguments: str) -> Any:
        """What the AWS CLI answers, decoded."""
        return json.loads(self.command(_beside_python("aws"), *arguments, "--output", "json"))

    def playbook(self, name: str, *arguments: str, title: str | None = None) -> Step:
        """Run one playbook, show where it is, and return what it did.

        :raises ProofError: it failed; the end of its output is in the text and the whole of it in the log.
        """
        self._count += 1
        title = title or name
        log = self.folder / "logs" / f"{self._count:02d}-{Path(name).stem}.log"
        log.parent.mkdir(exist_ok=True)
        before, given = len(self.calls()), self._trips()
        started, spent = time.monotonic(), _children_cpu()
        with log.open("wb") as stream, self._watching(title, log):
            done = subprocess.run(
                [*self._inside, "--", _beside_python("ansible-playbook"), name, *arguments],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=PLAYBOOK_SECONDS,
                check=False,
            )
        seconds, cpu = time.monotonic() - started, _children_cpu() - spent
        output = log.read_text(errors="replace")
        if done.returncode:
            tail = "\n".join(output.splitlines()[-60:])
            raise ProofError(f"{name} ended with {done.returncode} (whole output: {log}):\n{tail}")
        calls = self.calls()[before:]
        step = Step(
            title,
            seconds,
            cpu,
            len(calls),
            [f"{call['service']}:{call['action']}" for call in calls if call["mutating"]],
            parse_recap(output),
            self._trips_since(given),
            log,
        )
        self.say(f"  {title}: {seconds:.0f} s, {step.calls} AWS calls ({len(step.changes)} of them change something)")
        return step

    def _trips(self) -> dict[str, int]:
        return {key: machine["winrm"]["commands"] for key, machine in self.seen.items() if "winrm" in machine}

    def _trips_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """Commands over WinRM since ``before``, by the names of machines; a new one may have the name of an old one."""
        trips: dict[str, int] = {}
        for key, count in self._trips().items():
            if count > before.get(key, 0):
                name = self.seen[key]["name"]
                trips[name] = trips.get(name, 0) + count - before.get(key, 0)
        return trips

    @contextmanager
    def _watching(self, title: str, log: Path) -> Iterator[None]:
        """Sample the machines each second meanwhile, and show the running task on a terminal."""
        ended = threading.Event()
        live = sys.stdout.isatty()
        started = time.monotonic()

        def watch() -> None:
            while not ended.wait(1.0):
                self.sample()
                if live:
                    tasks = re.findall(r"^(?:TASK|PLAY) \[(.*?)\]", log.read_text(errors="replace"), re.MULTILINE)
                    text = f"  {title}: {time.monotonic() - started:.0f} s  {tasks[-1] if tasks else ''}"
                    print(f"\r{text[:110]:<110}", end="", flush=True)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.sample()
            if live:
                print("\r" + " " * 112 + "\r", end="", flush=True)


@contextmanager
def rehearsing(folder: Path, say: Callable[[str], None]) -> Iterator[Rehearsal]:
    """A rehearsal that is up, and at the end down again, also when its start is broken off.

    :raises subprocess.CalledProcessError: it does not start or does not end; its own words are on stderr.
    """

    def command(name: str) -> None:
        subprocess.run([sys.executable, "-m", "rehearsal", name, "--dir", str(folder)], check=True, timeout=120)

    try:
        command("up")
        yield Rehearsal(folder, say)
    finally:
        command("down")


def memory_of(roots: set[int]) -> int:
    """KiB of memory that ``roots`` and all of their descendants hold, each page once (``Pss`` of proc(5))."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    family = set(roots)
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    total = 0
    for pid in family:
        try:
            match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(match[1]) if match else 0
    return total


def _children_cpu() -> float:
    """CPU seconds (user and system) of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _beside_python(program: str) -> str:
    return str(Path(sys.executable).parent / program)


def expect(condition: bool, text: str) -> None:
    """ProofError with ``text`` unless the condition holds."""
    if not condition:
        raise ProofError(text)
