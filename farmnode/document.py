"""XML as text: where its elements are, and changing some of them while every other byte stays.

Nothing is ever serialized.  The expat parser says at which byte each thing starts; an edit replaces a range of bytes.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from farmnode.errors import FarmNodeError

#: Byte order marks and their codecs. UTF-32 is not XML that any Windows program writes.
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_STARTS: Final = ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
_DECLARED = re.compile(rb"""^<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
#: What a switch that is on says, and what it says when it is off.
_SWITCHES: Final = {"1": "0", "true": "false", "yes": "no", "on": "off"}
_REFERENCE = re.compile(r"(&[^;\s<&]*;)")


@dataclass(frozen=True)
class Element:
    """One element: its place in the tree and, as byte offsets, its content."""

    path: tuple[str, ...]
    start: int
    end: int
    empty: bool  # written as <Name/>: both offsets are behind it
    plain: bool  # holds characters only
    value: str

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def shown(self) -> str:
        return "/".join(self.path)


@dataclass(frozen=True)
class Encoded:
    """Text and how the file spells it."""

    text: str
    bom: bytes
    codec: str

    def encode(self, text: str) -> bytes:
        return self.bom + text.encode(self.codec)


def decode(data: bytes, shown: str) -> Encoded:
    """The text of the XML file ``shown``: by its byte order mark, else by its first bytes, else as it declares.

    FarmNodeError when the encoding is unknown or the bytes could not be written back as they are.
    """
    encoded = _decode(data, shown)
    if encoded.encode(encoded.text) != data:
        raise FarmNodeError("broken_xml", f"{shown} cannot be written back byte for byte as {encoded.codec}.")
    return encoded


def _decode(data: bytes, shown: str) -> Encoded:
    bom, codec = next(((bom, codec) for bom, codec in _BOMS if data.startswith(bom)), (b"", ""))
    if not codec:
        codec = next((codec for start, codec in _STARTS if data.startswith(start)), "")
    if not codec:
        declared = _DECLARED.match(data)
        codec = declared[1].decode("ascii").lower() if declared else "utf-8"
        if codec.startswith("utf-16"):
            codec = "utf-8"  # the declaration itself could be read byte by byte, so it is wrong
    try:
        return Encoded(data[len(bom) :].decode(codec), bom, codec)
    except LookupError:
        raise FarmNodeError(
            "broken_xml", f"{shown} declares the encoding {codec}, which Python does not know."
        ) from None
    except UnicodeError as error:
        raise FarmNodeError(
            "broken_xml", f"{shown} is not valid {codec}: {error}. Restore it from its backup."
        ) from error


def only(text: str, names: Iterable[str], shown: str) -> dict[str, Element]:
    """The one element of each of ``names``.

    FarmNodeError when the document is not well-formed, when elements are missing (all are named), and when one is there
    more than once or holds more than characters.
    """
    found: dict[str, list[Element]] = {name: [] for name in names}
    for element in _Scan(text.encode(), shown).elements:
        if element.name in found:
            found[element.name].append(element)
    missing = [name for name, elements in found.items() if not elements]
    if missing:
        raise FarmNodeError(
            "missing_element",
            f"{shown} lacks {', '.join(missing)}. Stop both Backburner services, delete the file and start them once, "
            "so that Backburner writes it anew; if it still lacks that, this version of Backburner is not known.",
        )
    return {name: _single(elements, shown) for name, elements in found.items()}


def _single(elements: list[Element], shown: str) -> Element:
    first, *others = elements
    if others:
        raise FarmNodeError(
            "missing_element",
            f"{shown} has {len(elements)} elements {first.name} ({', '.join(each.shown for each in elements)}), so "
            "which one counts is not known. Delete the wrong one while the Backburner services are stopped.",
        )
    if not first.plain:
        raise FarmNodeError(
            "missing_element", f"element {first.shown} of {shown} holds more than text; it is not what was expected."
        )
    return first


def set_values(text: str, wanted: Mapping[str, str], shown: str) -> str:
    """``text`` with the content of each element of ``wanted`` replaced by its value where that differs.

    FarmNodeError as `only`.
    """
    elements = only(text, wanted, shown)
    return _put(text, [(element, wanted[name]) for name, element in elements.items()], shown)


def switch_off(text: str, names: re.Pattern[str], shown: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """``text`` with each element whose whole name matches ``names`` switched off, and what changed, by name.

    A switch keeps its notation (``1``, ``true``, ``yes``, ``on``; any case).  FarmNodeError when one holds something
    else: then it means something else, too.
    """
    switches = [element for element in _Scan(text.encode(), shown).elements if names.fullmatch(element.name)]
    wanted = [(element, _off(element, shown)) for element in switches]
    changes = {element.name: (element.value.strip(), off) for element, off in wanted if element.value.strip() != off}
    return _put(text, wanted, shown), changes


def _off(switch: Element, shown: str) -> str:
    value = switch.value.strip()
    if switch.plain and value.lower() in _SWITCHES.values():
        return value
    off = _SWITCHES.get(value.lower()) if switch.plain else None
    if off is None:
        raise FarmNodeError(
            "missing_element",
            f"element {switch.shown} of {shown} is no switch that is known ({', '.join(_SWITCHES)} and their "
            f"opposites): {value!r}. Switch off the automatic search for a manager by hand.",
        )
    return off.upper() if value.isupper() else off.capitalize() if value.istitle() else off


def _put(text: str, wanted: Iterable[tuple[Element, str]], shown: str) -> str:
    """``text`` with the content of each element replaced by its value where that differs."""
    body = text.encode()
    # From the end on, so that the offsets of what is still to do stay right.
    for element, value in sorted(wanted, key=lambda item: -item[0].start):
        if element.value.strip() == value:
            continue
        put = html.escape(value, quote=False).encode()
        start = element.start
        if element.empty:  # <Name/> becomes <Name>value</Name>
            start -= len(b"/>")
            put = b">" + put + b"</" + element.name.encode() + b">"
        body = body[:start] + put + body[element.end :]
    return _checked(body, shown)


def _checked(body: bytes, shown: str) -> str:
    """The edited document, which must still be one."""
    _Scan(body, shown)
    return body.decode()


def map_content(text: str, change: Callable[[str], tuple[str, int]], shown: str) -> tuple[str, int]:
    """``text`` with ``change`` applied to what it says, and how many changes that made.

    That is character data, attribute values and comments; names of elements and attributes, references, processing
    instructions and the declaration stay.
    """
    body = text.encode()
    scan = _Scan(body, shown)
    pieces: list[str] = []
    count = 0
    for start, end, protected in _segments(scan.protected, len(body)):
        for index, piece in enumerate(_REFERENCE.split(body[start:end].decode())):
            changes = 0
            if not protected and index % 2 == 0:
                piece, changes = change(piece)
            pieces.append(piece)
            count += changes
    return _checked("".join(pieces).encode(), shown), count


def _segments(protected: list[tuple[int, int]], length: int) -> Iterator[tuple[int, int, bool]]:
    """The whole range in order, as (start, end, is protected)."""
    position = 0
    for start, end in sorted(protected):
        if start > position:
            yield position, start, False
        yield start, end, True
        position = end
    if position < length:
        yield position, length, False


@dataclass
class _Open:
    """An element whose end was not met yet."""

    name: str
    start: int
    empty: bool
    plain: bool = True
    value: list[str] = field(default_factory=list)


class _Scan:
    """One pass of expat over a UTF-8 document: its elements, and the ranges that are markup."""

    def __init__(self, body: bytes, shown: str) -> None:
        self.elements: list[Element] = []
        self.protected: list[tuple[int, int]] = []
        self._body = body
        self._open: list[_Open] = []
        self._shown = shown
        parser = self._parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.CommentHandler = self._comment
        parser.ProcessingInstructionHandler = lambda target, data: self._instruction()
        parser.XmlDeclHandler = lambda version, encoding, standalone: self._protect_until(b"?>")
        parser.StartCdataSectionHandler = lambda: self._protect(self._index, self._index + len(b"<![CDATA["))
        parser.StartDoctypeDeclHandler = self._refuse_document_type
        try:
            parser.Parse(body, True)
        except expat.ExpatError as error:
            raise FarmNodeError(
                "broken_xml",
                f"{shown} is not well-formed XML: {error}. Restore it from {shown}.bak, or stop the Backburner "
                "services and delete it, so that Backburner writes a new one at its next start.",
            ) from error

    @property
    def _index(self) -> int:
        return self._parser.CurrentByteIndex

    def _protect(self, start: int, end: int) -> None:
        self.protected.append((start, end))

    def _protect_until(self, mark: bytes) -> None:
        self._protect(self._index, self._body.index(mark, self._index) + len(mark))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._open:
            self._open[-1].plain = False
        start = self._index
        position = start + 1
        # Outside of quotes nothing but the tag's own end can be ">": the parser has accepted it.
        while (byte := self._body[position : position + 1]) != b">":
            if byte in (b'"', b"'"):
                self._protect(start, position + 1)
                position = start = self._body.index(byte, position + 1)
            position += 1
        self._protect(start, position + 1)
        self._open.append(_Open(name, position + 1, self._body[position - 1 : position] == b"/"))

    def _end(self, name: str) -> None:
        done = self._open[-1]
        end = done.start
        if not done.empty:
            end = self._index
            self._protect_until(b">")
        path = tuple(each.name for each in self._open)
        self._open.pop()
        self.elements.append(Element(path, done.start, end, done.empty, done.plain, "".join(done.value)))

    def _characters(self, data: str) -> None:
        self._open[-1].value.append(data)

    def _comment(self, data: str) -> None:
        if self._open:
            self._open[-1].plain = False
        self._protect(self._index, self._index + len(b"<!--"))
        end = self._body.index(b"-->", self._index + len(b"<!--"))
        self._protect(end, end + len(b"-->"))

    def _instruction(self) -> None:
        if self._open:
            self._open[-1].plain = False
        self._protect_until(b"?>")

    def _refuse_document_type(self, *_: object) -> None:
        raise FarmNodeError(
            "broken_xml", f"{self._shown} has a document type declaration, which Backburner does not write."
        )
