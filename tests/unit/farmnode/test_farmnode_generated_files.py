"""Generated backburner.xml files: after an edit everything but the edited values is there, byte by byte.

Each piece of a file is drawn together with what it must become; unknown elements, comments, white space, order,
declarations and encodings are drawn as well and must stay.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from farmnode_fakes import BUILDER, ENCODINGS, NODE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_farmnode_document import SPACE, fragment

from farmnode import backburner_xml

WANTED = {
    "ManagerName": "10.0.0.10",
    "ManagerPort": "3234",
    "ServerPort": "3233",
    "ServerName": NODE.name,
    "NetworkMask": "255.255.254.0",
}
NOW = st.sampled_from(["localhost", "", "3234", "10.0.0.10", "a b", "&lt;x&gt;", BUILDER.name])
Piece = tuple[str, str]


@st.composite
def element(draw: st.DrawFn, name: str, value: str) -> Piece:
    """A known element with any value, that gets ``value``; one that is right already keeps its spaces."""
    now, space = draw(NOW), draw(SPACE)
    if now.strip() == value:
        text = f"<{name}{space}>{space}{now}{space}</{name}>"
        return text, text
    # The builder's name is replaced first, and then the value.
    return f"<{name}{space}>{now}</{name}>", f"<{name}{space}>{value}</{name}>"


@st.composite
def mention(draw: st.DrawFn) -> Piece:
    """The builder's identity in some notation and place."""
    separator = draw(st.sampled_from(["", ":", "-"]))
    case = draw(st.sampled_from([str.lower, str.upper]))
    tail = draw(st.sampled_from(["", "0000"]))
    old, new = (case(each.mac.replace(":", separator)) + tail for each in (BUILDER, NODE))
    pair = draw(st.sampled_from([(old, new), (BUILDER.address, NODE.address), (BUILDER.computer_name, NODE.name)]))
    form = draw(st.sampled_from(["<Some>{}</Some>", '<Some at="{}"/>', "<!-- of {} -->", "<![CDATA[{}]]>"]))
    return form.format(pair[0]), form.format(pair[1])


SEARCH = st.sampled_from([("1", "0"), ("0", "0"), ("True", "False"), (" yes ", "no"), ("off", "off")]).map(
    lambda pair: tuple(f"<AutomaticSearch>{value}</AutomaticSearch>" for value in pair)
)
UNKNOWN = fragment().map(lambda text: (text, text))


@st.composite
def files(draw: st.DrawFn) -> Piece:
    known = [draw(element(name, value)) for name, value in WANTED.items()]
    search = draw(st.lists(SEARCH, max_size=1))
    others = draw(st.lists(st.one_of(UNKNOWN, mention()), max_size=8))
    pieces = draw(st.permutations([*known, *search, *others]))
    space = draw(SPACE)
    before, after = (space.join(["", *(piece[side] for piece in pieces), ""]) for side in (0, 1))
    head = draw(st.sampled_from(["", '<?xml version="1.0"?>\r\n', '<?xml version="1.0" encoding="utf-8"?>']))
    return f"{head}<Root>{before}</Root>{space}", f"{head}<Root>{after}</Root>{space}"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=files(), encoding=st.sampled_from(list(ENCODINGS)[:6]))
def test_only_values_change(drive: Path, drawn: Piece, encoding: str) -> None:
    mark, codec = ENCODINGS[encoding]
    declared = {"utf-16-le": "utf-16", "utf-16-be": "utf-16"}.get(codec, codec)
    before, after = (mark + text.replace('encoding="utf-8"', f'encoding="{declared}"').encode(codec) for text in drawn)
    path = drive / "backburner.xml"
    path.write_bytes(before)
    change = backburner_xml.edit(path, [BUILDER], NODE, WANTED)
    assert change.before.encode(change.after) == after
    if change.changed:
        assert backburner_xml.write(change).read_bytes() == before
        assert path.read_bytes() == after
    again = backburner_xml.edit(path, [BUILDER, NODE], NODE, WANTED)
    assert not again.changed and not again.changes


@pytest.mark.parametrize("name", WANTED)
def test_an_element_that_is_there_twice_is_refused(drive: Path, name: str) -> None:
    path = drive / "backburner.xml"
    text = "".join(f"<{each}>x</{each}>" for each in (*WANTED, name))
    path.write_text(f"<Root>{text}</Root>")
    with pytest.raises(backburner_xml.FarmNodeError, match=f"2 elements {name}"):
        backburner_xml.edit(path, [], None, WANTED)
