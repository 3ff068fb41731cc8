# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the folder of the tunnel's PKI, and what has to be done about it.

Only public files are read: certificates and the revocation list. Of a private key nothing but its presence and its mode
is looked at. Layout of the folder::

    ca.crt ca.key crl.pem tls-crypt-v2-server.key
    NAME.crt NAME.key [NAME.tls-crypt-v2.key]         in use
    archive/NAME-SERIAL/…                             replaced by a renewal, not revoked
    revoked/NAME-SERIAL.crt                           revoked, also listed in crl.pem
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:  # reported by the module, with the package's name
    CRYPTOGRAPHY_ERROR: ImportError | None = error
else:
    CRYPTOGRAPHY_ERROR = None

AUTHORITY = "ca"
ARCHIVE = "archive"
REVOKED = "revoked"
CRL_FILE = "crl.pem"

_SECRET_MODE = 0o600


class PkiError(Exception):
    """The folder is in a state that nobody but its owner can mend; the text says how."""


@dataclass
class CertificateRow:
    """A certificate as plain data.

    ``state``: ``good``, ``due`` (to be renewed), ``expired``, ``revoked``, ``missing``, ``unusable``. ``action``:
    ``none``, ``make`` (complete what is missing), ``renew`` (archive the files and make new ones), ``archive``,
    ``refuse``. Dates are ISO 8601 in UTC; ``days_left`` is rounded down; ``serial`` is in hexadecimal digits, as
    OpenSSL prints it.
    """

    name: str
    usage: str = ""
    serial: str = ""
    not_before: str = ""
    not_after: str = ""
    days_left: int | None = None
    revoked: bool = False
    state: str = "missing"
    action: str = "make"
    reason: str = "there is no certificate"
    path: str = ""
    files: list[str] = field(default_factory=list)


@dataclass
class RevocationEntry:
    """An entry of the revocation list in the words of community.crypto.x509_crl."""

    serial_number: int
    revocation_date: str


@dataclass
class RevocationRow:
    """The revocation list as plain data; ``entries`` is what the list has to contain."""

    next_update: str = ""
    days_left: int | None = None
    state: str = "missing"
    action: str = "make"
    reason: str = "there is no revocation list"
    entries: list[RevocationEntry] = field(default_factory=list)


@dataclass
class Pki:
    """Everything in the folder."""

    authority: CertificateRow
    revocations: RevocationRow
    certificates: list[CertificateRow]
    archived: list[CertificateRow]
    revoked: list[CertificateRow]

    def as_dict(self) -> dict[str, object]:
        """Plain data for a module's result."""
        return asdict(self)


# ------------------------------------------------------------------------------------------------------------- reading


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _asn1(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%SZ")


def _load(path: Path) -> x509.Certificate | None:
    """The certificate in a file; None when it is damaged.

    :raises OSError: the file cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        return None


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _usage(certificate: x509.Certificate) -> str:
    """``server``, ``client``, or what else the extended key usage says."""
    try:
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return ""
    names = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
    return "+".join(sorted(names.get(usage, usage.dotted_string) for usage in usages))


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _days_left(end: datetime, now: datetime) -> int:
    return (end - now).days


def serial_text(number: int) -> str:
    """A serial number in hexadecimal digits, two for each byte, as ``openssl x509 -serial`` prints it."""
    digits = f"{number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def _row(certificate: x509.Certificate, path: Path, now: datetime, revoked: Iterable[int]) -> CertificateRow:
    """The facts of a certificate by itself: good, expired or revoked."""
    end = certificate.not_valid_after_utc
    row = CertificateRow(
        name=_common_name(certificate.subject),
        usage=_usage(certificate),
        serial=serial_text(certificate.serial_number),
        not_before=_iso(certificate.not_valid_before_utc),
        not_after=_iso(end),
        days_left=_days_left(end, now),
        revoked=certificate.serial_number in revoked,
        state="good",
        action="none",
        reason="",
        path=str(path),
    )
    if row.revoked:
        row.state, row.reason = "revoked", "it is revoked"
    elif end <= now:
        row.state, row.reason = "expired", f"it expired on {row.not_after}"
    return row


def _is_secret(path: Path) -> bool:
    """Tell whether a file is there that only its owner can read."""
    return path.is_file() and stat.S_IMODE(path.stat().st_mode) == _SECRET_MODE


# ------------------------------------------------------------------------------------------------------------ authority


def _authority(folder: Path, now: datetime, renew_days: int) -> tuple[CertificateRow, x509.Certificate | None]:
    path, key = folder / f"{AUTHORITY}.crt", folder / f"{AUTHORITY}.key"
    if not path.exists():
        return CertificateRow(name="", usage="authority", path=str(path)), None
    certificate = _load(path)
    if certificate is None:
        raise PkiError(
            f"{path} is no certificate. Restore the folder from your backup; without one, move it away: the next run "
            "makes a new authority and every machine gets new certificates."
        )
    if not key.exists():
        raise PkiError(
            f"{key} is not there, and without it no certificate can be made or revoked. Restore it from your backup; "
            f"without one, move the folder {folder} away: the next run makes a new authority and every machine gets "
            "new certificates."
        )
    row = _row(certificate, path, now, ())
    row.usage = "authority"
    if row.state == "expired" or (row.days_left is not None and row.days_left < renew_days):
        row.action = "renew"
        if row.state == "good":
            row.state, row.reason = "due", f"it expires on {row.not_after}"
    elif not _is_secret(key):
        row.action, row.reason = "make", f"{key.name} has not the mode 0600"
    return row, certificate


# --------------------------------------------------------------------------------------------------------- revocations


def _revocations(
    folder: Path, authority: x509.Certificate | None, kept: Mapping[int, datetime], now: datetime, renew_days: int
) -> RevocationRow:
    """The list as it is and the entries that it has to have: its own and those of ``revoked/``."""
    path = folder / CRL_FILE
    row = RevocationRow()
    entries = dict(kept)
    if path.exists() and authority is not None:
        try:
            crl = x509.load_pem_x509_crl(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm):
            row.state, row.reason = "unusable", "it is damaged"
        else:
            listed = {entry.serial_number: entry.revocation_date_utc for entry in crl}
            missing = sorted(serial_text(serial) for serial in kept if serial not in listed)
            entries |= listed
            end = crl.next_update_utc
            row.state, row.action, row.reason = "good", "none", ""
            if end is not None:
                row.next_update, row.days_left = _iso(end), _days_left(end, now)
            if not crl.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]
                row.state, row.reason = "unusable", "another authority signed it"
            elif end is None or end <= now:
                row.state, row.reason = "expired", f"it expired on {row.next_update or 'an unknown day'}"
            elif row.days_left is not None and row.days_left < renew_days:
                row.state, row.reason = "due", f"it expires on {row.next_update}"
            elif missing:
                row.state, row.reason = "due", f"it lacks {', '.join(missing)}"
            if row.state != "good":
                row.action = "make"
    row.entries = [RevocationEntry(serial, _asn1(moment)) for serial, moment in sorted(entries.items())]
    return row


# -------------------------------------------------------------------------------------------------------- certificates


def _in_use(
    folder: Path,
    name: str,
    usage: str | None,
    authority: x509.Certificate | None,
    revoked: Iterable[int],
    now: datetime,
    renew_days: int,
    renew: bool,
) -> CertificateRow:
    """The certificate ``name`` that is in use (or should be) and what has to be done about it."""
    path, key, handshake = (folder / f"{name}.{ending}" for ending in ("crt", "key", "tls-crypt-v2.key"))
    # the certificate is last: an archiving that is interrupted leaves it, and the next run finds its key missing
    files = [str(file) for file in (handshake, key, path) if file.exists()]
    if not path.exists():
        return CertificateRow(name=name, usage=usage or "", path=str(path), files=files)
    certificate = _load(path)
    if certificate is None:
        return CertificateRow(
            name=name,
            usage=usage or "",
            state="unusable",
            action="renew",
            reason="it is damaged",
            path=str(path),
            files=files,
        )
    row = _row(certificate, path, now, revoked)
    row.files = files
    if row.revoked:
        row.action = "renew" if renew else "refuse"
        return row
    problem = ""
    if row.name != name:
        problem = f"it is made out to {row.name!r}"
    elif authority is None or not _issued_by(certificate, authority):
        problem = "another authority signed it"
    elif usage is not None and row.usage != usage:
        problem = f"its usage is {row.usage!r}, not {usage!r}"
    elif not key.exists():
        problem = f"{key.name} is missing"
    row.name = name
    if problem:
        row.state, row.action, row.reason = "unusable", "renew", problem
    elif row.state == "expired":
        row.action = "renew"
    elif row.days_left is not None and row.days_left < renew_days:
        row.state, row.action, row.reason = "due", "renew", f"it expires on {row.not_after}"
    elif renew:
        row.state, row.action, row.reason = "due", "renew", "a new one is asked for"
    elif not _is_secret(key) or (row.usage == "client" and not _is_secret(handshake)):
        row.action, row.reason = "make", "a key is missing or has not the mode 0600"
    return row


def _stored(paths: Iterable[Path], now: datetime, revoked: Iterable[int]) -> list[CertificateRow]:
    rows = []
    for path in sorted(paths):
        certificate = _load(path)
        if certificate is not None:
            rows.append(_row(certificate, path, now, revoked))
    return rows


def read_pki(
    folder: Path,
    *,
    wanted: Mapping[str, str] | None = None,
    renew: Iterable[str] = (),
    renew_days: int = 60,
    now: datetime | None = None,
) -> Pki:
    """Read the folder; a folder that is not there is an empty one.

    :param wanted: usage (``server`` or ``client``) by name; without it, every certificate in use that is there. One
        that is there but not wanted is left alone while it lasts, and archived when it is due.
    :param renew: names to make anew in any case.
    :param renew_days: what expires in fewer days than these is due.
    :raises PkiError: the authority is damaged, or a name in ``renew`` is unknown.
    :raises OSError: a file cannot be read.
    """
    now = now or datetime.now(UTC)
    chosen = set(renew)
    names: dict[str, str | None] = dict(wanted or {})
    for path in sorted(folder.glob("*.crt")):
        if path.stem != AUTHORITY:
            names.setdefault(path.stem, None)
    unknown = sorted(chosen - set(names))
    if unknown:
        raise PkiError(
            f"There is no certificate named {', '.join(unknown)}; there are {', '.join(sorted(names)) or 'none'}."
        )

    authority, certificate = _authority(folder, now, renew_days)
    kept = {}
    for path in folder.glob(f"{REVOKED}/*.crt"):
        loaded = _load(path)
        if loaded is None:
            raise PkiError(
                f"{path} is no certificate: restore it from your backup, or delete it if {CRL_FILE} lists its serial."
            )
        kept[loaded.serial_number] = now
    revocations = _revocations(folder, certificate, kept, now, renew_days)
    revoked = {entry.serial_number for entry in revocations.entries}
    rows = [
        _in_use(folder, name, usage, certificate, revoked, now, renew_days, name in chosen)
        for name, usage in names.items()
    ]
    if wanted is not None:
        for row in rows:
            if row.name not in wanted:
                row.action = "archive" if row.action == "renew" else "none"
    return Pki(
        authority=authority,
        revocations=revocations,
        certificates=rows,
        archived=_stored(folder.glob(f"{ARCHIVE}/*/*.crt"), now, revoked),
        revoked=_stored(folder.glob(f"{REVOKED}/*.crt"), now, revoked),
    )


def warnings(pki: Pki, days: int) -> list[str]:
    """What the user has to know: everything in use that has expired or will within ``days``."""
    texts = []
    for title, row in [
        ("The authority", pki.authority),
        *((f"The certificate {row.name}", row) for row in pki.certificates),
    ]:
        if row.days_left is not None and row.days_left < days and not row.revoked:
            texts.append(_warning(title, row.days_left, row.not_after))
    if pki.revocations.days_left is not None and pki.revocations.days_left < days:
        texts.append(_warning("The revocation list", pki.revocations.days_left, pki.revocations.next_update))
    return texts


def _warning(title: str, days_left: int, end: str) -> str:
    when = f"expires in {days_left} days, on {end}" if days_left >= 0 else f"expired on {end}"
    return f"{title} of the tunnel {when}. Renew: ansible-playbook playbooks/vpn-renew.yml"
