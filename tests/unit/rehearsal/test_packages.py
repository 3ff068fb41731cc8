from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest

from rehearsal import packages
from rehearsal.windows import msi

CODE = re.compile(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}")


def every(installers):
    return [installers["python"], installers["backburner"], installers["openvpn"], *installers["renderers"]]


def test_every_package_is_served_with_its_checksum(tmp_path: Path):
    installers = packages.write_packages(tmp_path / "downloads", "http://198.18.0.20/")
    assert sorted(installers) == ["backburner", "openvpn", "python", "renderers"]
    for entry in every(installers):
        base, _, name = entry["url"].rpartition("/")
        assert base == "http://198.18.0.20"
        assert hashlib.sha256((tmp_path / "downloads" / name).read_bytes()).hexdigest() == entry["sha256"]
    assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == [
        "3dsMax-2026-deployment.msi",
        "Backburner.msi",
        "OpenVPN-2.6.22-I001-amd64.msi",
        "python-3.12.10-embed-amd64.zip",
    ]
    assert installers["renderers"][0]["name"] == "3ds Max 2026"
    assert installers["openvpn"]["arguments"].startswith("ADDLOCAL=OpenVPN,OpenVPN.Service,")


def test_the_content_is_the_same_each_time(tmp_path: Path):
    first = packages.write_packages(tmp_path / "a", "http://x")
    second = packages.write_packages(tmp_path / "b", "http://x")
    assert first == second
    other = packages.write_packages(tmp_path / "c", "http://x", settings_encoding="utf-16")
    assert other["backburner"]["sha256"] != first["backburner"]["sha256"]


def test_the_hosts_windows_installer_reads_the_installers(tmp_path: Path):
    installers = packages.write_packages(tmp_path, "http://x")
    codes = set()
    for entry in every(installers)[1:]:
        package = msi.read((tmp_path / entry["url"].rpartition("/")[2]).read_bytes())
        assert package.product_code == entry["product_id"] and CODE.fullmatch(package.product_code)
        assert all(re.match(r"C:\\Program Files( \(x86\))?\\", path) for path in package.files)
        assert {service["path"].strip('"') for service in package.services} <= set(package.files)
        codes.add(package.product_code)
    assert len(codes) == 3


def test_the_embeddable_package_finds_nothing_beside_itself(tmp_path: Path):
    installers = packages.write_packages(tmp_path, "http://x")
    with zipfile.ZipFile(tmp_path / installers["python"]["url"].rpartition("/")[2]) as archive:
        assert archive.testzip() is None
        paths = archive.read("python312._pth").decode().splitlines()
        assert b"3.12.10" in archive.read("python.exe")
        (tmp_path / "python312.zip").write_bytes(archive.read("python312.zip"))
    assert [line for line in paths if line and not line.startswith("#")] == ["python312.zip", "."]
    with zipfile.ZipFile(tmp_path / "python312.zip") as library:
        assert library.namelist() == []


def test_openvpns_registry_is_that_of_its_installer():
    package = packages.openvpn_package()
    values = {name: data for key, name, kind, data in package["registry"]}
    assert values["autostart_config_dir"] == "C:\\Program Files\\OpenVPN\\config-auto\\"
    assert values["config_ext"] == "ovpn"
    assert values[""] == "C:\\Program Files\\OpenVPN\\" and values["log_append"] == "0"
    assert values["exe_path"] in package["files"]
    assert f"{values['autostart_config_dir']}README.txt" in package["files"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_backburners_package_says_how_its_settings_are_encoded(encoding):
    package = packages.backburner_package(encoding)
    assert (
        f"SettingsEncoding={encoding}\r\n" in package["files"][r"C:\Program Files (x86)\Autodesk\Backburner\nrapi.conf"]
    )
    assert json.dumps(package)
