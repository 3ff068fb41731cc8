"""CLIXML: how PowerShell writes its error stream when standard error is not a console.

Source: "[MS-PSRP]: PowerShell Remoting Protocol", 2.2.5 (serialization); ansible-core reads it in
``ansible._internal._powershell._clixml``.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

_HEADER = b"#< CLIXML\r\n"
_NAMESPACE = "http://schemas.microsoft.com/powershell/2004/04"
# Control characters, surrogates and literal texts that look like an escape are written as _xHHHH_ (UTF-16 code units).
_ESCAPED = re.compile("[\x00-\x1f\x7f\ud800-\udfff\U00010000-\U0010ffff]|_(?=[xX][0-9A-Fa-f]{4}_)")


def _code_units(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", errors="surrogatepass")
    return "".join(f"_x{units[i] << 8 | units[i + 1]:04X}_" for i in range(0, len(units), 2))


def error_stream(text: str) -> bytes:
    """Return ``text`` as the CLIXML document that PowerShell writes to standard error, one entry for each line."""
    lines = text.splitlines() or [""]
    entries = "".join(f'<S S="Error">{escape(_ESCAPED.sub(_code_units, line))}_x000D__x000A_</S>' for line in lines)
    return _HEADER + f'<Objs Version="1.1.0.1" xmlns="{_NAMESPACE}">{entries}</Objs>'.encode()
