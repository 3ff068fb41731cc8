"""A controller that knows one EC2 only, a local one, and nothing of the user's own settings."""

from __future__ import annotations

import os

from tests.bench.document import PROJECT


def environment(endpoint: str, **more: str) -> dict[str, str]:
    """The environment of Ansible's commands in a bench."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))}
    return {
        **kept,
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
        **more,
    }
