"""win_ping, setup, win_stat, win_file, win_copy, slurp, win_command, win_get_url, win_unzip, unknown modules."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from windows_bench import Answer, Bench

from rehearsal.winrm import specs

Run = Callable[[Any], Any]


def test_a_module_without_a_stand_in_fails_and_names_itself(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        result = await bench.module("win_feature", name="Web-Server")
        assert result["failed"] and result["msg"].startswith(
            "rehearsal: no stand-in for module ansible.windows.win_feature; use one that docs/rehearsal/windows.md"
        )
        assert "win_feature" in bench.log

    run(scenario)


def test_arguments_are_checked_as_the_modules_do(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        wrong = await bench.module("win_service", nam="x")
        assert wrong["failed"] and "Unsupported parameters for" in wrong["msg"]
        choice = await bench.module("win_service", name="WinRM", state="runing")
        assert choice["failed"] and "value of state must be one of" in choice["msg"]
        legacy = await bench.module("win_share", name="x", state="gone")
        assert legacy["failed"] and "state" in legacy["msg"]

    run(scenario)


def test_ping_and_facts(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        assert (await bench.module("win_ping"))["ping"] == "pong"
        assert (await bench.module("win_ping", data="crash"))["failed"]
        facts = (await bench.module("setup"))["ansible_facts"]
        assert facts["ansible_os_family"] == "Windows"
        assert facts["ansible_ip_addresses"] == ["10.0.0.21"]
        assert facts["ansible_hostname"] == bench.host.computer_name
        assert facts["ansible_interfaces"][0]["macaddress"] == "02:1A:2B:3C:4D:5E"

    run(scenario)


def test_win_file(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        path = "%ProgramData%\\Farm\\logs"
        assert (await bench.module("win_file", path=path, state="directory", check=True))["changed"]
        assert not bench.host.files.exists("C:\\ProgramData\\Farm")
        assert (await bench.module("win_file", path=path, state="directory"))["changed"]
        assert not (await bench.module("win_file", path=path.upper(), state="directory"))["changed"]
        file = path + "\\f"
        missing = await bench.module("win_file", path=file, state="file")
        assert missing["failed"] and missing["msg"] == "path C:\\ProgramData\\Farm\\logs\\f will not be created"
        assert (await bench.module("win_file", path=file, state="touch"))["changed"]
        assert not (await bench.module("win_file", path=file, state="file"))["changed"]
        assert "is not a directory" in (await bench.module("win_file", path=file, state="directory"))["msg"]
        assert "is not a file" in (await bench.module("win_file", path=path, state="file"))["msg"]
        assert (await bench.module("win_file", path=path, state="absent"))["changed"]
        assert not (await bench.module("win_file", path=path, state="absent"))["changed"]
        nowhere = await bench.module("win_file", path="D:\\x", state="directory")
        assert nowhere["failed"] and "has the drive C: only" in nowhere["msg"]

    run(scenario)


@pytest.mark.skipif(
    "modification_time" not in specs.specification("ansible.windows.win_file").options,
    reason="the installed ansible.windows has no such option",
)
def test_win_file_stamps(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        file = "C:\\ProgramData\\f"
        stamped = await bench.module("win_file", path=file, state="touch", modification_time="2026-01-02 03:04:05")
        assert stamped["changed"]
        assert bench.host.files.entry(file).written == 1767323045
        bad = await bench.module("win_file", path=file, state="touch", modification_time="soon")
        assert bad["msg"] == "Invalid modification_time 'soon'"

    run(scenario)


def test_win_stat_and_slurp(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        files = bench.host.files
        assert (await bench.module("win_stat", path="C:\\none"))["stat"] == {"exists": False}
        files.write_bytes("C:\\Users\\Public\\Note.txt", b"hello")
        files.set_attributes("C:\\Users\\Public\\Note.txt", read_only=True, hidden=True)
        stat = (await bench.module("win_stat", path="c:\\users\\public\\NOTE.TXT", checksum_algorithm="sha256"))["stat"]
        assert stat["path"] == "C:\\Users\\Public\\Note.txt" and stat["size"] == 5 and stat["extension"] == ".txt"
        assert stat["checksum"] == hashlib.sha256(b"hello").hexdigest()
        assert stat["isreadonly"] and stat["ishidden"] and stat["isreg"] and not stat["isdir"]
        folder = (await bench.module("win_stat", path="C:\\Users\\Public"))["stat"]
        assert folder["isdir"] and folder["size"] == 5 and "checksum" not in folder
        assert base64.b64decode((await bench.module("slurp", src="C:\\Users\\Public\\Note.txt"))["content"]) == b"hello"
        assert (await bench.module("slurp", src="C:\\none"))["msg"] == "Path C:\\none is not found"
        assert (await bench.module("slurp", src="C:\\Users"))["msg"] == "Path C:\\Users is a directory"

    run(scenario)


def test_win_copy_as_its_action_calls_it(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        files = bench.host.files
        entry = {"src": "/controller/f.txt", "dest": "f.txt", "checksum": hashlib.sha1(b"new").hexdigest()}
        query: dict[str, Any] = {"_copy_mode": "query", "dest": "C:\\Farm", "files": [entry]}
        assert (await bench.module("win_copy", **query))["files"] == [entry]
        files.write_bytes("C:\\Windows\\Temp\\source", b"new")
        single = {"_copy_mode": "single", "src": "C:\\Windows\\Temp\\source", "_original_basename": "f.txt"}
        missing = await bench.module("win_copy", dest="C:\\Farm\\f.txt", **single)
        assert missing["msg"] == "Destination directory 'C:\\Farm' does not exist"
        files.make_directory("C:\\Farm")
        assert (await bench.module("win_copy", dest="C:\\Farm\\f.txt", **single))["changed"]
        again = await bench.module("win_copy", **query)
        assert again["files"] == [] and not again["changed"]
        files.write_bytes("C:\\Farm\\f.txt", b"old")
        assert (await bench.module("win_copy", **query))["files"] == [entry]
        assert (await bench.module("win_copy", **query, force=False))["files"] == []
        files.set_attributes("C:\\Farm\\f.txt", read_only=True)
        kept = await bench.module("win_copy", dest="C:\\Farm\\", backup=True, **single)
        assert files.read_bytes(kept["backup_file"]) == b"old"
        assert files.read_bytes("C:\\Farm\\f.txt") == b"new"
        assert "ReadOnly" in files.entry("C:\\Farm\\f.txt").attributes

    run(scenario)


def test_win_copy_unpacks_what_its_action_packs(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(base64.b64encode(b"sub/").decode() + "/", b"")
            archive.writestr(base64.b64encode("sub/größe.txt".encode()).decode(), b"x")
        bench.host.files.write_bytes("C:\\Windows\\Temp\\source.zip", packed.getvalue())
        arguments = {"src": "C:\\Windows\\Temp\\source.zip", "dest": "C:\\Farm", "_copy_mode": "explode"}
        assert (await bench.module("win_copy", **arguments))["changed"]
        assert bench.host.files.read_bytes("C:\\Farm\\sub\\größe.txt") == b"x"
        query = {"dest": "C:\\Farm", "_copy_mode": "query", "directories": [{"src": "x", "dest": "SUB"}]}
        assert (await bench.module("win_copy", **query))["directories"] == []

    run(scenario)


def test_win_copy_on_the_host_itself(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        files = bench.host.files
        files.make_directory("C:\\from\\sub")
        files.write_bytes("C:\\from\\sub\\a", b"1")
        folder: dict[str, Any] = {"src": "C:\\from", "dest": "C:\\to", "_copy_mode": "remote"}
        looked = await bench.module("win_copy", check=True, diff=True, **folder)
        assert looked["changed"] and "+C:\\to\\from\\sub\\a\n" in looked["diff"]["prepared"]
        assert looked["operation"] == "folder_copy" and not files.exists("C:\\to")
        done = await bench.module("win_copy", **folder)
        assert done["changed"] and done["size"] == 1 and files.read_bytes("C:\\to\\from\\sub\\A") == b"1"
        assert not (await bench.module("win_copy", **folder))["changed"]
        file: dict[str, Any] = {"src": "C:\\from\\sub\\a", "dest": "C:\\to\\b", "_copy_mode": "remote"}
        assert (await bench.module("win_copy", **file))["dest"] == "C:\\to\\b"
        assert not (await bench.module("win_copy", **file))["changed"]
        lost = await bench.module("win_copy", src="C:\\none", dest="C:\\to", _copy_mode="remote")
        assert lost["msg"] == "Cannot copy src file: 'C:\\none' as it does not exist"

    run(scenario)


def test_win_command(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        done = await bench.module("win_command", argv=["hostname.exe"])
        assert done["changed"] and done["rc"] == 0 and done["stdout"].strip() == bench.host.computer_name
        assert done["cmd"] == "C:\\Windows\\System32\\hostname.exe" and done["delta"].startswith("0:00:00.")
        raw = await bench.module("win_command", _raw_params='  sc.exe query "no such"  ')
        assert raw["failed"] and raw["rc"] == 1060 and raw["msg"] == "non-zero return code"
        assert raw["changed"] and raw["cmd"] == 'sc.exe query "no such"'
        missing = await bench.module("win_command", argv=["nothing.exe", "a b"])
        assert missing["rc"] == 2 and missing["msg"].startswith("Failed to run: 'nothing.exe \"a b\"': ")
        assert "Win32ErrorCode 2 - 0x00000002" in missing["msg"]
        skipped = await bench.module("win_command", argv=["hostname.exe"], creates="%SystemRoot%\\System32")
        assert skipped["skipped"] and skipped["msg"] == "skipped, since C:\\Windows\\System32 exists"
        assert not skipped["changed"]
        skipped = await bench.module("win_command", argv=["hostname.exe"], removes="C:\\none")
        assert skipped["skipped"]
        folder = await bench.module("win_command", argv=["hostname.exe"], chdir="C:\\none")
        assert "Could not find specified -WorkingDirectory 'C:\\none'" in folder["msg"]
        checked = await bench.module("win_command", check=True, argv=["hostname.exe"])
        assert checked["skipped"] and checked["msg"] == "remote module (win_command) does not support check mode"
        bench.host.files.write_bytes("C:\\Windows\\tool.exe", b"")
        unknown = await bench.module("win_command", argv=["tool.exe"])
        assert unknown["failed"] and "rehearsal: no stand-in for the program C:\\Windows\\tool.exe" in unknown["msg"]

    run(scenario)


URL = "http://198.18.0.20/files/tool.msi"


def serve(bench: Bench, body: bytes, **headers: str) -> None:
    bench.platform.web[("198.18.0.20:80", "/files/tool.msi")] = Answer(body, headers=headers)


def test_win_get_url(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        serve(bench, b"content")
        digest = hashlib.sha256(b"content").hexdigest()
        task: dict[str, Any] = {
            "url": URL,
            "dest": "C:\\Windows\\Temp\\tool.msi",
            "checksum": digest.upper(),
            "checksum_algorithm": "sha256",
        }
        looked = await bench.module("win_get_url", check=True, **task)
        assert looked["changed"] and not bench.host.files.exists(task["dest"])
        done = await bench.module("win_get_url", **task)
        assert done["changed"] and done["checksum_src"] == done["checksum_dest"] == digest and done["size"] == 7
        assert done["status_code"] == 200 and done["url"] == URL and done["dest"] == task["dest"]
        again = await bench.module("win_get_url", **task)
        assert not again["changed"]
        count = len(bench.platform.requests)
        assert not (await bench.module("win_get_url", **task, force=False))["changed"]
        assert len(bench.platform.requests) == count, "a matching file and force=no need no request"
        folder = await bench.module("win_get_url", url=URL, dest="C:\\Users\\Public")
        assert folder["dest"] == "C:\\Users\\Public\\tool.msi"

    run(scenario)


def test_win_get_url_fails_loudly(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        serve(bench, b"content")
        dest = "C:\\Windows\\Temp\\x"
        wrong = await bench.module("win_get_url", url=URL, dest=dest, checksum="ab", checksum_algorithm="sha1")
        assert wrong["failed"] and f"The checksum for {URL} did not match 'ab', it was '" in wrong["msg"]
        assert not bench.host.files.exists(dest)
        missing = await bench.module("win_get_url", url="http://198.18.0.20/none", dest=dest)
        assert missing["status_code"] == 404
        assert missing["msg"] == (
            f"Error downloading 'http://198.18.0.20/none' to '{dest}': "
            "The remote server returned an error: (404) Not Found."
        )
        down = await bench.module("win_get_url", url="http://198.18.0.99/x", dest=dest)
        assert "Unable to connect to the remote server" in down["msg"]
        folder = await bench.module("win_get_url", url=URL, dest="C:\\none\\x")
        assert folder["msg"].startswith("The path 'C:\\none' does not exist for destination 'C:\\none\\x'")
        slash = await bench.module("win_get_url", url=URL, dest="C:\\none\\")
        assert slash["msg"].startswith("The destination path 'C:\\none\\' does not exist")
        proxy = await bench.module("win_get_url", url=URL, dest=dest, proxy_url="http://p")
        assert proxy["msg"] == "rehearsal: the option proxy_url is not modelled"
        ftp = await bench.module("win_get_url", url="ftp://198.18.0.20/x", dest=dest)
        assert "only http and https" in ftp["msg"]

    run(scenario)


def test_win_get_url_reads_a_checksum_file_and_dates(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        serve(bench, b"content", **{"Last-Modified": "Thu, 01 Jan 2015 00:00:00 GMT"})
        digest = hashlib.sha256(b"content").hexdigest()
        bench.platform.web[("198.18.0.20:80", "/sums")] = Answer(f"00  other\n{digest}  tool.msi\n".encode())
        task: dict[str, Any] = {"url": URL, "dest": "C:\\Windows\\Temp\\t.msi", "checksum_algorithm": "sha256"}
        sums = {"checksum_url": "http://198.18.0.20/sums"}
        assert (await bench.module("win_get_url", **task, **sums))["changed"]
        assert not (await bench.module("win_get_url", url=URL, dest=task["dest"], force=False))["changed"]
        bench.platform.web[("198.18.0.20:80", "/sums")] = Answer(b"00  other\n")
        lost = await bench.module("win_get_url", **task, **sums)
        assert lost["msg"].startswith("Checksum record not found for file name 'tool.msi'")

    run(scenario)


def test_redirects_are_followed(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        serve(bench, b"there")
        bench.platform.web[("198.18.0.20:80", "/old")] = Answer(status=302, headers={"Location": "/files/tool.msi"})
        done = await bench.module("win_get_url", url="http://198.18.0.20/old", dest="C:\\Windows\\Temp\\t")
        assert done["size"] == 5

    run(scenario)


def test_names_of_the_hosts_file_are_known(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        serve(bench, b"x")
        task = {"url": "http://downloads/files/tool.msi", "dest": "C:\\Windows\\Temp\\t"}
        assert (await bench.module("win_get_url", **task))["failed"]
        await bench.module("win_hosts", ip_address="198.18.0.20", canonical_name="downloads")
        assert (await bench.module("win_get_url", **task))["changed"]

    run(scenario)


def test_win_unzip(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        files = bench.host.files

        def write(name: str, *members: str) -> None:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for member in members:
                    archive.writestr(member, b"" if member.endswith("/") else b"x")
            files.write_bytes(f"C:\\Windows\\Temp\\{name}", packed.getvalue())

        write("a.zip", "python.exe", "lib/", "lib/x.py")
        task: dict[str, Any] = {"src": "C:\\Windows\\Temp\\a.zip", "dest": "C:\\RenderFarm\\python"}
        name = "community.windows.win_unzip"
        assert (await bench.module(name, check=True, **task))["changed"] and not files.exists("C:\\RenderFarm")
        assert (await bench.module(name, **task))["changed"]
        assert files.read_bytes("C:\\RenderFarm\\python\\lib\\x.py") == b"x"
        assert (await bench.module(name, **task))["changed"], "the real module changes always"
        kept = await bench.module(name, **task, creates="C:\\RenderFarm\\python\\python.exe")
        assert kept["skipped"] and not kept["changed"]
        assert (await bench.module(name, **task, delete_archive=True))["removed"]
        gone = await bench.module(name, **task)
        assert gone["msg"] == "File 'C:\\Windows\\Temp\\a.zip' does not exist."
        write("evil.zip", "../../evil")
        evil = await bench.module(name, src="C:\\Windows\\Temp\\evil.zip", dest="C:\\RenderFarm\\python")
        assert "would extract outside the destination" in evil["msg"] and not files.exists("C:\\evil")
        files.write_bytes("C:\\Windows\\Temp\\bad.zip", b"no zip")
        assert "Error unzipping" in (await bench.module(name, src="C:\\Windows\\Temp\\bad.zip", dest="C:\\x"))["msg"]

    run(scenario)


@pytest.mark.parametrize("name", ["win_stat", "win_file", "slurp"])
def test_unallowed_names_never_end_in_a_crash(run: Run, name: str) -> None:
    async def scenario(bench: Bench) -> None:
        arguments = {"src": "C:\\a|b"} if name == "slurp" else {"path": "C:\\a|b"}
        result = await bench.module(name, **arguments, **({"state": "touch"} if name == "win_file" else {}))
        assert "rehearsal: bug" not in str(result)

    run(scenario)


def test_find_lists_the_files_of_a_folder(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        folder = r"C:\Entries"
        for name in ("b", "a.txt"):
            bench.host.files.make_directory(folder)
            bench.host.files.write_bytes(f"{folder}\\{name}", b"x")
        bench.host.files.make_directory(folder + r"\below")
        found = await bench.module("win_find", paths=[folder])
        assert [each["filename"] for each in found["files"]] == ["a.txt", "b"]
        assert (found["examined"], found["matched"], found["changed"]) == (3, 2, False)
        assert found["files"][0]["checksum"] == hashlib.sha1(b"x").hexdigest()
        assert "does not exist" in (await bench.module("win_find", paths=[r"C:\None"]))["msg"]
        assert "not modelled" in (await bench.module("win_find", paths=[folder], recurse=True))["msg"]
        assert "only files" in (await bench.module("win_find", paths=[folder], file_type="any"))["msg"]

    run(scenario)
