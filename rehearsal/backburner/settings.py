r"""``backburner.xml``: what a service reads from it at its start, and what it writes when it finds none.

The full file is not public. Documented are names and meaning of the elements below, that AppDetails is the fourth
child of SystemConfiguration, that ServerSettings begins with ManagerName, one more element and ServerName, and that a
service reads the file only when it starts (Backburner Installation Guide; Autodesk creative-finishing setup guide; 3ds
Max help, "backburner.xml").  Everything else in the file that is written here is invented: elements, attributes and
comments that hold the machine's MAC (in three notations), its computer name and its address.  A clone of the machine
therefore carries the identity of the machine on which Backburner ran first: that is what a farm must be safe against.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Literal
from xml.etree import ElementTree

from rehearsal.backburner.host import INSTALL_FOLDER, PROFILE, Host, write_file

SETTINGS_FILE = PROFILE + r"\backburner.xml"
API_SETTINGS = INSTALL_FOLDER + r"\nrapi.conf"

Section = Literal["ServerSettings", "ManagerSettings"]
_ENCODINGS = {"utf-8": "UTF-8", "utf-16": "UTF-16"}
_MAC = re.compile(r"[0-9a-f]{12}")


class SettingsError(Exception):
    """backburner.xml cannot be used; the text names the element and what to do."""


@dataclass(frozen=True)
class Settings:
    """The values of one machine. Times are seconds; ``mac`` is 12 lowercase hexadecimal digits."""

    manager_port: int
    server_port: int
    network_mask: IPv4Address
    max_block_size: int
    ack_timeout: float
    ack_retries: int
    manager_name: str
    server_name: str
    mac: str
    max_concurrent_assignments: int
    server_limit: int | None
    retry_failed_servers: bool
    retry_count: int
    time_between_retries: float


def normal_mac(text: str) -> str:
    """``text`` as 12 lowercase hexadecimal digits. SettingsError when it is no MAC address."""
    digits = re.sub(r"[:\-\s]", "", text).lower()
    if not _MAC.fullmatch(digits):
        raise SettingsError(f"{text!r} is not a MAC address: 12 hexadecimal digits are expected")
    return digits


def server_handle(mac: str) -> str:
    """The handle of a server: its MAC in 12 uppercase digits and 0000 (3ds Max SDK, HSERVER)."""
    return normal_mac(mac).upper() + "0000"


def parse(data: bytes, *, own_mac: str, computer_name: str) -> Settings:
    """Read ``data`` as backburner.xml. SettingsError when it is not well-formed or a value makes no sense.

    Elements are found by name. ``own_mac`` and ``computer_name`` count only where the file has no MAC or server name of
    its own: a MAC that the file holds wins, also when the file came from another machine.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise SettingsError(
            f"{SETTINGS_FILE} is not well-formed XML: {error}; delete it to restore the default"
        ) from error

    def text(name: str, default: str) -> str:
        element = next(root.iter(name), None)
        value = (element.text or "").strip() if element is not None else ""
        return value or default

    def number(name: str, default: int, low: int, high: int) -> int:
        value = text(name, str(default))
        if not re.fullmatch(r"-?\d+", value) or not low <= int(value) <= high:
            raise SettingsError(f"{SETTINGS_FILE}: {name} is {value!r}; a number from {low} to {high} is expected")
        return int(value)

    try:
        mask = IPv4Address(text("NetworkMask", "255.255.255.0"))
    except AddressValueError as error:
        raise SettingsError(f"{SETTINGS_FILE}: NetworkMask is not an IPv4 mask: {error}") from error
    timeout = number("AckTimeout", 20, 1, 3_600_000)
    return Settings(
        manager_port=number("ManagerPort", 3234, 1, 65535),
        server_port=number("ServerPort", 3233, 1, 65535),
        network_mask=mask,
        max_block_size=number("MaxBlockSize", 128000, 1, 2**31 - 1),
        ack_timeout=timeout / 1000 if timeout >= 1000 else float(timeout),
        ack_retries=number("AckRetries", 6, 1, 1000),
        manager_name=text("ManagerName", ""),
        server_name=text("ServerName", computer_name),
        mac=normal_mac(text("MacAddress", own_mac)),
        max_concurrent_assignments=number("MaxConcurrentAssignments", 4, 1, 10_000),
        server_limit=number("ServerLimit", 0, 0, 100_000) if number("UseServerLimit", 0, 0, 1) else None,
        retry_failed_servers=bool(number("RetryFailedServers", 1, 0, 1)),
        retry_count=number("RetryCount", 3, 1, 1024),
        time_between_retries=number("TimeBetweenRetries", 30000, 0, 86_400_000) / 1000,
    )


def load(host: Host, section: Section) -> Settings:
    """What a service does at its start: write what is missing of backburner.xml, then read it.

    SettingsError when the file or nrapi.conf cannot be used; OSError when the file cannot be read or written.
    """
    if not host.files.exists(SETTINGS_FILE):
        write_file(host.files, SETTINGS_FILE, default_file(host, section, _chosen_encoding(host)))
    data = host.files.read_bytes(SETTINGS_FILE)
    settings = parse(data, own_mac=host.platform.nic.mac, computer_name=host.computer_name)
    if next(ElementTree.fromstring(data).iter(section), None) is None:
        host.files.write_bytes(SETTINGS_FILE, add_section(data, host, section))
    return settings


def default_file(host: Host, section: Section, encoding: str) -> bytes:
    """A whole new file with ``section`` for this machine; ``encoding`` is utf-8 (no BOM) or utf-16 (with BOM). CRLF."""
    digits = normal_mac(host.platform.nic.mac)
    pairs = [digits[i : i + 2] for i in range(0, 12, 2)]
    lines = [
        f'<?xml version="1.0" encoding="{_ENCODINGS[encoding]}" standalone="yes"?>',
        f"<!-- Backburner settings of {host.computer_name} ({':'.join(pairs)}) -->",
        f'<SystemConfiguration Version="2019.0" HostId="{digits.upper()}">',
        "  <GeneralCfg>",
        "    <ManagerPort>3234</ManagerPort>",
        "    <ServerPort>3233</ServerPort>",
        "    <NetworkMask>255.255.255.0</NetworkMask>",
        "    <MaxBlockSize>128000</MaxBlockSize>",
        "  </GeneralCfg>",
        "  <TimerCfg>",
        '    <AckTimeout unit="s">20</AckTimeout>',
        "    <AckRetries>6</AckRetries>",
        "  </TimerCfg>",
        "  <LogLimits>",
        "    <!-- bits: 1 ERR, 2 WRN, 4 INF, 8 DBG -->",
        "    <FileLevel>15</FileLevel>",
        "    <ScreenLevel>7</ScreenLevel>",
        "    <MaxFileSize/>",
        "  </LogLimits>",
        "  <AppDetails>",
        *_section(host, section),
        "  </AppDetails>",
        "  <SystemDetails>",
        f'    <Adapter mac="{"-".join(pairs).upper()}" address="{host.platform.nic.address}"/>',
        f"    <ComputerName>{host.computer_name}</ComputerName>",
        "    <Note>Gr\u00f6\u00dfe &lt;1&gt; &amp; \u00e4lter</Note>",
        "  </SystemDetails>",
        "</SystemConfiguration>",
    ]
    return _encode("\r\n".join(lines) + "\r\n", encoding, bom=encoding == "utf-16")


def add_section(data: bytes, host: Host, section: Section) -> bytes:
    """``data`` with ``section`` at the end of its AppDetails, every other byte as it was. SettingsError without one."""
    encoding, bom = _encoding_of(data)
    text = (data[len(bom) :] if bom else data).decode(encoding)
    end = text.rfind("</AppDetails>")
    if end < 0:
        raise SettingsError(
            f"{SETTINGS_FILE} has no AppDetails to put {section} into; delete the file to restore the default"
        )
    newline = "\r\n" if "\r\n" in text else "\n"
    insert_at = text.rfind("\n", 0, end) + 1 if not text[text.rfind("\n", 0, end) + 1 : end].strip() else end
    addition = newline.join(_section(host, section)) + newline
    return bom + (text[:insert_at] + addition + text[insert_at:]).encode(encoding)


def _section(host: Host, section: Section) -> list[str]:
    nic = host.platform.nic
    if section == "ServerSettings":
        return [
            "    <ServerSettings>",
            "      <ManagerName></ManagerName>",
            "      <AutomaticSearch>1</AutomaticSearch>",
            f"      <ServerName>{host.computer_name}</ServerName>",
            f"      <MacAddress>{normal_mac(nic.mac)}</MacAddress>",
            f"      <LastAddress>{nic.address}</LastAddress>",
            '      <Week first="0">0 0 0 0 0 0 0</Week>',
            "    </ServerSettings>",
        ]
    return [
        "    <ManagerSettings>",
        "      <MaxConcurrentAssignments>4</MaxConcurrentAssignments>",
        "      <UseServerLimit>0</UseServerLimit>",
        "      <ServerLimit>0</ServerLimit>",
        "      <UseTaskErrorLimit>0</UseTaskErrorLimit>",
        "      <TaskErrorLimit>0</TaskErrorLimit>",
        "      <DefaultMailServer></DefaultMailServer>",
        "      <RetryFailedServers>1</RetryFailedServers>",
        "      <RetryCount>3</RetryCount>",
        "      <TimeBetweenRetries>30000</TimeBetweenRetries>",
        "      <EnableJobPath>0</EnableJobPath>",
        "      <Win32Path></Win32Path>",
        "      <UnixPath></UnixPath>",
        "      <DefJobHandling>3</DefJobHandling>",
        "      <DeleteDays>0</DeleteDays>",
        "      <ArchiveDays>0</ArchiveDays>",
        f"      <ManagerHost>{host.computer_name.lower()}</ManagerHost>",
        "    </ManagerSettings>",
    ]


def _chosen_encoding(host: Host) -> str:
    """Which encoding the installed Backburner writes: ``SettingsEncoding=`` in nrapi.conf, our own key, else utf-8."""
    if not host.files.exists(API_SETTINGS):
        return "utf-8"
    for line in host.files.read_bytes(API_SETTINGS).decode("ascii", errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "SettingsEncoding":
            if value.strip().lower() not in _ENCODINGS:
                raise SettingsError(f"{API_SETTINGS}: SettingsEncoding is {value.strip()!r}; use utf-8 or utf-16")
            return value.strip().lower()
    return "utf-8"


def _encoding_of(data: bytes) -> tuple[str, bytes]:
    """The codec of ``data`` without BOM handling, and the BOM that it begins with."""
    for bom, codec in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(bom):
            return codec, bom
    declared = re.match(rb"<\?xml[^>]*?encoding=[\"']([A-Za-z0-9._-]+)[\"']", data)
    return (declared.group(1).decode("ascii") if declared else "utf-8"), b""


def _encode(text: str, encoding: str, *, bom: bool) -> bytes:
    if encoding == "utf-16":
        return (codecs.BOM_UTF16_LE if bom else b"") + text.encode("utf-16-le")
    return text.encode(encoding)
