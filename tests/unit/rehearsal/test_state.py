"""The folder of a rehearsal and the socket in it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rehearsal import control
from rehearsal.interfaces import RehearsalError
from rehearsal.state import Folder, write_atomically


def prepared(path: Path) -> Folder:
    folder = Folder(path)
    folder.prepare()
    return folder


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RehearsalError, match="its contents would be lost"):
        Folder(tmp_path).prepare()
    with pytest.raises(RehearsalError, match="is a file"):
        Folder(tmp_path / "thesis.txt").prepare()


def test_only_one_holds_a_folder(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    assert not first.held()
    first.hold()
    assert Folder(tmp_path).held()
    with pytest.raises(RehearsalError, match=r"up in .* already"):
        Folder(tmp_path).hold()
    assert first._lock is not None
    os.close(first._lock)
    assert not Folder(tmp_path).held()


def test_clear_removes_only_what_a_rehearsal_makes(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    (tmp_path / "machines/m/c").mkdir(parents=True)
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "rehearsal.lock"}


def test_state_is_replaced_as_a_whole_and_only_when_it_changed(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    folder.write_state({"machines": []})
    first = (tmp_path / "state.json").stat().st_ino
    folder.write_state({"machines": []})
    assert (tmp_path / "state.json").stat().st_ino == first
    folder.write_state({"machines": [1]})
    assert json.loads((tmp_path / "state.json").read_text()) == {"machines": [1]}
    assert not (tmp_path / ".state.json.new").exists()


def test_secrets_are_written_for_the_owner_only(tmp_path: Path) -> None:
    write_atomically(tmp_path / "s", "secret", mode=0o600)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_stale_state_is_not_shown(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    folder.write_state({"machines": []})
    with pytest.raises(control.NotUp):
        folder.read_state()


def test_requests_and_refusals_over_a_long_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "fail":
            raise RehearsalError("not that")
        return {"echo": request}

    started, ended = threading.Event(), threading.Event()

    async def run() -> None:
        server = await control.serve(deep, answer)
        started.set()
        while not ended.is_set():
            await asyncio.sleep(0.01)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(5)
        assert (deep / "control.sock").stat().st_mode & 0o777 == 0o600
        assert control.call(deep, {"do": "x"}) == {"echo": {"do": "x"}}
        assert control.daemon_pid(deep) == os.getpid()
        with pytest.raises(RehearsalError, match="not that"):
            control.call(deep, {"do": "fail"})
    finally:
        ended.set()
        thread.join()
    with pytest.raises(control.NotUp):
        control.call(deep, {"do": "x"})
