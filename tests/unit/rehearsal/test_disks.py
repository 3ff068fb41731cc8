"""Disks are copied as a whole or not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rehearsal import disks
from rehearsal.interfaces import RehearsalError


def disk(folder: Path) -> Path:
    (folder / "c/Windows").mkdir(parents=True)
    (folder / "c/Windows/x.txt").write_text("x")
    (folder / "host.json").write_text("{}")
    (folder / "machine.log").write_text("log")
    return folder


def test_clone_takes_the_disk_and_not_the_logs(tmp_path: Path) -> None:
    asyncio.run(disks.clone(disk(tmp_path / "a"), tmp_path / "b"))
    assert (tmp_path / "b/c/Windows/x.txt").read_text() == "x"
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"c", "host.json"}


def test_a_clone_that_fails_leaves_nothing(tmp_path: Path) -> None:
    source = disk(tmp_path / "a")
    (source / "host.json").unlink()
    with pytest.raises(RehearsalError, match="cannot be copied"):
        asyncio.run(disks.clone(source, tmp_path / "b"))
    assert list((tmp_path / "b").iterdir()) == []


def test_make_appears_only_complete(tmp_path: Path) -> None:
    def broken(target: Path) -> None:
        (target / "c").mkdir()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        disks.make(broken, tmp_path / "ami-1")
    assert not (tmp_path / "ami-1").exists()
    disks.make(lambda target: (target / "c").mkdir(), tmp_path / "ami-1")
    assert (tmp_path / "ami-1/c").is_dir()


def test_logs_outlive_the_machine(tmp_path: Path) -> None:
    disks.keep_logs(disk(tmp_path / "a"), tmp_path / "kept")
    assert not (tmp_path / "a").exists()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["machine.log"]
