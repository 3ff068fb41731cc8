"""CLIXML as ansible-core itself reads it."""

from __future__ import annotations

import pytest

from rehearsal.winrm import clixml

reader = pytest.importorskip("ansible._internal._powershell._clixml")


@pytest.mark.parametrize("text", ["plain", "a <b> & 'c'", "one\ntwo", "tab\there _x000A_ ä €", "rocket \U0001f680", ""])
def test_round_trip(text: str) -> None:
    document = clixml.error_stream(text)
    assert document.startswith(b"#< CLIXML\r\n<Objs ")
    assert reader.replace_stderr_clixml(document).decode() == text.replace("\n", "\r\n") + "\r\n"
