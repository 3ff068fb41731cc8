"""Starts Ansible's own loader of collections; importing this module does it, once.

It must come before anything imports ``ansible_collections``: Python would make it an ordinary package, and templates
rendered later in the same process would not find the collection's filters.
"""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

init_plugin_loader([str(Path(__file__).resolve().parents[1] / "collections")])
