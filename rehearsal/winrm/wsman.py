"""WS-Management as a remote command shell speaks it: Create, Command, Send, Receive, Signal, Delete.

Sources: "[MS-WSMV]: Web Services Management Protocol Extensions for Windows Vista" (messages, faults), DMTF DSP0226
(WS-Management), the client (``winrm/protocol.py`` of pywinrm 0.5), fault codes as real hosts sent them in reports of
pywinrm, Vagrant and test-kitchen.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import time
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

from rehearsal.interfaces import RehearsalError, Reply, WinrmHost
from rehearsal.winrm import clixml, payload

log = logging.getLogger(__name__)

MAX_ENVELOPE_KB: Final = 500
MAX_SHELLS_PER_USER: Final = 30
IDLE_TIMEOUT_S: Final = 7200.0
_DEFAULT_OPERATION_TIMEOUT_S: Final = 60.0

_S = "{http://www.w3.org/2003/05/soap-envelope}"
_A = "{http://schemas.xmlsoap.org/ws/2004/08/addressing}"
_W = "{http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd}"
_R = "{http://schemas.microsoft.com/wbem/wsman/1/windows/shell}"
_SHELL: Final = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
_TRANSFER: Final = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
_FAULT_ACTION: Final = "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault"
_NAMESPACES: Final = (
    'xml:lang="en-US" xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer"'
    ' xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"'
    ' xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell"'
)
_DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?")


class MalformedMessageError(Exception):
    """A body that is no SOAP message at all: answered by HTTP 400."""


class Fault(Exception):
    """A WS-Management fault: the code of ``WSManFault``, the SOAP subcode and a text for people."""

    def __init__(self, code: int, subcode: str, reason: str, *, sender: bool = True) -> None:
        super().__init__(reason)
        self.code = code
        self.subcode = subcode
        self.reason = reason
        self.role = "s:Sender" if sender else "s:Receiver"


def operation_timeout() -> Fault:
    return Fault(
        2150858793,
        "w:TimedOut",
        "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.",
        sender=False,
    )


def shell_not_found(shell_id: str) -> Fault:
    return Fault(
        2150858843,
        "w:InvalidSelectors",
        f"The request for the Windows Remote Shell with ShellId {shell_id} failed because the shell was not found on"
        " the server. Possible causes are: the specified ShellId is incorrect or the shell no longer exists on the"
        " server. Provide the correct ShellId or create a new shell and retry the operation.",
    )


def too_many_shells(limit: int) -> Fault:
    return Fault(
        2150859173,
        "w:QuotaLimit",
        f"The WS-Management service cannot process the request. This user is allowed a maximum number of {limit}"
        " concurrent shells, which has been exceeded. Close existing shells or raise the quota for this user.",
    )


def envelope_too_large() -> Fault:
    return Fault(
        2150859025,
        "w:EncodingLimit",
        "The WinRM client sent a request to the remote WS-Management service and was notified that the request size"
        " exceeded the configured MaxEnvelopeSize quota.",
    )


def invalid_parameter(what: str) -> Fault:
    return Fault(87, "w:InvalidParameter", f"The parameter is incorrect: {what}")


def unknown_action(action: str) -> Fault:
    return Fault(
        2150858752, "a:ActionNotSupported", f"The WS-Management action {action} is not supported by the service."
    )


def unknown_resource(uri: str) -> Fault:
    return Fault(
        2150858811,
        "a:DestinationUnreachable",
        f"The WS-Management service cannot process the request. The resource URI {uri} was not found: the rehearsal"
        " models the command shell (ansible_connection: winrm), not PowerShell remoting (psrp).",
    )


@dataclass
class _Command:
    line: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    stdin: bytearray = field(default_factory=bytearray)
    stdout: bytes = b""
    stderr: bytes = b""
    rc: int | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        if self.task is not None and not self.task.done():
            self.task.cancel()


@dataclass
class _Shell:
    user: str
    used: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()).upper())
    commands: dict[str, _Command] = field(default_factory=dict)


@dataclass
class _Message:
    """What a handler needs of a request."""

    action: str
    message_id: str
    resource: str
    body: ET.Element
    header: ET.Element
    timeout_s: float
    max_envelope: int
    user: str
    selected: str

    def option(self, name: str) -> str:
        for option in self.header.iterfind(f"{_W}OptionSet/{_W}Option"):
            if option.get("Name") == name:
                return option.text or ""
        return ""

    def element(self, path: str) -> ET.Element:
        element = self.body.find("/".join(_R + name for name in path.split("/")))
        if element is None:
            raise invalid_parameter(f"the body has no {path}")
        return element


class ShellService:
    """The remote shells of one host."""

    def __init__(
        self, host: WinrmHost, *, max_shells: int = MAX_SHELLS_PER_USER, max_envelope_kb: int = MAX_ENVELOPE_KB
    ):
        self.host = host
        self.max_shells = max_shells
        self.max_envelope_kb = max_envelope_kb
        self.commands_started = 0
        self._shells: dict[str, _Shell] = {}

    def close(self) -> None:
        """Forget all shells and end what runs in them: the service stopped or the host went down."""
        for shell in list(self._shells.values()):
            self._drop(shell)

    @property
    def open_shells(self) -> int:
        return len(self._shells)

    async def answer(self, envelope: bytes, user: str) -> tuple[int, bytes]:
        """Answer one SOAP message of an authenticated user.

        :returns: the HTTP status (200, or 500 with a SOAP fault) and the SOAP answer.
        :raises MalformedMessageError: when the body is not SOAP.
        """
        root = _parse(envelope)
        message_id = (root.findtext(f"{_S}Header/{_A}MessageID") or "").strip()
        try:
            if len(envelope) > self.max_envelope_kb * 1024:
                raise envelope_too_large()
            action, body = await self._dispatch(_message(root, message_id, user))
        except Fault as fault:
            return 500, _envelope(_FAULT_ACTION, message_id, _fault_body(fault, self.host.name))
        return 200, _envelope(action, message_id, body)

    async def _dispatch(self, message: _Message) -> tuple[str, str]:
        name = message.action.rpartition("/")[2]
        if message.resource.rstrip("/") != f"{_SHELL}/cmd":
            raise unknown_resource(message.resource)
        if message.action == f"{_TRANSFER}/Create":
            return f"{_TRANSFER}/CreateResponse", self._create(message)
        shell = self._shells.get(message.selected)
        if shell is None or shell.user != message.user:
            raise shell_not_found(message.selected)
        shell.used = time.monotonic()
        match message.action:
            case action if action == f"{_TRANSFER}/Delete":
                self._drop(shell)
                return f"{_TRANSFER}/DeleteResponse", ""
            case action if action == f"{_SHELL}/Command":
                return f"{_SHELL}/{name}Response", self._command(message, shell)
            case action if action == f"{_SHELL}/Send":
                return f"{_SHELL}/{name}Response", self._send(message, shell)
            case action if action == f"{_SHELL}/Receive":
                return f"{_SHELL}/{name}Response", await self._receive(message, shell)
            case action if action == f"{_SHELL}/Signal":
                return f"{_SHELL}/{name}Response", self._signal(message, shell)
        raise unknown_action(message.action)

    def _create(self, message: _Message) -> str:
        now = time.monotonic()
        for old in [shell for shell in self._shells.values() if now - shell.used > IDLE_TIMEOUT_S]:
            self._drop(old)
        if sum(shell.user == message.user for shell in self._shells.values()) >= self.max_shells:
            raise too_many_shells(self.max_shells)
        if (codepage := message.option("WINRS_CODEPAGE")) not in ("", "437", "65001"):
            raise invalid_parameter(f"WINRS_CODEPAGE {codepage}")
        shell = _Shell(message.user, now)
        self._shells[shell.id] = shell
        return (
            f"<x:ResourceCreated><a:Address>http://{escape(self.host.name)}/wsman</a:Address><a:ReferenceParameters>"
            f"<w:ResourceURI>{_SHELL}/cmd</w:ResourceURI><w:SelectorSet>"
            f'<w:Selector Name="ShellId">{shell.id}</w:Selector></w:SelectorSet></a:ReferenceParameters>'
            f"</x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell.id}</rsp:ShellId><rsp:Owner>{escape(shell.user)}</rsp:Owner>"
            "<rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>"
        )

    def _drop(self, shell: _Shell) -> None:
        for command in shell.commands.values():
            command.cancel()
        self._shells.pop(shell.id, None)

    def _command(self, message: _Message, shell: _Shell) -> str:
        line = message.element("CommandLine")
        words = [line.findtext(f"{_R}Command") or "", *(item.text or "" for item in line.iterfind(f"{_R}Arguments"))]
        command = _Command(" ".join(words).strip())
        if not command.line:
            raise invalid_parameter("CommandLine is empty")
        shell.commands[command.id] = command
        self.commands_started += 1
        if message.option("WINRS_CONSOLEMODE_STDIN").upper() == "TRUE":  # no standard input will follow
            self._start(command)
        return f"<rsp:CommandResponse><rsp:CommandId>{command.id}</rsp:CommandId></rsp:CommandResponse>"

    def _start(self, command: _Command) -> None:
        command.task = asyncio.get_running_loop().create_task(self._run(command))

    async def _run(self, command: _Command) -> None:
        reply = await execute(self.host, command.line, bytes(command.stdin))
        command.stdin.clear()
        command.rc, command.stdout, command.stderr = reply.rc, reply.stdout, reply.stderr
        command.finished.set()

    def _send(self, message: _Message, shell: _Shell) -> str:
        stream = message.element("Send/Stream")
        command = _find(shell, stream.get("CommandId"))
        if stream.get("Name") != "stdin":
            raise invalid_parameter(f"stream {stream.get('Name')}")
        if command.task is not None:
            raise invalid_parameter("standard input was already closed")
        try:
            command.stdin += base64.b64decode(stream.text or "", validate=True)
        except (binascii.Error, ValueError):
            raise invalid_parameter("the stream is not base64") from None
        if (stream.get("End") or "").lower() == "true":
            self._start(command)
        return "<rsp:SendResponse/>"

    async def _receive(self, message: _Message, shell: _Shell) -> str:
        desired = message.element("Receive/DesiredStream")
        command = _find(shell, desired.get("CommandId"))
        try:
            await asyncio.wait_for(command.finished.wait(), message.timeout_s)
        except TimeoutError:
            raise operation_timeout() from None
        room = max(1024, (message.max_envelope - 4096) * 3 // 4)
        streams = []
        for name in ("stdout", "stderr"):
            data = getattr(command, name)
            part = data[:room]
            room -= len(part)
            setattr(command, name, data[len(part) :])
            if part:
                encoded = base64.b64encode(part).decode()
                streams.append(f'<rsp:Stream Name="{name}" CommandId="{command.id}">{encoded}</rsp:Stream>')
        if command.stdout or command.stderr:
            state = f'<rsp:CommandState CommandId="{command.id}" State="{_SHELL}/CommandState/Running"/>'
        else:
            ends = "".join(
                f'<rsp:Stream Name="{name}" CommandId="{command.id}" End="true"/>' for name in ("stdout", "stderr")
            )
            state = (
                f'{ends}<rsp:CommandState CommandId="{command.id}" State="{_SHELL}/CommandState/Done">'
                f"<rsp:ExitCode>{command.rc}</rsp:ExitCode></rsp:CommandState>"
            )
        return f"<rsp:ReceiveResponse>{''.join(streams)}{state}</rsp:ReceiveResponse>"

    def _signal(self, message: _Message, shell: _Shell) -> str:
        # A client signals in its cleanup also what is gone already; Windows answers that without a fault.
        command = shell.commands.pop(message.element("Signal").get("CommandId") or "", None)
        if command is not None:
            command.cancel()
        return "<rsp:SignalResponse/>"


async def execute(host: WinrmHost, line: str, stdin: bytes) -> Reply:
    """Run one command on a host. What the rehearsal cannot do becomes a failure that Ansible shows to the user."""
    try:
        return await host.execute(payload.decode(line, stdin))
    except RehearsalError as error:
        log.warning("%s: %s", host.name, error)
        return failure(f"rehearsal: {error}")
    except Exception as error:
        log.exception("%s: a bug of the rehearsal", host.name)
        return failure(f"rehearsal: bug, please report it with the machine's log: {type(error).__name__}: {error}")


def failure(text: str) -> Reply:
    """Return a failure that is readable both as a module's result and as a command's error stream."""
    result = json.dumps({"failed": True, "changed": False, "msg": text})
    return Reply(1, result.encode() + b"\r\n", clixml.error_stream(text))


def _find(shell: _Shell, command_id: str | None) -> _Command:
    command = shell.commands.get(command_id or "")
    if command is None:
        raise invalid_parameter(f"no command {command_id} in this shell")
    return command


def _parse(envelope: bytes) -> ET.Element:
    if b"<!DOCTYPE" in envelope or b"<!ENTITY" in envelope:
        raise MalformedMessageError("a SOAP message must not carry a document type")
    try:
        root = ET.fromstring(envelope)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise MalformedMessageError(f"not XML: {error}") from None
    if root.tag != f"{_S}Envelope" or root.find(f"{_S}Header") is None or root.find(f"{_S}Body") is None:
        raise MalformedMessageError("not a SOAP 1.2 envelope with header and body")
    return root


def _message(root: ET.Element, message_id: str, user: str) -> _Message:
    header, body = root.find(f"{_S}Header"), root.find(f"{_S}Body")
    assert header is not None and body is not None  # _parse made sure
    size = (header.findtext(f"{_W}MaxEnvelopeSize") or "153600").strip()
    if not size.isdigit():
        raise invalid_parameter(f"MaxEnvelopeSize {size}")
    selected = next(
        (item.text or "" for item in header.iterfind(f"{_W}SelectorSet/{_W}Selector") if item.get("Name") == "ShellId"),
        "",
    )
    return _Message(
        action=(header.findtext(f"{_A}Action") or "").strip(),
        message_id=message_id,
        resource=(header.findtext(f"{_W}ResourceURI") or "").strip(),
        body=body,
        header=header,
        timeout_s=_seconds(header.findtext(f"{_W}OperationTimeout")),
        max_envelope=int(size),
        user=user,
        selected=selected,
    )


def _seconds(duration: str | None) -> float:
    """Read an XML Schema duration of hours, minutes and seconds."""
    if not duration:
        return _DEFAULT_OPERATION_TIMEOUT_S
    match = _DURATION.fullmatch(duration.strip())
    if match is None or not any(match.groups()):
        raise invalid_parameter(f"OperationTimeout {duration}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _envelope(action: str, relates_to: str, body: str) -> bytes:
    return (
        f"<s:Envelope {_NAMESPACES}><s:Header><a:Action>{action}</a:Action>"
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID>"
        "<a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:To>"
        f"<a:RelatesTo>{escape(relates_to)}</a:RelatesTo></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _fault_body(fault: Fault, machine: str) -> str:
    reason = escape(fault.reason)
    return (
        f"<s:Fault><s:Code><s:Value>{fault.role}</s:Value><s:Subcode><s:Value>{fault.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{reason}</s:Text></s:Reason><s:Detail>'
        f'<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="{fault.code}"'
        f' Machine="{escape(machine)}"><f:Message>{reason}</f:Message></f:WSManFault></s:Detail></s:Fault>'
    )
