"""robocopy.exe from a folder to a share, and the repetition of the task that runs it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from windows_bench import Bench

from rehearsal.windows import smb
from rehearsal.windows.accounts import User
from rehearsal.windows.errors import WindowsError
from rehearsal.windows.tasks import DEFAULT_SETTINGS

OPTIONS = ["/E", "/XO", "/XJ", "/Z", "/R:2", "/W:0", "/NP", "/NDL", "/BYTES", r"/UNILOG:C:\log.txt"]
SOURCE, DESTINATION = r"C:\Projects", r"Y:\Projects"


@pytest.fixture
def share(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    r"""``C:\Farm`` of the same host is shared and mapped to Y:. What is put into the list is the next errors."""
    host, errors = bench.host, []
    for folder in (r"C:\Farm", rf"{SOURCE}\shots\a"):
        host.files.make_directory(folder)
    access = [{"account": "MACHINE\\renderfarm", "type": "Allow", "right": "Change"}]
    host.shares["farm"] = {"name": "farm", "path": r"C:\Farm", "access": access}
    host.accounts.users["renderfarm"] = User("renderfarm", 1100, "secret-of-12")

    async def ask(self: smb.Client, mapping: smb.Mapping, do: str, path: str, **more: object) -> dict[str, Any]:
        if do == "write" and errors:
            raise WindowsError(errors.pop(0))
        login = {"user": mapping.user, "password": mapping.password, "share": "farm"}
        return smb._answer(host, {"do": do, "path": path, **login, **more})

    monkeypatch.setattr(smb.Client, "_ask", ask)
    mapping = smb.Mapping(r"\\10.0.0.10\farm", "renderfarm", "secret-of-12")
    asyncio.run(host.network_files.map("Y:", mapping, persistent=False))
    host.files.write_bytes(rf"{SOURCE}\scene.max", b"one")
    host.files.write_bytes(rf"{SOURCE}\shots\a\big.max", b"x" * 100_000)
    return errors


def run(bench: Bench, *words: str) -> tuple[int, str]:
    """Its exit code, and its log or what it said."""
    done = asyncio.run(bench.host.run(["robocopy.exe", *(words or (SOURCE, DESTINATION, *OPTIONS))]))
    if b"Log File" not in done.stdout:
        return done.rc, (done.stdout + done.stderr).decode()
    return done.rc, bench.host.files.read_bytes(r"C:\log.txt").decode("utf-16")


def row(log: str, name: str) -> list[int]:
    [line] = [line for line in log.splitlines() if line.strip().startswith(f"{name} :")]
    return [int(word) for word in line.partition(":")[2].split()]


def test_what_is_new_is_copied_and_then_nothing(bench: Bench, share: list[int]) -> None:
    rc, log = run(bench)
    assert (rc, row(log, "Dirs"), row(log, "Files")) == (1, [3, 3, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0])
    assert row(log, "Bytes")[:2] == [100_003, 100_003]
    assert bench.host.files.read_bytes(r"C:\Farm\Projects\shots\a\big.max") == b"x" * 100_000
    rc, log = run(bench)
    assert (rc, row(log, "Files")) == (0, [2, 0, 2, 0, 0, 0])


def test_what_is_newer_or_only_there_stays(bench: Bench, share: list[int]) -> None:
    run(bench)
    files = bench.host.files
    files.write_bytes(r"C:\Farm\Projects\shot0001.exr", b"frame")
    files.write_bytes(r"C:\Farm\Projects\scene.max", b"rendered later")
    files.set_times(r"C:\Farm\Projects\scene.max", written=files.entry(rf"{SOURCE}\scene.max").written + 60)
    rc, log = run(bench)
    assert (rc, row(log, "Files")) == (2, [2, 0, 2, 0, 0, 1]) and "*EXTRA File" in log
    assert files.read_bytes(r"C:\Farm\Projects\scene.max") == b"rendered later"
    files.set_times(rf"{SOURCE}\scene.max", written=files.entry(r"C:\Farm\Projects\scene.max").written + 60)
    assert run(bench)[0] == 3 and files.read_bytes(r"C:\Farm\Projects\scene.max") == b"one"


def test_a_file_that_fails_is_tried_again_then_counted(bench: Bench, share: list[int]) -> None:
    share += [64, 64]
    rc, log = run(bench)
    assert (rc, row(log, "Files")[4]) == (1, 0) and log.count("Retrying") == 2
    bench.host.files.write_bytes(rf"{SOURCE}\new.max", b"two")
    share += [64, 64, 64]
    rc, log = run(bench)
    assert (rc, row(log, "Files")) == (8, [3, 0, 2, 0, 1, 0]) and "RETRY LIMIT EXCEEDED" in log
    assert run(bench)[0] == 1, "the next run takes it up"


def test_a_piece_of_a_file_is_taken_for_an_older_one(bench: Bench, share: list[int]) -> None:
    run(bench)
    bench.host.files.write_bytes(r"C:\Farm\Projects\shots\a\big.max", b"x" * 50_000)
    bench.host.files.set_times(r"C:\Farm\Projects\shots\a\big.max", written=0.0)
    assert run(bench)[0] == 1
    assert len(bench.host.files.read_bytes(r"C:\Farm\Projects\shots\a\big.max")) == 100_000


def test_a_file_where_a_folder_is_does_not_match(bench: Bench, share: list[int]) -> None:
    bench.host.files.make_directory(r"C:\Farm\Projects\scene.max")
    rc, log = run(bench)
    assert (rc, row(log, "Files")) == (5, [2, 1, 0, 1, 0, 0])


@pytest.mark.parametrize(("source", "drive"), [(r"C:\none", "Y:"), (SOURCE, "X:")])
def test_a_place_that_is_not_there_is_fatal(bench: Bench, share: list[int], source: str, drive: str) -> None:
    rc, log = run(bench, source, rf"{drive}\Projects", *OPTIONS)
    assert rc == 16 and "ERROR " in log


@pytest.mark.parametrize(
    "words",
    [
        (SOURCE, DESTINATION),
        (SOURCE, DESTINATION, *OPTIONS, "/MIR"),
        (SOURCE, DESTINATION, *OPTIONS[1:]),
        (SOURCE, DESTINATION, *[word for word in OPTIONS if word != "/R:2"]),
        (DESTINATION, SOURCE, *OPTIONS),
        (SOURCE, r"C:\elsewhere", *OPTIONS),
    ],
)
def test_other_forms_are_not_modelled(bench: Bench, share: list[int], words: tuple[str, ...]) -> None:
    rc, text = run(bench, *words)
    assert rc == 16 and text.startswith("rehearsal: robocopy.exe")


# --------------------------------------------------------------------------------------------------- the repetition


def definition(**repetition: str) -> dict[str, Any]:
    return {
        "actions": [{"path": "hostname.exe"}],
        "triggers": [{"type": "registration", "repetition": repetition}],
        "principal": {"user_sid": "S-1-5-18"},
        "settings": DEFAULT_SETTINGS,
        "registration": {},
    }


def test_a_task_repeats_until_it_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, started = bench.host.tasks, []
    monkeypatch.setattr(tasks, "start", lambda path, delay=0: started.append(path))
    bench.host.powered = True

    async def scenario() -> None:
        tasks.register("\\copy", definition(interval="PT0.01S"))
        await asyncio.sleep(0.1)
        assert len(started) > 2
        tasks.register("\\COPY", definition())
        started.clear()
        await asyncio.sleep(0.05)
        assert started == []
        tasks.register("\\copy", definition(interval="PT0.01S", duration="PT1H"))
        tasks.delete("\\copy")

    asyncio.run(scenario())
    assert "never repeats" in (bench.host.root / "machine.log").read_text()
