"""A machine that loses its power at any moment of its boot comes up right at the next one.

Each boot runs in a process of its own that ends without a word (``os._exit``) right after one of the things that it
does to the world: a program of Windows, a file opened for writing, a file moved into place.  What is left is what a
disk keeps.  The next boot must end ready, with the right file, and leave nothing behind.
"""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import BUILDER, FARM, LAN, NODE, SAMPLE, TUNNEL, Bench, instance

from farmnode import drives, files, manager
from farmnode.boot import Boot
from farmnode.identity import Identity
from farmnode.manager import Server
from farmnode.powershell import POWERSHELL
from farmnode.programs import Completed
from farmnode.routes import Route
from farmnode.services import MANAGER, SERVER

CUT = 77
SHARE = json.dumps({"unc": r"\\10.0.0.10\farm", "drive": "F:", "port": 3240, "certificate": "-----BEGIN"})


@dataclass(frozen=True)
class Role:
    """A machine of the farm: what it is told, what it is, and what its phases do beside the file."""

    name: str
    phases: tuple[str, ...]
    identity: Identity = NODE
    service: str = SERVER
    routes: frozenset[Route] = frozenset()
    tunnel: str | None = None

    @property
    def user_data(self) -> str:
        told = FARM % (self.name, f',"share":{SHARE}')
        return told.replace('"tunnel":', '"remote":"10.9.0.0/24","tunnel":') if self.tunnel else told

    @property
    def server_name(self) -> str:
        return self.tunnel or self.identity.name


ROLES = [
    Role(
        "render_node",
        ("metadata", "role", "identity", "routes", "drives", "manager", "services", "registration"),
        routes=frozenset({LAN, TUNNEL}),
    ),
    Role(
        "remote_node",
        ("metadata", "role", "tunnel", "identity", "drives", "manager", "services", "registration"),
        tunnel="10.9.0.2",
    ),
    Role(
        "manager",
        ("metadata", "role", "identity", "services", "manager"),
        identity=Identity("06:00:00:00:00:10", "ip-10-0-0-10", "10.0.0.10"),
        service=MANAGER,
    ),
]


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
    monkeypatch.setattr(manager, "listens", lambda *_, **__: True)
    monkeypatch.setattr(manager, "servers", lambda *_, **__: [Server(NODE.handle, "idle", NODE.name)])
    monkeypatch.setattr(drives, "fetch", lambda _share: ("renderfarm", "secret"))
    bench.windows.answers[(POWERSHELL,)] = Completed(0, "", "")
    become(bench, ROLES[0])
    return bench


def become(bench: Bench, role: Role) -> None:
    bench.metadata.answer = instance(role.user_data, identity=role.identity)
    bench.windows.tunnel = role.tunnel


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_power_goes_at_every_moment(farm: Bench, monkeypatch: pytest.MonkeyPatch, role: Role) -> None:
    become(farm, role)
    before = farm.put(encoding="utf-16 little")
    whole = before, right_file(farm, role)
    moment, seen = 0, set()
    while True:
        moment += 1
        restore(farm, before)
        with monkeypatch.context() as patch:
            if not until_the_power_goes(farm, patch, moment):
                break
        seen.add(farm.machine.state.load().get("boot", {}).get("phase"))
        assert farm.file.read_bytes() in whole, f"half a file after moment {moment}"
        farm.windows.services[role.service].state = 1
        farm.windows.calls.clear()
        event = boot(farm)
        assert event["event"] == "ready", f"moment {moment}: {event}"
        assert farm.file.read_bytes() == whole[1]
        assert farm.windows.persistent == farm.windows.active == role.routes == farm.machine.state.routes()
        assert farm.windows.services[role.service].state == 4
        assert bool(farm.windows.called(POWERSHELL)) == ("drives" in role.phases), (
            "a mapping lasts until the power goes"
        )
        assert not list(farm.drive.rglob("*.renderfarm"))
    assert seen == {None, *role.phases}, "each phase was cut"
    assert moment > 4 * len(role.phases), "every program and every file counts"


def right_file(farm: Bench, role: Role) -> bytes:
    before = farm.file.read_bytes()
    assert boot(farm)["event"] == "ready"
    boots = farm.machine.state.load()["boot"]["phases"]
    assert [(phase["name"], phase["outcome"]) for phase in boots] == [(name, "done") for name in role.phases]
    after = farm.file.read_bytes()
    assert after != before and f"<ServerName>{role.server_name}<" in after.decode("utf-16")
    return after


def restore(farm: Bench, before: bytes) -> None:
    """The disk of a machine that never booted."""
    for path in (*farm.machine.folder.iterdir(), *farm.file.parent.iterdir()):
        path.unlink()
    farm.file.write_bytes(before)
    farm.machine.state.remember_image(BUILDER)
    farm.windows.persistent, farm.windows.active = set(), set()
    for service in farm.windows.services.values():
        service.state = 1
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
