# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that are about a farm as a whole."""

    DOCUMENTATION = r"""
options:
  farm:
    description: Name of the farm, the value of the tag C(renderfarm:farm).
    type: str
    required: true
"""

    REGIONS = r"""
options:
  regions:
    description: Regions that it is about. Without it, O(region) alone.
    type: list
    elements: str
"""
