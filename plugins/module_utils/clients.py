# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients of one module in several Regions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

from .prices import price_region

_RETRIES = {"mode": "standard", "max_attempts": 8}


def regions(module: AnsibleAWSModule) -> list[str]:
    """The module's option ``regions``, each once; without it, its own Region."""
    return list(dict.fromkeys(module.params["regions"] or [module.region]))


def bucket(module: AnsibleAWSModule, region: str) -> str:
    """The module's option ``bucket`` where it is looked at, once: with the module's own Region."""
    return str(module.params["bucket"]) if region == regions(module)[0] else ""


def of_region(module: AnsibleAWSModule, region: str) -> Callable[[str], Any]:
    """Gives botocore's client of a service in ``region``, with the credentials that the module was given."""

    @cache
    def client(service: str) -> Any:
        where = price_region(region) if service == "pricing" else region
        return module.client(service, region=where, config={"retries": _RETRIES})

    return client
