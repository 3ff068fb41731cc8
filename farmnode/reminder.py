r"""A mail from the manager for as long as something runs: what, for how long, what it cost, and how to end it.

``reminder.json`` in `farmnode.drives_keys.FOLDER` (only SYSTEM and Administrators may read it): ``host``, ``port``,
``tls`` (``starttls`` or ``implicit``), ``user`` and ``password`` (both may be empty), ``sender``, ``recipients``,
``farm``, ``minutes``, ``prices`` (``manager`` and ``node``, USD per hour, null when not known), ``end`` (the command),
and optionally ``authority`` (PEM of a certificate authority that Windows does not know).

The cost is machine hours times the prices that the controller was told; disks, addresses and traffic are not in it.

``ledger.json`` beside ``state.json`` has what was counted (`Ledger`) and ``saved``, when that was (seconds since 1970).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from farmnode import files
from farmnode.errors import FarmNodeError, reading_failed

FILE: Final = "reminder.json"
#: In farmnode's folder.
LEDGER: Final = "ledger.json"
#: Nodes whose manager is gone for so long end themselves, by default.
_REBOOT_SECONDS: Final = 900.0
#: Seconds since 1970 that no clock of this machine will show.
_LATEST: Final = 1e11
_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Settings:
    """How and when to remind."""

    host: str
    port: int
    tls: str
    user: str
    password: str = field(repr=False)
    sender: str
    recipients: tuple[str, ...]
    farm: str
    minutes: float
    prices: dict[str, float | None]
    end: str
    authority: str | None = None


def settings_from(path: Path) -> Settings | None:
    """The settings in ``path``; None when there is no such file, for then nobody wants a mail."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise reading_failed(error, FILE) from error
    except ValueError:
        raise FarmNodeError("reminder", f"{FILE} is not JSON: run farm-up.yml again.") from None
    known = {each.name for each in fields(Settings)}
    if not isinstance(data, dict) or not known - {"authority"} <= set(data) <= known:
        raise FarmNodeError("reminder", f"{FILE} must have exactly {', '.join(sorted(known))}: run farm-up.yml again.")
    if data["tls"] not in ("starttls", "implicit"):
        raise FarmNodeError("reminder", f"tls of {FILE} is starttls or implicit, not {data['tls']!r}.")
    return Settings(**data | {"recipients": tuple(data["recipients"])})


@dataclass
class Ledger:
    """Machine seconds, counted by a clock that nobody sets. In its file they outlive the manager's power."""

    since: float
    """When it began, in seconds since 1970."""
    at: float
    """The last count, by the monotonic clock."""
    manager_seconds: float = 0.0
    node_seconds: float = 0.0
    up: float = 0.0
    """For how long the manager runs."""
    seen: dict[str, float] = field(default_factory=dict)
    """For how long each node has been listed."""

    def count(self, nodes: Iterable[str], now: float) -> None:
        """``nodes`` run at ``now``; those that ran at the last count have run for the time between, as the manager."""
        names, passed = set(nodes), now - self.at
        self.node_seconds += len(names & set(self.seen)) * passed
        self.manager_seconds += passed
        self.up += passed
        self.seen = {name: self.seen[name] + passed if name in self.seen else 0.0 for name in sorted(names)}
        self.at = now

    def save(self, path: Path, time: float) -> None:
        """Write it to ``path``; ``time`` is now, in seconds since 1970. FarmNodeError when that cannot be done."""
        data = {name: getattr(self, name) for name in _NUMBERS} | {"seen": self.seen, "saved": time}
        files.write(path, (json.dumps(data, indent=1) + "\n").encode("ascii"))


#: What `Ledger.save` writes beside ``seen`` and ``saved``.
_NUMBERS: Final = ("since", "manager_seconds", "node_seconds", "up")


def ledger_from(path: Path, time: float, now: float) -> Ledger:
    """The ledger that was saved in ``path``, a new one when there is none.

    ``time`` is now in seconds since 1970, ``now`` the same moment by the monotonic clock.  A short gap since it was
    saved was a reboot, which costs like any other time; in a longer one the manager was stopped, and so were its nodes.

    FarmNodeError when the file cannot be read or understood.
    """
    try:
        data = json.loads(path.read_bytes())
        seen = {str(name): float(seconds) for name, seconds in data["seen"].items()}
        numbers = {name: float(data[name]) for name in _NUMBERS}
        gap = time - float(data["saved"])
    except FileNotFoundError:
        return Ledger(since=time, at=now)
    except OSError as error:
        raise reading_failed(error, LEDGER) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FarmNodeError("reminder", f"{LEDGER} is not understood: {type(error).__name__}: {error}.") from error
    if not all(0 <= number <= _LATEST for number in (*numbers.values(), *seen.values())):
        raise FarmNodeError("reminder", f"{LEDGER} is not understood: a number is out of range.")
    kept = Ledger(numbers["since"], now, numbers["manager_seconds"], numbers["node_seconds"])
    if 0 <= gap <= _REBOOT_SECONDS:
        kept.at, kept.up, kept.seen = now - gap, numbers["up"], seen
    return kept


def message(settings: Settings, ledger: Ledger, now: float) -> tuple[str, str]:
    """Subject and text. The text is short: it is read on a telephone."""
    more = now - ledger.at
    hours = {"manager": (ledger.manager_seconds + more) / 3600, "node": ledger.node_seconds / 3600}
    since = datetime.fromtimestamp(ledger.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    number = len(ledger.seen)
    nodes = f"{number} node{'' if number == 1 else 's'}"
    cost = _cost(settings.prices, hours)
    subject = f"Render farm {settings.farm}: manager and {nodes} run, {cost or 'cost not known'}"
    lines = [
        f"Render farm {settings.farm}",
        "",
        f"manager      runs for {_hours((ledger.up + more) / 3600)}",
        *(f"{name:<12} runs for {_hours((seconds + more) / 3600)}" for name, seconds in ledger.seen.items()),
        "",
        f"Since {since}: {hours['manager']:.1f} manager hours, {hours['node']:.1f} node hours.",
        f"That cost {cost}, without disks, addresses and traffic."
        if cost
        else "What that cost is not known: set farm_prices.",
        "",
        "To end all of it:",
        f"  {settings.end}",
    ]
    return subject, "\n".join(lines) + "\n"


def send(settings: Settings, subject: str, text: str) -> None:
    """Send it over TLS whose certificate is verified. FarmNodeError when the server does not take it."""
    # Not before there is a mail to send: the manager's watch is to be small.
    import smtplib
    import ssl
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = settings.sender, ", ".join(settings.recipients), subject
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain="renderfarm.invalid")
    mail.set_content(text)
    context = ssl.create_default_context(cadata=settings.authority)
    place: dict[str, Any] = {"host": settings.host, "port": settings.port, "timeout": _SECONDS}
    try:
        with (
            smtplib.SMTP_SSL(**place, context=context) if settings.tls == "implicit" else smtplib.SMTP(**place)
        ) as server:
            if settings.tls == "starttls":
                server.starttls(context=context)
            if settings.user:
                server.login(settings.user, settings.password)
            server.send_message(mail)
    except (OSError, smtplib.SMTPException, UnicodeError) as error:
        text = str(error).replace(settings.password, "***") if settings.password else str(error)
        raise FarmNodeError("reminder", f"no mail through {settings.host}:{settings.port}: {text[:300]}") from error


def _cost(prices: dict[str, float | None], hours: dict[str, float]) -> str | None:
    """Machine hours in money; None unless every price is known that is needed for it."""
    total = 0.0
    for kind, number in hours.items():
        price = prices.get(kind)
        if price is None and number:
            return None
        total += number * (price or 0.0)
    return f"{total:.2f} USD"


def _hours(hours: float) -> str:
    return f"{int(hours)} h {int(hours * 60) % 60:02d} min"
