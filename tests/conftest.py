from __future__ import annotations

import tests.plugin_loader  # noqa: F401 - before any test imports from a collection
