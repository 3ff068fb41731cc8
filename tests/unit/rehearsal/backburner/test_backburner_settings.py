from __future__ import annotations

import re
from ipaddress import IPv4Address
from xml.etree import ElementTree

import pytest

from rehearsal.backburner.host import HOSTS_FILE, in_task_list, resolve, write_file
from rehearsal.backburner.settings import (
    API_SETTINGS,
    SETTINGS_FILE,
    SettingsError,
    load,
    normal_mac,
    parse,
    server_handle,
)

DOCUMENTED = (
    "ManagerPort",
    "ServerPort",
    "NetworkMask",
    "MaxBlockSize",
    "AckTimeout",
    "AckRetries",
    "ManagerName",
    "ServerName",
    "MaxConcurrentAssignments",
    "UseServerLimit",
    "ServerLimit",
    "UseTaskErrorLimit",
    "TaskErrorLimit",
    "DefaultMailServer",
    "RetryFailedServers",
    "RetryCount",
    "TimeBetweenRetries",
    "EnableJobPath",
    "Win32Path",
    "UnixPath",
    "DefJobHandling",
    "DeleteDays",
    "ArchiveDays",
)


def read(text: str):
    return parse(text.encode(), own_mac="0A:00:00:00:00:07", computer_name="NODE7")


def test_defaults_of_an_empty_configuration():
    settings = read("<SystemConfiguration/>")
    assert (settings.manager_port, settings.server_port) == (3234, 3233)
    assert settings.network_mask == IPv4Address("255.255.255.0")
    assert (settings.ack_timeout, settings.ack_retries) == (20.0, 6)
    assert (settings.manager_name, settings.server_name, settings.mac) == ("", "NODE7", "0a0000000007")
    assert (settings.retry_count, settings.time_between_retries, settings.server_limit) == (3, 30.0, None)


def test_elements_are_found_by_name_wherever_they_are():
    settings = read(
        "<SystemConfiguration><Other><ManagerName> 10.0.0.10 </ManagerName></Other><ServerPort>3226</ServerPort>"
        "<UseServerLimit>1</UseServerLimit><ServerLimit>7</ServerLimit><MacAddress>02-AA-bb-00-00-01</MacAddress>"
        "</SystemConfiguration>"
    )
    assert (settings.manager_name, settings.server_port, settings.server_limit) == ("10.0.0.10", 3226, 7)
    assert settings.mac == "02aabb000001"


@pytest.mark.parametrize(("value", "seconds"), [("20", 20.0), ("999", 999.0), ("20000", 20.0), ("4500", 4.5)])
def test_the_acknowledge_time_is_seconds_or_from_1000_on_milliseconds(value: str, seconds: float):
    assert read(f"<S><AckTimeout>{value}</AckTimeout></S>").ack_timeout == seconds


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<S><ManagerPort>x</ManagerPort></S>", "ManagerPort is 'x'; a number from 1 to 65535"),
        ("<S><ServerPort>70000</ServerPort></S>", "ServerPort is '70000'"),
        ("<S><NetworkMask>255.255</NetworkMask></S>", "NetworkMask is not an IPv4 mask"),
        ("<S><MacAddress>12:34</MacAddress></S>", "'12:34' is not a MAC address"),
        ("<S><ManagerPort>3234</S>", "not well-formed XML.*delete it"),
        ("", "not well-formed"),
    ],
)
def test_what_makes_no_sense_is_named(xml: str, message: str):
    with pytest.raises(SettingsError, match=message):
        read(xml)


@pytest.mark.parametrize("text", ["00:25:90:A4:C7:A6", "00-25-90-a4-c7-a6", "002590a4c7a6"])
def test_the_handle_is_the_mac_and_four_zeros(text: str):
    assert normal_mac(text) == "002590a4c7a6"
    assert server_handle(text) == "002590A4C7A60000"


def test_a_missing_file_is_written_with_this_machines_identity(farm):
    machine = farm.machine(7, mac="02:ab:cd:ef:00:07", name="EC2AMAZ-7K2")
    settings = load(machine, "ServerSettings")
    data = machine.settings
    assert settings.mac == "02abcdef0007" and settings.server_name == "EC2AMAZ-7K2" and settings.manager_name == ""
    assert data.startswith(b'<?xml version="1.0" encoding="UTF-8"') and b"\n" not in data.replace(b"\r\n", b"")
    for trace in (
        b"02ABCDEF0007",
        b"02abcdef0007",
        b"02:ab:cd:ef:00:07",
        b"02-AB-CD-EF-00-07",
        machine.address.encode(),
    ):
        assert trace in data
    assert data.count(b"EC2AMAZ-7K2") == 3 and b"<!--" in data and "Größe".encode() in data


def test_the_layout_that_is_known_holds(farm):
    machine = farm.machine(1)
    load(machine, "ServerSettings")
    load(machine, "ManagerSettings")
    root = ElementTree.fromstring(machine.settings)
    assert root.tag == "SystemConfiguration" and root[3].tag == "AppDetails" and root[3][0].tag == "ServerSettings"
    assert (root[3][0][0].tag, root[3][0][2].tag) == ("ManagerName", "ServerName")
    assert root.find("GeneralCfg/NetworkMask") is not None and root.find("TimerCfg/AckTimeout") is not None
    for name in DOCUMENTED:
        assert len(list(root.iter(name))) == 1, name


def test_the_other_service_adds_only_its_own_section(farm):
    machine = farm.machine(1)
    load(machine, "ServerSettings")
    before = machine.settings
    load(machine, "ManagerSettings")
    after = machine.settings
    added = re.search(rb"    <ManagerSettings>.*</ManagerSettings>\r\n", after, re.DOTALL)
    assert added is not None and after.replace(added[0], b"") == before
    load(machine, "ManagerSettings")
    assert machine.settings == after


def test_utf_16_with_bom_when_the_installed_package_writes_that(farm):
    machine = farm.machine(1, name="NODE1")
    write_file(machine.files, API_SETTINGS, b"PlugPath=C:/x/\r\nSettingsEncoding=UTF-16\r\n")
    load(machine, "ServerSettings")
    load(machine, "ManagerSettings")
    data = machine.settings
    assert data.startswith(b"\xff\xfe<\x00") and data.count(b"\xff\xfe") == 1
    text = data.decode("utf-16")
    assert 'encoding="UTF-16"' in text and "<ManagerSettings>" in text and "\r\n" in text
    assert load(machine, "ServerSettings").server_name == "NODE1"


def test_an_unknown_encoding_of_the_package_is_refused(farm):
    machine = farm.machine(1)
    write_file(machine.files, API_SETTINGS, b"SettingsEncoding=ebcdic\r\n")
    with pytest.raises(SettingsError, match="use utf-8 or utf-16"):
        load(machine, "ServerSettings")


def test_a_file_of_another_machine_is_believed(farm):
    builder = farm.machine(1, mac="02:00:00:00:00:99")
    load(builder, "ServerSettings")
    node = farm.clone(builder, 2)
    assert load(node, "ServerSettings").mac == "020000000099"
    assert node.settings == builder.settings


def test_a_file_without_appdetails_is_refused(farm):
    machine = farm.machine(1)
    write_file(machine.files, SETTINGS_FILE, b"<SystemConfiguration/>")
    with pytest.raises(SettingsError, match=r"no AppDetails.*delete the file"):
        load(machine, "ServerSettings")


def test_names_resolve_as_on_the_host(farm):
    machine = farm.machine(9, name="NODE9")
    write_file(machine.files, HOSTS_FILE, b"# none\r\n10.0.0.10 manager manager.farm # fixed\r\n")
    assert resolve(machine, "10.1.2.3") == "10.1.2.3"
    assert resolve(machine, "LOCALHOST") == "127.0.0.1"
    assert resolve(machine, "node9") == machine.address
    assert resolve(machine, "Manager.Farm") == "10.0.0.10"
    assert resolve(machine, "ip-10-0-0-21.eu-central-1.compute.internal") == "10.0.0.21"
    assert resolve(machine, "ip-10-0-0-21") == "10.0.0.21"
    assert resolve(machine, "EC2AMAZ-OTHER") is None
    assert resolve(machine, "ip-10-0-0-999") is None


def test_programs_are_shown_where_the_host_has_a_task_list(farm):
    machine = farm.machine(1)
    with in_task_list(machine, ("3dsmax.exe",), "BACKBURNER_SRV_200"):
        assert machine.processes == ["3dsmax.exe"]
    assert machine.processes == []
    with in_task_list(object(), ("3dsmax.exe",), "BACKBURNER_SRV_200"):
        pass
