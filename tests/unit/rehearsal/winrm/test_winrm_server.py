"""The WinRM server, driven by pywinrm and by raw sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from winrm.exceptions import (
    InvalidCredentialsError,
    WinRMOperationTimeoutError,
    WinRMTransportError,
    WSManFaultError,
)
from winrm.protocol import Protocol

from rehearsal.interfaces import RehearsalError, Reply, Request
from rehearsal.winrm import auth, wsman

Listen = Callable[..., Any]


def run(client: Protocol, command: str, arguments: tuple[str, ...] = ()) -> tuple[str, str, int]:
    shell = client.open_shell(codepage=65001)
    try:
        command_id = client.run_command(shell, command, arguments, console_mode_stdin=True)
        stdout, stderr, rc = client.get_command_output(shell, command_id)
        client.cleanup_command(shell, command_id)
    finally:
        client.close_shell(shell)
        client.transport.close_session()
    return stdout.decode(), stderr.decode(), rc


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("transport", "tls"), [("ntlm", False), ("ntlm", True), ("ssl", True), ("basic", True)])
def test_command_runs_over_each_supported_transport(listen: Listen, transport: str, tls: bool) -> None:
    listener = listen(tls=tls)
    assert run(listener.client(transport), "ipconfig", ("/all",)) == ("command:ipconfig /all:", "", 0)
    assert listener.endpoint.stats.connections >= 1
    assert listener.endpoint.stats.commands == 1
    assert listener.endpoint.stats.requests >= 5
    assert listener.endpoint.shells.open_shells == 0


def test_plain_http_carries_no_clear_text(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = listen(tls=False)
    sent: list[bytes] = []
    original = socket.socket.sendall

    def sendall(self: socket.socket, data: bytes, *rest: int) -> None:
        sent.append(bytes(data))
        original(self, data, *rest)

    monkeypatch.setattr(socket.socket, "sendall", sendall)
    run(listener.client(), "verytelling.exe")
    assert b"multipart/encrypted" in b"".join(sent)
    assert b"verytelling" not in b"".join(sent)


@pytest.mark.parametrize("transport", ["ntlm", "ssl"])
def test_wrong_password_is_refused(listen: Listen, transport: str) -> None:
    listener = listen()
    with pytest.raises(InvalidCredentialsError):
        listener.client(transport, password="wrong").open_shell()
    with pytest.raises(InvalidCredentialsError):
        listener.client(transport, user="Nobody", password="geheim:§1").open_shell()
    assert listener.endpoint.stats.refused == 2


def test_user_names_ignore_case_and_take_the_computer_name(listen: Listen) -> None:
    listener = listen()
    for user in ("administrator", "WIN1\\Administrator", ".\\Administrator"):
        for transport in ("ntlm", "ssl"):
            assert run(listener.client(transport, user, password="geheim:§1"), "x")[2] == 0


def test_basic_is_refused_when_the_host_has_it_off(listen: Listen) -> None:
    with pytest.raises(InvalidCredentialsError):
        listen(basic=False).client("ssl").open_shell()


def test_basic_over_plain_http_is_refused(listen: Listen) -> None:
    with pytest.raises(InvalidCredentialsError):
        listen(tls=False).client("plaintext").open_shell()


def test_unencrypted_traffic_over_plain_http_is_refused(listen: Listen) -> None:
    with pytest.raises(WinRMTransportError) as refused:
        listen(tls=False).client(message_encryption="never").open_shell()
    assert refused.value.code == 500


def test_hosts_of_one_process_keep_their_own_passwords(listen: Listen) -> None:
    """Also at the same time: pyspnego reads its accounts from a process-wide place."""
    listeners = [listen(tls=False, name=f"WIN{n}", users={"Administrator": f"p:{n}%ä"}) for n in range(4)]

    def logon(pair: tuple[int, int]) -> bool:
        client = listeners[pair[0]].client(password=f"p:{pair[1]}%ä")
        try:
            return run(client, "x")[2] == 0
        except InvalidCredentialsError:
            client.transport.close_session()
            return False

    pairs = [(host, password) for host in range(4) for password in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(logon, pairs)) == [host == password for host, password in pairs]
    assert "NTLM_USER_FILE" not in os.environ


def test_another_certificate_is_refused_by_the_client(listen: Listen, other_certificate: Any) -> None:
    client = listen().client("ssl", ca_trust_path=str(other_certificate.pem))
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        client.open_shell()


def test_channel_binding_must_fit_the_certificate(listen: Listen, certificate: Any, other_certificate: Any) -> None:
    assert run(listen(options={"certificate": certificate.der}).client(), "x")[2] == 0
    in_the_middle = listen(options={"certificate": other_certificate.der})
    with pytest.raises(InvalidCredentialsError):
        in_the_middle.client().open_shell()
    assert run(in_the_middle.client(send_cbt=False), "x")[2] == 0  # CbtHardeningLevel Relaxed


def test_long_command_is_waited_for_over_several_operation_timeouts(listen: Listen) -> None:
    async def slow(request: Request) -> Reply:
        await asyncio.sleep(1.3)
        return Reply(3, b"late")

    listener = listen(answer=slow)
    started = time.monotonic()
    assert run(listener.client(operation_timeout_sec=1, read_timeout_sec=3), "x") == ("late", "", 3)
    assert time.monotonic() - started > 1.2


def test_operation_timeout_is_the_fault_that_clients_know(listen: Listen) -> None:
    async def slow(request: Request) -> Reply:
        await asyncio.sleep(20)
        return Reply(0)

    client = listen(answer=slow).client(operation_timeout_sec=1, read_timeout_sec=3)
    shell = client.open_shell()
    command = client.run_command(shell, "x", console_mode_stdin=True)
    with pytest.raises(WinRMOperationTimeoutError):
        client.get_command_output_raw(shell, command)
    client.transport.close_session()


def send(client: Protocol, data: list[bytes]) -> bytes:
    shell = client.open_shell(codepage=65001)
    command = client.run_command(shell, "program.exe", console_mode_stdin=False)
    for number, part in enumerate(data, 1):
        client.send_command_input(shell, command, part, end=number == len(data))
    stdout, _, _ = client.get_command_output(shell, command)
    client.cleanup_command(shell, command)
    client.close_shell(shell)
    client.transport.close_session()
    return bytes(stdout)


@pytest.mark.parametrize("tls", [True, False])
def test_big_input_and_output_arrive_whole(listen: Listen, tls: bool) -> None:
    async def double(request: Request) -> Reply:
        return Reply(0, (hashlib.sha256(request.stdin.encode()).hexdigest() + request.stdin).encode())

    listener = listen(tls=tls, answer=double)
    text = os.urandom(300_000).hex().encode()
    answer = send(listener.client(), [text[:250_000], text[250_000:500_000], text[500_000:]])
    assert answer == hashlib.sha256(text).hexdigest().encode() + text
    # Create, Command, 3 Send, Signal, Delete, the logon, and one Receive for each part of at most 153600 bytes.
    assert listener.endpoint.stats.requests >= 7 + 6


def test_too_large_an_envelope_is_a_fault(listen: Listen) -> None:
    listener = listen(options={"max_envelope_kb": 100})
    client = listener.client("ssl")
    shell = client.open_shell()
    command = client.run_command(shell, "x", console_mode_stdin=False)
    with pytest.raises(WSManFaultError, match="MaxEnvelopeSize") as fault:
        client.send_command_input(shell, command, b"x" * 100_000)
    assert fault.value.wsman_fault_code == 2150859025
    with pytest.raises(WinRMTransportError) as refused:
        client.send_command_input(shell, command, b"x" * 400_000)
    assert refused.value.code == 413
    client.transport.close_session()


def test_unknown_shell_and_command_are_faults(listen: Listen) -> None:
    client = listen().client("ssl")
    shell = client.open_shell()
    with pytest.raises(WSManFaultError, match="parameter is incorrect"):
        client.get_command_output_raw(shell, "1234")
    client.close_shell(shell)
    with pytest.raises(WSManFaultError, match="shell was not found") as fault:
        client.run_command(shell, "x")
    assert fault.value.wsman_fault_code == 2150858843
    client.transport.close_session()


def test_a_shell_belongs_to_its_user(listen: Listen) -> None:
    listener = listen(users={"Administrator": "a", "other": "b"})
    client, stranger = listener.client("ssl"), listener.client("ssl", "other")
    shell = client.open_shell()
    with pytest.raises(WSManFaultError, match="shell was not found"):
        stranger.run_command(shell, "x")
    for used in (client, stranger):
        used.transport.close_session()


def test_shells_have_a_quota(listen: Listen) -> None:
    client = listen(options={"max_shells": 2}).client("ssl")
    shells = [client.open_shell(), client.open_shell()]
    with pytest.raises(WSManFaultError, match="maximum number of 2 concurrent shells") as fault:
        client.open_shell()
    assert fault.value.wsman_fault_code == 2150859173
    client.close_shell(shells[0])
    assert client.open_shell()
    client.transport.close_session()


def test_powershell_remoting_is_said_to_be_not_modelled(listen: Listen) -> None:
    client = listen().client("ssl")
    envelope = {
        "env:Envelope": client._get_soap_header(
            action="http://schemas.xmlsoap.org/ws/2004/09/transfer/Create",
            resource_uri="http://schemas.microsoft.com/powershell/Microsoft.PowerShell",
        )
    }
    envelope["env:Envelope"]["env:Body"] = {}
    import xmltodict

    with pytest.raises(WSManFaultError, match="psrp"):
        client.send_message(xmltodict.unparse(envelope))
    client.transport.close_session()


def test_what_the_rehearsal_lacks_is_told_as_a_failure(listen: Listen) -> None:
    async def refuse(request: Request) -> Reply:
        if request.script == "bug":
            raise KeyError("inner")
        raise RehearsalError("no stand-in for <this>")

    client = listen(answer=refuse).client("ssl")
    stdout, stderr, rc = run(client, "x")
    assert (json.loads(stdout)["failed"], rc) == (True, 1)
    assert json.loads(stdout)["msg"] == "rehearsal: no stand-in for <this>"
    assert stderr.startswith("#< CLIXML") and "no stand-in for &lt;this&gt;" in stderr
    assert "bug, please report" in json.loads(run(listen(answer=refuse).client("ssl"), "bug")[0])["msg"]


def test_signal_ends_a_running_command(listen: Listen) -> None:
    ended = []

    async def endless(request: Request) -> Reply:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(request.script)
        return Reply(0)

    listener = listen(answer=endless)
    client = listener.client("ssl")
    shell = client.open_shell()
    command = client.run_command(shell, "first", console_mode_stdin=True)
    wait_for(lambda: len(listener.host.requests) == 1)
    client.cleanup_command(shell, command)
    wait_for(lambda: ended == ["first"])
    client.run_command(shell, "second", console_mode_stdin=True)
    wait_for(lambda: len(listener.host.requests) == 2)
    client.close_shell(shell)
    wait_for(lambda: ended == ["first", "second"])
    client.transport.close_session()


def test_a_host_that_is_down_cuts_connections(listen: Listen) -> None:
    listener = listen()
    client = listener.client("ssl")
    client.open_shell()
    listener.host.up = False
    with pytest.raises(requests.exceptions.ConnectionError):
        client.open_shell()
    client.transport.close_session()
    listener.host.up = True
    listener.endpoint.shells.close()
    assert run(listener.client("ssl"), "x")[2] == 0


def raw(listener: Any, data: bytes) -> bytes:
    context = ssl.create_default_context(cafile=str(listener.certificate.pem))
    with (
        socket.create_connection(("127.0.0.1", listener.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"POST /wsman HTTP/3\r\n\r\n", 400),
        (b"POST /wsman HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /wsman HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /wsman HTTP/1.1\r\nContent-Length: " + b"9" * 9 + b"\r\n\r\n", 413),
        (b"POST /wsman HTTP/1.1\r\n\r\n", 411),
        (b"POST /wsman HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"GET /wsman HTTP/1.1\r\n\r\n", 405),
        (b"POST /wsman HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 400),
    ],
)
def test_malformed_http_is_refused(listen: Listen, data: bytes, status: int) -> None:
    assert raw(listen(), data).split(b" ", 2)[1] == str(status).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"not xml",
        b"<open>",
        b"<a/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body/></s:Envelope>',
    ],
)
def test_malformed_messages_are_refused(listen: Listen, body: bytes) -> None:
    listener = listen()
    context = ssl.create_default_context(cafile=str(listener.certificate.pem))
    connection = http.client.HTTPSConnection("127.0.0.1", listener.port, context=context, timeout=5)
    token = base64.b64encode("Administrator:geheim:§1".encode()).decode()
    connection.request("POST", "/wsman", body, {"Authorization": f"Basic {token}"})
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize(
    "header", ["Basic !", "Negotiate AAAA", "NTLM TlRMTVNTUAABAAAA", "Digest eA==", "Kerberos", "Negotiate"]
)
def test_malformed_credentials_are_refused(listen: Listen, header: str) -> None:
    answer = raw(
        listen(),
        f"POST /wsman HTTP/1.1\r\nAuthorization: {header}\r\nContent-Length: 0\r\n\r\nbad\r\n\r\n".encode(),
    )
    assert answer.split(b" ", 2)[1] == b"401"
    assert b'WWW-Authenticate: Negotiate\r\nWWW-Authenticate: Basic realm="WSMAN"' in answer


def test_damaged_encrypted_message_is_refused(listen: Listen) -> None:
    client = listen(tls=False).client()
    client.open_shell()
    encryption = client.transport.encryption
    original = encryption._build_ntlm_message

    def damaged(message: bytes, host: Any) -> bytes:
        sealed = bytearray(original(message, host))
        sealed[-1] ^= 1
        return bytes(sealed)

    encryption._build_message = damaged
    with pytest.raises(WinRMTransportError) as refused:
        client.open_shell()
    assert refused.value.code == 400
    client.transport.close_session()


def test_encrypted_message_needs_a_session() -> None:
    with pytest.raises(auth.MessageError, match="without an NTLM session"):
        auth.ConnectionAuthenticator(tls=False).unwrap(b"x")


def test_no_missing_part_of_a_message_breaks_the_service(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each element of each real message is left out once: the answer is SOAP or a refusal."""
    original = wsman.ShellService.answer
    messages: list[bytes] = []

    async def record(self: wsman.ShellService, envelope: bytes, user: str) -> tuple[int, bytes]:
        messages.append(envelope)
        return await original(self, envelope, user)

    monkeypatch.setattr(wsman.ShellService, "answer", record)
    listener = listen()
    send(listener.client("ssl", operation_timeout_sec=1, read_timeout_sec=2), [b"input"])
    monkeypatch.undo()
    assert len(messages) == 6

    async def replay() -> set[int]:
        statuses = set()
        for envelope in messages:
            root = ET.fromstring(envelope)
            for parent in root.iter():
                for index, child in enumerate(list(parent)):
                    parent.remove(child)
                    service = wsman.ShellService(listener.host)
                    try:
                        status, answer = await service.answer(ET.tostring(root), "Administrator")
                        assert ET.fromstring(answer).tag.endswith("Envelope")
                    except wsman.MalformedMessageError:
                        status = 400
                    service.close()
                    statuses.add(status)
                    parent.insert(index, child)
        return statuses

    assert asyncio.run(replay()) == {200, 400, 500}
