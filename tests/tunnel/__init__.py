"""A studio, an internet and a cloud in network namespaces, joined by the real OpenVPN: for tests and measurements."""

from __future__ import annotations

import tests.plugin_loader  # noqa: F401 - before any import from a collection
