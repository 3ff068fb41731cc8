"""XML edited as text: every byte outside of the edits stays."""

from __future__ import annotations

from functools import partial
from xml.etree import ElementTree

import pytest
from farmnode_fakes import BUILDER, ENCODINGS, NODE, SAMPLE, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

from farmnode import document
from farmnode.errors import FarmNodeError
from farmnode.identity import replace_identity

NAMES = ("ManagerName", "ManagerPort", "ServerPort", "NetworkMask", "ServerName")


def replaced(text: str) -> tuple[str, int]:
    return document.map_content(text, partial(replace_identity, old=BUILDER, new=NODE), "x.xml")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bytes_come_back_as_they_were(encoding: str) -> None:
    data = encoded(SAMPLE, encoding)
    found = document.decode(data, "x.xml")
    assert found.encode(found.text) == data
    assert document.set_values(found.text, {}, "x.xml") == found.text
    assert (found.bom, found.codec) == ENCODINGS[encoding]


def test_without_declaration() -> None:
    assert document.decode(b"<a/>", "x.xml").codec == "utf-8"


def test_a_declaration_that_its_own_bytes_belie_is_not_believed() -> None:
    data = b'<?xml version="1.0" encoding="utf-16"?><a>\xc3\xa9</a>'
    assert document.decode(data, "x.xml").text.endswith("<a>\u00e9</a>")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "klingon"),
        (b'<?xml version="1.0" encoding="rot13"?><a/>', "rot13"),
        (b"<a>\xe9</a>", "not valid utf-8"),
        (b"\xff\xfe<", "not valid utf-16-le"),
        (b'<?xml version="1.0" encoding="utf-7"?><a>+AGE-</a>', "byte for byte"),
    ],
)
def test_encodings_that_cannot_be_kept_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(FarmNodeError, match=said) as caught:
        document.decode(data, "x.xml")
    assert caught.value.reason == "broken_xml"


@pytest.mark.parametrize("text", ["", "<a>", "<a></b>", "<a/><b/>", "<a b=1/>", "text", "<a>&unknown;</a>"])
def test_what_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(FarmNodeError, match=r"x\.xml is not well-formed.*x\.xml\.bak") as caught:
        document.set_values(text, {}, "x.xml")
    assert caught.value.reason == "broken_xml"


def test_document_types_are_refused() -> None:
    with pytest.raises(FarmNodeError, match="document type"):
        document.only("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", [], "x.xml")


def test_values_are_set_by_name() -> None:
    wanted = {"ManagerName": "10.0.0.10", "ServerName": "ip-10-0-0-21"}
    changed = document.set_values(SAMPLE, wanted, "x.xml")
    assert changed == SAMPLE.replace(">localhost<", ">10.0.0.10<").replace(">ec2amaz-build01<", ">ip-10-0-0-21<")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<r><A/></r>", "<r><A>v</A></r>"),
        ("<r><A /></r>", "<r><A >v</A></r>"),
        ("<r><A b='/>' c=\">\"/>x</r>", "<r><A b='/>' c=\">\">v</A>x</r>"),
        ("<r><A></A></r>", "<r><A>v</A></r>"),
        ("<r><A b='>'>old</A ></r>", "<r><A b='>'>v</A ></r>"),
        ("<r><A>\n v \n</A></r>", "<r><A>\n v \n</A></r>"),
        ("<r><A><![CDATA[v]]></A></r>", "<r><A><![CDATA[v]]></A></r>"),
        ("<r><A><![CDATA[<old>]]>&amp;</A></r>", "<r><A>v</A></r>"),
        ("<A/>", "<A>v</A>"),
        ("<?pi <A> ?><!-- <A> --><A/><?pi?>", "<?pi <A> ?><!-- <A> --><A>v</A><?pi?>"),
        ("<r>é€𝄞<A>old</A>é</r>", "<r>é€𝄞<A>v</A>é</r>"),
    ],
)
def test_spellings_of_an_element(before: str, after: str) -> None:
    assert document.set_values(before, {"A": "v"}, "x.xml") == after


def test_values_are_escaped() -> None:
    changed = document.set_values("<r><A>x</A></r>", {"A": "<&>"}, "x.xml")
    assert ElementTree.fromstring(changed).findtext("A") == "<&>"


def test_all_missing_elements_are_named() -> None:
    with pytest.raises(FarmNodeError, match=r"x\.xml lacks ManagerName, ServerName\.") as caught:
        document.set_values("<r><B/></r>", {"ManagerName": "", "B": "", "ServerName": ""}, "x.xml")
    assert caught.value.reason == "missing_element"


def test_an_element_in_two_sections_is_refused() -> None:
    with pytest.raises(FarmNodeError, match=r"2 elements A .r/s/A, r/t/A."):
        document.set_values("<r><s><A/></s><t><A/></t></r>", {"A": "v"}, "x.xml")


@pytest.mark.parametrize("content", ["<b/>", "x<!-- y -->", "<?z?>x"])
def test_an_element_with_more_than_text_is_refused(content: str) -> None:
    with pytest.raises(FarmNodeError, match=r"r/A of x.xml holds more than text"):
        document.set_values(f"<r><A>{content}</A></r>", {"A": "v"}, "x.xml")


def test_the_sample_loses_every_trace_of_the_builder_where_it_says_something() -> None:
    changed, count = replaced(SAMPLE)
    assert count == 10
    assert "<Peers>10.0.0.20 10.0.0.21;ip-10-0-0-21.eu-central-1.compute.internal</Peers>" in changed
    assert "<![CDATA[ip-10-0-0-21 & <others>]]> Größe &lt;1&gt;" in changed
    assert '<?keep this="EC2AMAZ-BUILD01"?>' in changed
    assert 'mac="06-11-22-33-44-5F" address="10.0.0.21"' in changed
    assert "Written on ip-10-0-0-21 (06:11:22:33:44:5f)" in changed
    assert changed.count("\r\n") == SAMPLE.count("\r\n")
    assert replaced(changed) == (changed, 0)


def test_markup_that_looks_like_the_name_stays() -> None:
    text = (
        '<?xml version="1.0"?><server server="server" other=\'server\'><!--server--><![CDATA[server]]>&server;'
        "</server><!-- xml -->"
    ).replace("&server;", "&amp;")
    for name, count in (("server", 4), ("CDATA", 0), ("amp", 0), ("xml", 1), ("version", 0), ("other", 0)):
        changed, changes = document.map_content(
            text, lambda piece, name=name: (piece.replace(name, "n"), piece.count(name)), "x"
        )
        assert changes == count, name
        ElementTree.fromstring(changed)
        assert changed.replace("n", "") != "" and changed.startswith("<?xml")


# ------------------------------------------------------------------------------------------------- generated documents

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="<>&\r\ufeff\ufffe\uffff"),
    max_size=12,
)
TAG = st.sampled_from(["Alpha", "beta", "Gamma_1", "Délta", "x.y-z"])
QUOTED = TEXT.map(lambda text: text.replace('"', "'").replace("\n", " "))
SPACE = st.sampled_from(["", " ", "\r\n", "\n\t"])


@st.composite
def fragment(draw: st.DrawFn, depth: int = 0) -> str:
    kind = draw(st.sampled_from(["text", "comment", "cdata", "empty", "reference", "instruction", *(["element"] * 3)]))
    if kind == "comment":
        return f"<!--{draw(TEXT).replace('-', '_')}-->"
    if kind == "cdata":
        return f"<![CDATA[{draw(TEXT).replace(']', '_')}<&>]]>"
    if kind == "reference":
        return draw(st.sampled_from(["&lt;", "&amp;", "&#65;", "&#x42;"]))
    if kind == "instruction":
        return f"<?pi {draw(TEXT).replace('?', '_')}?>"
    tag = draw(TAG)
    attribute = f' a{draw(SPACE)}={draw(SPACE)}"{draw(QUOTED)}>"' if draw(st.booleans()) else ""
    if kind == "empty":
        return f"<{tag}{attribute}{draw(SPACE)}/>"
    if kind == "element" and depth < 3:
        inner = "".join(draw(st.lists(fragment(depth + 1), max_size=4)))
        return f"<{tag}{attribute}{draw(SPACE)}>{inner}</{tag}{draw(SPACE)}>"
    return draw(TEXT)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A document that has each of `NAMES` once, and their values."""
    values = {name: draw(st.sampled_from(["localhost", "3234", "10.0.0.200", "x-y"])) for name in NAMES}
    wanted = [f"<{name}{draw(SPACE)}>{value}</{name}>" for name, value in values.items()]
    pieces = draw(st.permutations([*wanted, *draw(st.lists(fragment(), max_size=8))]))
    half = draw(st.integers(0, len(pieces)))
    body = "".join(pieces[:half]) + "<Section>" + "".join(pieces[half:]) + "</Section>"
    head = draw(st.sampled_from(["", '<?xml version="1.0"?>\r\n', '<?xml version="1.0" encoding="utf-8"?>']))
    return f"{head}<Root>{body}</Root>{draw(SPACE)}", values


@settings(max_examples=150, deadline=None)
@given(documents(), st.sampled_from(list(ENCODINGS)[:6]))
def test_setting_values_changes_their_text_and_nothing_else(drawn: tuple[str, dict[str, str]], encoding: str) -> None:
    text, values = drawn
    if encoding.endswith("without mark") and not text.startswith("<"):
        return
    data = encoded(text, encoding)
    found = document.decode(data, "x.xml")
    wanted = {name: f"new-{name}" for name in NAMES}
    changed = document.set_values(found.text, wanted, "x.xml")
    assert {name: element.value for name, element in document.only(changed, NAMES, "x.xml").items()} == wanted
    expected = found.text
    for name, value in values.items():
        start = expected.index(f"<{name}")
        at = expected.index(">", start) + 1
        expected = expected[:at] + f"new-{name}" + expected[at + len(value) :]
    assert changed == expected
    back = document.set_values(changed, values, "x.xml")
    assert found.encode(back) == data


@settings(max_examples=100, deadline=None)
@given(documents())
def test_a_content_change_never_touches_markup(drawn: tuple[str, dict[str, str]]) -> None:
    text, _ = drawn
    assert document.map_content(text, lambda piece: (piece, 0), "x.xml") == (text, 0)
    before = [(each.tag, sorted(each.attrib)) for each in ElementTree.fromstring(text.encode()).iter()]
    changed, _ = document.map_content(
        text, lambda piece: ("".join("z" if c.isalpha() else c for c in piece), 1), "x.xml"
    )
    after = [(each.tag, sorted(each.attrib)) for each in ElementTree.fromstring(changed.encode()).iter()]
    assert before == after
