"""A machine that loses its power at any moment of its boot comes up right at the next one.

Each boot runs in a process of its own that ends without a word (``os._exit``) right after one of the things that it
does to the world: a program of Windows, a file opened for writing, a file moved into place.  What is left is what a
disk keeps.  The next boot must end ready, with the right file, and leave nothing behind.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import BUILDER, FARM, LAN, NODE, SAMPLE, TUNNEL, Bench, instance

from farmnode import files, manager
from farmnode.boot import Boot
from farmnode.manager import Server
from farmnode.services import SERVER

CUT = 77


def boot(bench: Bench) -> dict[str, Any]:
    return Boot(bench.machine).run()


def until_the_power_goes(bench: Bench, patch: pytest.MonkeyPatch, moment: int) -> bool:
    """Boot in a process whose power goes at ``moment`` (counted from 1); False when it was over before that."""
    kept = bench.drive.parent / "kept"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests may have left something
        child = os.fork()
    if child == 0:
        try:
            count_down(bench, patch, moment, kept)
            boot(bench)
            os._exit(0)
        finally:
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, CUT)
    if ended == CUT:  # the registry is on the disk; what ran, and routes that are not persistent, is not
        bench.windows.persistent = pickle.loads(kept.read_bytes())
        bench.windows.active = set(bench.windows.persistent)
    return ended == CUT


def count_down(bench: Bench, patch: pytest.MonkeyPatch, moment: int, kept: Path) -> None:
    left = [moment]

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            kept.write_bytes(pickle.dumps(bench.windows.persistent))
            os._exit(CUT)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = real(*arguments, **options)
            tick()
            return answer

        return call

    patch.setattr(bench.windows, "run", watched(bench.windows.run))
    patch.setattr(files, "move", watched(files.move))
    real_open = Path.open

    def opened(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = real_open(path, mode, *more, **options)
        if "b" in mode and mode != "rb":
            tick()  # it is there, and empty
        return file

    patch.setattr(Path, "open", opened)


@pytest.fixture
def farm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench.metadata.answer = instance(FARM % ("render_node", ""))
    monkeypatch.setattr(manager, "listens", lambda *_, **__: True)
    monkeypatch.setattr(manager, "servers", lambda *_, **__: [Server(NODE.handle, "idle", NODE.name)])
    return bench


def test_power_goes_at_every_moment(farm: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = farm.put(encoding="utf-16 little")
    whole = before, right_file(farm)
    moment = 0
    while True:
        moment += 1
        restore(farm, before)
        with monkeypatch.context() as patch:
            if not until_the_power_goes(farm, patch, moment):
                break
        assert farm.file.read_bytes() in whole, f"half a file after moment {moment}"
        farm.windows.services[SERVER].state = 1
        event = boot(farm)
        assert event["event"] == "ready", f"moment {moment}: {event}"
        assert farm.file.read_bytes() == whole[1]
        assert farm.windows.persistent == farm.windows.active == {LAN, TUNNEL} == farm.machine.state.routes()
        assert not list(farm.drive.rglob("*.renderfarm"))
    assert moment > 30, "every program and every file counts"


def right_file(farm: Bench) -> bytes:
    before = farm.file.read_bytes()
    boot(farm)
    after = farm.file.read_bytes()
    assert after != before
    return after


def restore(farm: Bench, before: bytes) -> None:
    """The disk of a machine that never booted."""
    for path in (*farm.machine.folder.iterdir(), *farm.file.parent.iterdir()):
        path.unlink()
    farm.file.write_bytes(before)
    farm.machine.state.remember_image(BUILDER)
    farm.windows.persistent, farm.windows.active = set(), set()
    farm.windows.services[SERVER].state = 1
    farm.windows.serial.clear()


def test_power_goes_while_backburner_makes_its_file(farm: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(words: list[str]) -> None:
        if words[:3] == ["sc.exe", "start", SERVER] and not farm.file.exists():
            farm.file.parent.mkdir(parents=True, exist_ok=True)
            new = os.open(farm.file, os.O_WRONLY | os.O_CREAT)  # whole or not at all
            os.write(new, SAMPLE.encode())
            os.close(new)

    farm.windows.on_call = writes
    moment = 0
    while True:
        moment += 1
        restore(farm, b"")
        farm.file.unlink()
        with monkeypatch.context() as patch:
            if not until_the_power_goes(farm, patch, moment):
                break
        farm.windows.services[SERVER].state = 1
        assert boot(farm)["event"] == "ready", f"moment {moment}"
        assert f"<ServerName>{NODE.name}<" in farm.file.read_text("utf-8")
