"""The reminder: what it says, and that a real mail server on loopback gets it, over verified TLS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from test_farmnode_drives import certificate

from farmnode import reminder
from farmnode.errors import FarmNodeError
from farmnode.reminder import Ledger, Settings
from tests.ports import free_port

PASSWORD = "pass with 'quotes'"
SETTINGS = Settings(
    host="127.0.0.1",
    port=587,
    tls="starttls",
    user="farm",
    password=PASSWORD,
    sender="farm@studio.example",
    recipients=("artist@studio.example", "boss@studio.example"),
    farm="studio",
    minutes=30.0,
    prices={"manager": 0.5, "node": 2.0},
    end="ansible-playbook farm-down.yml",
)


# ---------------------------------------------------------------------------------------------------------- the words


def ledger() -> Ledger:
    """Two hours: a node the whole time, another the last hour, a third only the first half hour."""
    made = Ledger(since=1_800_000_000.0, at=0.0)
    made.count(["ip-10-0-0-21", "ip-10-0-0-23"], 0.0)
    made.count(["ip-10-0-0-21", "ip-10-0-0-23"], 1800.0)
    made.count(["ip-10-0-0-21"], 1800.0)
    made.count(["ip-10-0-0-21", "ip-10-0-0-22"], 3600.0)
    made.count(["ip-10-0-0-21", "ip-10-0-0-22"], 7200.0)
    return made


def test_what_it_says() -> None:
    subject, text = reminder.message(SETTINGS, ledger(), 7200.0)
    assert subject == "Render farm studio: manager and 2 nodes run, 8.00 USD"
    assert text.splitlines() == [
        "Render farm studio",
        "",
        "manager      runs for 2 h 00 min",
        "ip-10-0-0-21 runs for 2 h 00 min",
        "ip-10-0-0-22 runs for 1 h 00 min",
        "",
        "Since 2027-01-15 08:00 UTC: 2.0 manager hours, 3.5 node hours.",
        "That cost 8.00 USD, without disks, addresses and traffic.",
        "",
        "To end all of it:",
        "  ansible-playbook farm-down.yml",
    ]


@pytest.mark.parametrize("prices", [{"manager": None, "node": 2.0}, {"manager": 0.5, "node": None}, {}])
def test_a_price_that_is_not_known_is_not_made_up(prices: dict[str, float | None]) -> None:
    subject, text = reminder.message(replace(SETTINGS, prices=prices), ledger(), 7200.0)
    assert subject.endswith("2 nodes run, cost not known")
    assert "What that cost is not known: set farm_prices." in text


def test_a_node_price_is_not_needed_without_nodes() -> None:
    made = Ledger(since=1_800_000_000.0, at=0.0)
    subject, _ = reminder.message(replace(SETTINGS, prices={"manager": 0.5, "node": None}), made, 5400.0)
    assert subject == "Render farm studio: manager and 0 nodes run, 0.75 USD"


def test_a_node_that_comes_back_runs_anew() -> None:
    made = Ledger(since=1_800_000_000.0, at=0.0)
    for names, now in ((["a"], 0.0), ([], 100.0), (["a"], 200.0), (["a"], 300.0)):
        made.count(names, now)
    assert (made.seen, made.node_seconds) == ({"a": 100.0}, 100.0)
    assert (made.manager_seconds, made.up, made.at) == (300.0, 300.0, 300.0)


def test_time_since_the_last_count_is_told_too() -> None:
    """The manager's service may have been silent since: its machine ran."""
    subject, text = reminder.message(SETTINGS, ledger(), 9000.0)
    assert "manager      runs for 2 h 30 min" in text and "ip-10-0-0-22 runs for 1 h 30 min" in text
    assert "2.5 manager hours, 3.5 node hours" in text and subject.endswith("8.25 USD")


@pytest.mark.parametrize(("gap", "counts"), [(0, True), (60, True), (900, True), (901, False), (-1, False)])
def test_a_ledger_outlives_the_managers_power(tmp_path: Path, gap: float, counts: bool) -> None:
    path, saved = tmp_path / "ledger.json", 1_800_007_200.0
    assert reminder.ledger_from(path, 5.0, 7.0) == Ledger(since=5.0, at=7.0)
    ledger().save(path, saved)
    kept = reminder.ledger_from(path, saved + gap, 40.0)
    assert (kept.since, kept.manager_seconds, kept.node_seconds) == (1_800_000_000.0, 7200.0, 3.5 * 3600)
    kept.count(["ip-10-0-0-21", "ip-10-0-0-99"], 50.0)
    passed = 10.0 + gap * counts
    assert kept.manager_seconds == 7200.0 + passed
    assert kept.up == (7200.0 + passed if counts else passed)
    assert kept.node_seconds == 3.5 * 3600 + passed * counts
    assert kept.seen == {"ip-10-0-0-21": 7200.0 + passed if counts else 0.0, "ip-10-0-0-99": 0.0}


@pytest.mark.parametrize(
    "change",
    [
        {"seen": []},
        {"seen": {"a": "x"}},
        {"seen": {"a": -1}},
        {"since": None},
        {"since": 1e12},
        {"since": float("nan")},
        {"up": -1},
        {"saved": "x"},
        {"node_seconds": []},
        None,
    ],
)
def test_a_ledger_that_is_not_understood(tmp_path: Path, change: dict[str, Any] | None) -> None:
    path = tmp_path / "ledger.json"
    ledger().save(path, 0.0)
    path.write_text("[]" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FarmNodeError, match=r"ledger\.json is not understood: "):
        reminder.ledger_from(path, 0.0, 0.0)
    path.write_text("{")
    with pytest.raises(FarmNodeError, match=r"ledger\.json is not understood: JSONDecodeError"):
        reminder.ledger_from(path, 0.0, 0.0)
    with pytest.raises(FarmNodeError, match=r"cannot read ledger\.json"):
        reminder.ledger_from(tmp_path, 0.0, 0.0)


# ------------------------------------------------------------------------------------------------------- the settings


def stored(tmp_path: Path, **change: Any) -> Path:
    data = {name: getattr(SETTINGS, name) for name in Settings.__dataclass_fields__ if name != "authority"}
    path = tmp_path / "reminder.json"
    path.write_text(json.dumps(data | change))
    return path


def test_settings_of_a_file(tmp_path: Path) -> None:
    assert reminder.settings_from(tmp_path / "none.json") is None
    assert reminder.settings_from(stored(tmp_path)) == SETTINGS
    assert reminder.settings_from(stored(tmp_path, authority="PEM")) == replace(SETTINGS, authority="PEM")
    assert PASSWORD not in repr(SETTINGS)


def test_settings_that_are_not_understood(tmp_path: Path) -> None:
    for change, text in (({"more": 1}, "exactly"), ({"tls": "none"}, "starttls or implicit")):
        with pytest.raises(FarmNodeError, match=text):
            reminder.settings_from(stored(tmp_path, **change))
    path = tmp_path / "reminder.json"
    path.write_text("{")
    with pytest.raises(FarmNodeError, match="not JSON"):
        reminder.settings_from(path)
    with pytest.raises(FarmNodeError):
        reminder.settings_from(tmp_path)


# -------------------------------------------------------------------------------------------------------- the sending


class Box:
    """What the mail server took."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope, session.ssl is not None))
        return self.answer


def log_on(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"farm", PASSWORD.encode()), handled=False)


def serve(tmp_path: Path, box: Box, address: str = "127.0.0.1", **options: Any) -> tuple[Controller, str]:
    pem, key = certificate(address)
    (tmp_path / "server.pem").write_text(pem + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    implicit = options.pop("implicit", False)
    encrypted = {"ssl_context": context} if implicit else {"tls_context": context, "require_starttls": True}
    controller = Controller(
        box, hostname="127.0.0.1", port=0, authenticator=log_on, auth_require_tls=not implicit, **encrypted, **options
    )
    controller.port = free_port()
    controller.start()
    return controller, pem


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture(params=["starttls", "implicit"])
def server(request: pytest.FixtureRequest, tmp_path: Path, box: Box) -> Iterator[Settings]:
    controller, pem = serve(tmp_path, box, implicit=request.param == "implicit")
    yield replace(SETTINGS, port=controller.port, authority=pem, tls=request.param)
    controller.stop()


def test_a_mail_server_gets_it_over_tls(server: Settings, box: Box) -> None:
    reminder.send(server, "Subject with ü", "one\ntwo\n")
    [(envelope, encrypted)] = box.mails
    mail = message_from_bytes(envelope.content, policy=policy.default)
    assert encrypted or server.tls == "implicit"
    assert envelope.rcpt_tos == list(SETTINGS.recipients) and envelope.mail_from == SETTINGS.sender
    assert (mail["Subject"], mail["To"]) == ("Subject with ü", "artist@studio.example, boss@studio.example")
    assert mail.get_content().splitlines() == ["one", "two"] and mail["Date"] and mail["Message-ID"]


def test_a_server_that_cannot_prove_itself_gets_nothing(server: Settings, box: Box) -> None:
    other, _ = certificate()
    for authority in (None, other):
        with pytest.raises(FarmNodeError, match="CERTIFICATE_VERIFY_FAILED"):
            reminder.send(replace(server, authority=authority), "s", "t")
    assert box.mails == []


def test_a_server_of_another_name_gets_nothing(tmp_path: Path, box: Box) -> None:
    controller, pem = serve(tmp_path, box, address="10.0.0.99")
    try:
        with pytest.raises(FarmNodeError, match="CERTIFICATE_VERIFY_FAILED"):
            reminder.send(replace(SETTINGS, port=controller.port, authority=pem), "s", "t")
    finally:
        controller.stop()
    assert box.mails == []


def test_a_refusal_is_told_without_the_password(server: Settings, box: Box) -> None:
    box.answer = f"554 not with {PASSWORD}"
    with pytest.raises(FarmNodeError, match=r"not with \*\*\*") as caught:
        reminder.send(server, "s", "t")
    assert caught.value.reason == "reminder"
    with pytest.raises(FarmNodeError, match="535"):
        reminder.send(replace(server, password="wrong"), "s", "t")


def test_a_server_that_is_down() -> None:
    with pytest.raises(FarmNodeError, match=r"no mail through 127\.0\.0\.1:\d+: .*[Rr]efused"):
        reminder.send(replace(SETTINGS, port=free_port(), user="", password=""), "s", "t")
