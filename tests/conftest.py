"""Lets every test import the collection, and find its plugins, as Ansible does."""

from __future__ import annotations

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

# Before any import of ansible_collections: a plain namespace package of that name would hide the installed collections.
init_plugin_loader([str(Path(__file__).resolve().parents[1] / "collections")])
