"""Run ``ansible`` and tell how much CPU time its parts took: ``python -m tests.bench.parts RESULT ARGUMENT...``.

A clock stands around a few large parts only, so the run takes no longer than without. It counts the thread's own CPU
time: what waits (for EC2, for another thread) costs nothing. What runs inside a part and is a part itself counts there
alone. RESULT gets the seconds by the part's title, as JSON.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OURS = "ansible_collections.renderfarm.cloud.plugins"
_API = f"{_OURS}.plugin_utils.ec2_inventory_api"
# title, module, and the function in it
PARTS = (
    ("plugin: read its own settings", f"{_OURS}.inventory.ec2_farm", "InventoryModule._read_settings"),
    ("botocore: import, sessions, clients", _API, "connect"),
    ("botocore: sign, send, receive", _API, "_fetch_place"),
    ("expat: answers to trees of elements", _API, "ElementTree.fromstring"),
    ("plugin: elements to fields", _API, "read_page"),
    ("plugin: names, groups, variables", f"{_OURS}.plugin_utils.ec2_inventory", "build"),
    ("ansible-core: add_host, add_child for each host", f"{_OURS}.inventory.ec2_farm", "InventoryModule._add"),
    ("ansible-core: read the sources, the rest", "ansible.inventory.manager", "InventoryManager.parse_sources"),
    ("ansible-core: reconcile_inventory", "ansible.inventory.data", "InventoryData.reconcile_inventory"),
    ("ansible-core: look for host_vars of each host", "ansible.inventory.manager", "get_vars_from_inventory_sources"),
    ("ansible-core: resolve the pattern", "ansible.inventory.manager", "InventoryManager.list_hosts"),
)


class Clock:
    """CPU seconds by title."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._running = threading.local()

    def around(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            outer = getattr(self._running, "title", None)
            self._running.title = title
            begun = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                took = time.thread_time() - begun
                self.seconds[title] += took
                if outer is not None:
                    self.seconds[outer] -= took
                self._running.title = outer

        return timed

    def watch(self) -> None:
        """Put the clock around all parts. What is not there any more is an error, so that no part is left out."""
        for title, module, path in PARTS:
            *owners, name = path.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            setattr(owner, name, self.around(title, getattr(owner, name)))


def main() -> None:
    import ansible.cli
    from ansible.cli.adhoc import AdHocCLI

    result, *arguments = sys.argv[1:]
    clock = Clock()
    init_plugin_loader = ansible.cli.init_plugin_loader

    def then_watch(*paths: Any) -> None:
        init_plugin_loader(*paths)
        clock.watch()

    ansible.cli.init_plugin_loader = then_watch
    try:
        AdHocCLI.cli_executor(["ansible", *arguments])
    finally:
        Path(result).write_text(json.dumps({title: clock.seconds[title] for title, *_ in PARTS}), encoding="utf-8")


if __name__ == "__main__":
    main()
