"""Who a machine is for Backburner, and putting one machine's identity in the place of another's.

Backburner knows a server by its MAC address ("HSERVER: the handle to a server by its mac (Ethernet) address", 3ds Max
SDK, maxnet_types.h), written as 12 hexadecimal digits that ``0000`` follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from farmnode.errors import FarmNodeError

_PAIRS = re.compile(r"[0-9A-Fa-f]{2}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?)[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Identity:
    """MAC address (lower case with colons, as EC2 shows it), name that others reach it by, IPv4 address.

    ``computer_name`` is what Windows calls itself when that is not the name: a clone keeps its builder's.
    """

    mac: str
    name: str
    address: str
    computer_name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mac", normal_mac(self.mac))
        for label in (self.name, self.computer_name or self.name):
            if not _NAME.fullmatch(label):
                raise FarmNodeError(
                    "bad_desired_state", f"{label!r} is no machine name (letters, digits, hyphens; 63 at most)."
                )
        try:
            object.__setattr__(self, "address", str(IPv4Address(self.address)))
        except ValueError:
            raise FarmNodeError("bad_desired_state", f"{self.address!r} is no IPv4 address.") from None

    @property
    def handle(self) -> str:
        """How the manager lists this machine: 16 hexadecimal digits."""
        return self.mac.replace(":", "").upper() + "0000"

    def as_json(self) -> dict[str, str]:
        data = {"mac": self.mac, "name": self.name, "address": self.address}
        return data | ({"computer_name": self.computer_name} if self.computer_name else {})


def identity_from_json(data: Any, where: str) -> Identity:
    """The identity that ``data`` holds. FarmNodeError names ``where`` it was found when something is amiss."""
    if not isinstance(data, dict) or set(data) - {"computer_name"} != {"mac", "name", "address"}:
        raise FarmNodeError("bad_desired_state", f"{where} must have mac, name and address, not {data!r}.")
    if not all(isinstance(value, str) for value in data.values()):
        raise FarmNodeError("bad_desired_state", f"{where} must hold text only, not {data!r}.")
    return Identity(**data)


def normal_mac(text: str) -> str:
    """``text`` in any notation as ``aa:bb:cc:dd:ee:ff``."""
    if not _MAC.fullmatch(text):
        raise FarmNodeError("bad_desired_state", f"{text!r} is no MAC address.")
    return ":".join(_PAIRS.findall(text)).lower()


def replace_identity(text: str, old: Identity, new: Identity) -> tuple[str, int]:
    """``text`` with every mention of ``old`` replaced by ``new``, and how many mentions that changed.

    A MAC is found without and with ``:`` or ``-``, in any case, also as a handle (``0000`` behind it), and keeps the
    notation in which it was found.  Names are found as whole words (hyphens belong to words) in any case, addresses as
    whole addresses.  All is done in one pass, so what is put in is never replaced again.
    """
    count = 0

    def substitute(match: re.Match[str]) -> str:
        nonlocal count
        found = match.group()
        put = _substitute(match, new)
        count += put != found
        return put

    return _pattern(old).sub(substitute, text), count


def _pattern(old: Identity) -> re.Pattern[str]:
    """Finds each mention of ``old``; group 1 is the separator of a MAC, group ``name`` a name."""
    pair, separator = "[0-9A-Fa-f]{2}", "[:-]"
    digits = old.mac.split(":")
    mac = (
        # Not the tail of a longer word or of a longer row of pairs (EUI-64, for example) ...
        rf"(?<!\w)(?<!^{pair}{separator})(?<!\W{pair}{separator})"
        rf"(?P<mac>{digits[0]}(?P<separator>[:-]?){digits[1]}(?:(?P=separator){'(?P=separator)'.join(digits[2:])}))"
        # ... and not their head.
        rf"(?P<tail>(?:0000)?)(?!\w)(?!{separator}{pair}(?!\w))"
    )
    names = sorted({old.name, old.computer_name or old.name})  # whole words: one may begin with the other
    name = rf"(?<![\w-])(?P<name>(?ai:{'|'.join(re.escape(name) for name in names)}))(?![\w-])"
    address = rf"(?<!\w)(?<!\w\.)(?P<address>{re.escape(old.address)})(?!\w)(?!\.\w)"
    return re.compile(f"{mac}|{address}|{name}", re.IGNORECASE)


def _substitute(match: re.Match[str], new: Identity) -> str:
    if match["mac"]:
        mac = new.mac.replace(":", match["separator"])
        letters = [letter for letter in match["mac"] if letter.isalpha()]
        # Without a letter there is no case to keep: Backburner shows handles in upper case.
        return (mac if letters and all(map(str.islower, letters)) else mac.upper()) + match["tail"]
    return new.address if match["address"] else new.name
