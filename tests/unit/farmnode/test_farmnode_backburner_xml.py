"""backburner.xml on the disk: found, edited, written so that it is never half."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from farmnode_fakes import BUILDER, ENCODINGS, NODE, SAMPLE, Bench, encoded

from farmnode import backburner_xml, files
from farmnode.errors import FarmNodeError

WANTED = {
    "ManagerName": "10.0.0.10",
    "ManagerPort": "3234",
    "ServerPort": "3233",
    "ServerName": NODE.name,
    "NetworkMask": "255.255.254.0",
}


PROGRAM = "Program Files (x86)/Autodesk/Backburner/Network/backburner.xml"


def place(bench: Bench, path: str, age: int) -> Path:
    """A file whose last change was ``age`` seconds after 1970."""
    made = bench.drive / path
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(SAMPLE)
    os.utime(made, (age, age))
    return made


def profile(path: str) -> str:
    return f"{path}/AppData/Local/backburner/backburner.xml"


def test_without_an_account_the_newest_file_wins(bench: Bench) -> None:
    old, user = place(bench, PROGRAM, 1000), place(bench, profile("Users/render"), 1002)
    os.utime(bench.file, (1001, 1001))
    assert backburner_xml.find().path == user
    os.utime(bench.file, (2000, 2000))
    assert backburner_xml.find().path == bench.file
    os.utime(user, (2000, 2000))
    choice = backburner_xml.find()
    assert choice.path == bench.file, "the service account comes first"
    assert choice.others == (user, old)
    assert str(choice) == (
        r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner\backburner.xml, the newest (there are also "
        r"C:\Users\render\AppData\Local\backburner\backburner.xml, "
        r"C:\Program Files (x86)\Autodesk\Backburner\Network\backburner.xml)"
    )


@pytest.mark.parametrize(
    ("account", "own"),
    [
        (r"NT AUTHORITY\LocalService", ["Windows/ServiceProfiles/LocalService"]),
        (r"NT AUTHORITY\LOCAL SERVICE", ["Windows/ServiceProfiles/LocalService"]),
        (r"NT AUTHORITY\NetworkService", ["Windows/ServiceProfiles/NetworkService"]),
        ("LocalSystem", ["Windows/System32/config/systemprofile", "Windows/SysWOW64/config/systemprofile"]),
        (r".\render", ["Users/render", "Users/render.EC2AMAZ-BUILD01"]),
        ("Render@studio.local", ["Users/render", "Users/render.EC2AMAZ-BUILD01"]),
    ],
)
def test_a_services_account_has_the_file_that_its_service_reads(bench: Bench, account: str, own: list[str]) -> None:
    bench.file.unlink()
    newer = place(bench, profile("Users/artist"), 9000)
    made = [place(bench, profile(folder), 1000 + index) for index, folder in enumerate(own)]
    choice = backburner_xml.find(account)
    assert choice.path == made[-1] and choice.why == f"of {account}, whose services read it"
    assert set(choice.others) == {newer, *made[:-1]}
    for path in made:
        path.unlink()
    assert backburner_xml.find(account) == backburner_xml.Choice(newer, (), "the newest")


SWITCHES = [("1", "0"), ("true", "false"), ("TRUE", "FALSE"), ("Yes", "No"), (" on ", "off")]


@pytest.mark.parametrize("name", ["AutomaticSearch", "AutoSearch", "useautosearch"])
@pytest.mark.parametrize(("was", "now"), SWITCHES)
def test_automatic_search_is_switched_off_in_its_own_notation(bench: Bench, name: str, was: str, now: str) -> None:
    text = SAMPLE.replace("<ServerName>", f"<{name} a='1'>{was}</{name}><ServerName>")
    bench.put(text)
    change = backburner_xml.edit(bench.file, [], None, {"ManagerName": "localhost"})
    assert change.after == text.replace(f">{was}</{name}>", f">{now}</{name}>")
    assert change.changes == {name: (was.strip(), now)}
    backburner_xml.write(change)
    assert not backburner_xml.edit(bench.file, [], None, {"ManagerName": "localhost"}).changed
    bench.put(text)
    assert not backburner_xml.edit(bench.file, [], None, {}).changed, "only with a manager"


@pytest.mark.parametrize("content", ["", "2", "perhaps", "1<!-- on -->"])
def test_a_switch_that_is_none_is_refused(bench: Bench, content: str) -> None:
    bench.put(SAMPLE.replace("<ServerName>", f"<AutomaticSearch>{content}</AutomaticSearch><ServerName>"))
    with pytest.raises(FarmNodeError, match=r"AutomaticSearch of .* is no switch that is known \(1, true, yes, on"):
        backburner_xml.edit(bench.file, [], None, {"ManagerName": "localhost"})


def test_no_file_names_every_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.file.unlink()
    monkeypatch.delenv("ProgramFiles(x86)")
    with pytest.raises(FarmNodeError) as caught:
        backburner_xml.find()
    assert caught.value.reason == "missing_file"
    assert r"C:\Windows\ServiceProfiles\LocalService\AppData\Local\backburner\backburner.xml" in caught.value.message
    assert r"C:\Program Files\Autodesk\Backburner\Network\backburner.xml" in caught.value.message
    assert "(x86)" not in caught.value.message


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_edit_and_write_in_every_encoding(bench: Bench, encoding: str) -> None:
    before = bench.put(encoding=encoding)
    change = backburner_xml.edit(bench.file, [BUILDER], NODE, WANTED)
    assert change.changed
    assert change.replaced == 10
    assert change.changes == {
        "ManagerName": ("localhost", "10.0.0.10"),
        "ServerName": ("ec2amaz-build01", "ip-10-0-0-21"),
        "NetworkMask": ("255.255.255.0", "255.255.254.0"),
    }
    backup = backburner_xml.write(change)
    assert backup.read_bytes() == before
    assert sorted(path.name for path in bench.file.parent.iterdir()) == ["backburner.xml", "backburner.xml.bak"]
    mark, codec = ENCODINGS[encoding]
    text = bench.file.read_bytes().removeprefix(mark).decode(codec)
    assert "06:aa" not in text.lower() and "<ManagerName>10.0.0.10</ManagerName>\r\n" in text
    again = backburner_xml.edit(bench.file, [BUILDER], NODE, WANTED)
    assert not again.changed and not again.changes


@pytest.mark.parametrize("name", backburner_xml.ELEMENTS)
def test_each_element_must_be_there(bench: Bench, name: str) -> None:
    bench.put(SAMPLE.replace(f"<{name}>", "<Other>").replace(f"</{name}>", "</Other>"))
    with pytest.raises(FarmNodeError, match=f"backburner.xml lacks {name}") as caught:
        backburner_xml.edit(bench.file, [], None, {})
    assert caught.value.reason == "missing_element"


def test_missing_and_unreadable_files(bench: Bench) -> None:
    with pytest.raises(FarmNodeError, match=r"C:\\none.xml does not exist"):
        backburner_xml.read(bench.drive / "none.xml")
    with pytest.raises(FarmNodeError, match=r"cannot read C:\\Windows: Is a directory"):
        backburner_xml.read(bench.drive / "Windows")
    with pytest.raises(FarmNodeError, match=r"C:\\none.xml does not exist"):
        backburner_xml.require_writable(bench.drive / "none.xml")


def test_a_read_only_file_stays(bench: Bench) -> None:
    before = bench.file.read_bytes()
    change = backburner_xml.edit(bench.file, [BUILDER], NODE, WANTED)
    bench.file.chmod(0o444)
    with pytest.raises(FarmNodeError, match=r"backburner.xml is read-only. Clear the flag") as caught:
        backburner_xml.write(change)
    assert caught.value.reason == "unwritable_file"
    assert bench.file.read_bytes() == before and len(list(bench.file.parent.iterdir())) == 1


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_leaves_the_old_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: int, number: int
) -> None:
    before = bench.file.read_bytes()
    change = backburner_xml.edit(bench.file, [BUILDER], NODE, WANTED)
    calls = 0

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(FarmNodeError) as caught:
        backburner_xml.write(change)
    assert caught.value.reason == ("disk_full" if number == errno.ENOSPC else "unwritable_file")
    assert r"C:\Windows\ServiceProfiles" in caught.value.message
    assert bench.file.read_bytes() == before
    assert [path.name for path in bench.file.parent.iterdir()] == ["backburner.xml"]


def test_a_file_that_is_held_open_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bench.file.read_bytes()
    change = backburner_xml.edit(bench.file, [BUILDER], NODE, WANTED)

    def refused(self: Path, target: Path) -> Any:
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(FarmNodeError, match="no program holds the file open"):
        backburner_xml.write(change)
    assert bench.file.read_bytes() == before
    assert [path.name for path in bench.file.parent.iterdir()] == ["backburner.xml"]


def test_one_backup_is_kept(bench: Bench) -> None:
    for manager in ("10.0.0.11", "10.0.0.12"):
        before = bench.file.read_bytes()
        backup = backburner_xml.write(backburner_xml.edit(bench.file, [], None, WANTED | {"ManagerName": manager}))
        assert backup.read_bytes() == before


@pytest.fixture
def small_disk(bench: Bench) -> Iterator[Path]:
    place = bench.file.parent
    bench.file.unlink()
    options = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True, check=False).returncode != 0:
        pytest.skip("a disk of 128 KiB needs root and the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(bench: Bench, small_disk: Path) -> None:
    before = bench.put(SAMPLE.replace("so on", "x" * 20_000))
    filler = small_disk / "filler"
    change = backburner_xml.edit(bench.file, [BUILDER], NODE, WANTED)
    with filler.open("wb") as file:
        file.write(b"x" * 60_000)
    with pytest.raises(
        FarmNodeError, match=r"no room on the disk to write C:\\Windows.*; the file is as it was"
    ) as caught:
        backburner_xml.write(change)
    assert caught.value.reason == "disk_full"
    assert bench.file.read_bytes() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["backburner.xml", "filler"]
    filler.unlink()
    backburner_xml.write(change)
    assert bench.file.read_bytes() != before


def test_files_write_says_what_is_in_the_way(drive: Path) -> None:
    (drive / "ProgramData").write_text("a file")
    with pytest.raises(FarmNodeError, match=r"cannot write C:\\ProgramData\\RenderFarm\\state.json"):
        files.write(drive / "ProgramData" / "RenderFarm" / "state.json", b"")


def test_encoded_helper_declares_what_it_writes() -> None:
    assert b'encoding="iso-8859-1"' in encoded(SAMPLE, "latin-1")
