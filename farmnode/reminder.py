r"""A mail from the manager for as long as something runs: what, for how long, what it cost, and how to end it.

``reminder.json`` in `farmnode.drives_keys.FOLDER` (only SYSTEM and Administrators may read it): ``host``, ``port``,
``tls`` (``starttls`` or ``implicit``), ``user`` and ``password`` (both may be empty), ``sender``, ``recipients``,
``farm``, ``minutes``, ``prices`` (``manager`` and ``node``, USD per hour, null when not known), ``end`` (the command),
and optionally ``authority`` (PEM of a certificate authority that Windows does not know).

The cost is machine hours times the prices that the controller was told; disks, addresses and traffic are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from farmnode.errors import FarmNodeError, reading_failed

FILE: Final = "reminder.json"
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
    """Machine seconds since the manager's start. ``seen`` is when each node that runs was first listed."""

    began: float
    at: float
    seen: dict[str, float] = field(default_factory=dict)
    node_seconds: float = 0.0

    def count(self, nodes: Iterable[str], now: float) -> None:
        """``nodes`` run at ``now``; those that ran since the last count have run for the time between."""
        names = set(nodes)
        self.node_seconds += len(names & set(self.seen)) * (now - self.at)
        self.seen = {name: self.seen.get(name, now) for name in sorted(names)}
        self.at = now


def message(settings: Settings, ledger: Ledger, now: float) -> tuple[str, str]:
    """Subject and text. The text is short: it is read on a telephone."""
    hours = {"manager": (now - ledger.began) / 3600, "node": ledger.node_seconds / 3600}
    number = len(ledger.seen)
    nodes = f"{number} node{'' if number == 1 else 's'}"
    cost = _cost(settings.prices, hours)
    subject = f"Render farm {settings.farm}: manager and {nodes} run, {cost or 'cost not known'}"
    lines = [
        f"Render farm {settings.farm}",
        "",
        f"manager      runs for {_hours(hours['manager'])}",
        *(f"{name:<12} runs for {_hours((now - since) / 3600)}" for name, since in ledger.seen.items()),
        "",
        f"So far: {hours['manager']:.1f} manager hours, {hours['node']:.1f} node hours.",
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
