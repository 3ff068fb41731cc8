"""OpenVPN's service with the real program, in network namespaces of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.openvpn import find_binary

REPOSITORY = Path(__file__).parents[3]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare"),
]


def test_a_tunnel_from_configurations_for_windows(tmp_path: Path):
    find_binary()
    unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--"]
    done = subprocess.run(
        [*unshare, sys.executable, Path(__file__).with_name("openvpn_scenario.py"), tmp_path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["talk"] == "hello from 10.8.0.2"
    assert "10.99.0.0/24 tun0" in result["routes"]
    assert result["one interface"] == {"all": "0", "tun0": "1", "eth0": "0"}
    assert result["router"] == {"all": "1", "tun0": "1", "eth0": "1"}
    assert result["processes left"] == []
    assert result["routes after"] == ["198.18.9.0/24 eth0"]
