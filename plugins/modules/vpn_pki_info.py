#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vpn_pki_info
short_description: Read the certificates of the tunnel
version_added: 0.1.0
description:
  - Reads the public files of the folder that the role C(renderfarm.cloud.vpn_pki) keeps, and says what is valid for how
    long, what is revoked and what has to be made.
  - Private keys are never opened; only their presence and their mode are looked at.
author:
  - Renderfarm Cloud contributors (@renderfarm)
options:
  path:
    description: Folder of the PKI. One that is not there counts as empty.
    type: path
    required: true
  certificates:
    description: The certificates that are wanted. Without it, every certificate in use is taken for wanted.
    type: list
    elements: dict
    suboptions:
      name:
        description: Common name and name of the file.
        type: str
        required: true
      usage:
        description: What it must be usable for.
        type: str
        choices: [server, client]
        required: true
  renew:
    description: Names that are to be renewed whatever their dates say.
    type: list
    elements: str
    default: []
  renew_days:
    description: What expires in fewer days is due.
    type: int
    default: 60
  warn_days:
    description: Warn of everything that expires in fewer days; V(0) warns of nothing.
    type: int
    default: 0
requirements:
  - cryptography
attributes:
  check_mode:
    description: The module changes nothing.
    support: full
  diff_mode:
    description: The module changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Read the certificates of the tunnel
  renderfarm.cloud.vpn_pki_info:
    path: "{{ farm_state_dir }}/pki"
    warn_days: 60
  register: tunnel_pki
"""

RETURN = r"""
authority:
  description: The certificate authority, with the keys of an item of RV(certificates).
  type: dict
  returned: always
revocations:
  description: The revocation list and the entries that it must have.
  type: dict
  returned: always
  sample: {next_update: "2036-11-20T00:00:00Z", days_left: 3649, state: good, action: none, reason: "", entries: []}
certificates:
  description: The certificates that are wanted or in use.
  type: list
  elements: dict
  returned: always
  contains:
    name: {description: Common name., type: str}
    usage: {description: V(server) or V(client)., type: str}
    serial: {description: Serial number in hexadecimal digits., type: str}
    not_before: {description: First moment of validity in UTC., type: str}
    not_after: {description: Last moment of validity in UTC., type: str}
    days_left: {description: "Whole days until then, negative afterwards.", type: int}
    revoked: {description: Whether it is revoked., type: bool}
    state: {description: "V(good), V(due), V(expired), V(revoked), V(missing) or V(unusable).", type: str}
    action: {description: "V(none), V(make), V(renew), V(archive) or V(refuse).", type: str}
    reason: {description: Why., type: str}
    path: {description: File of the certificate., type: str}
    files: {description: "Files that belong to it, the certificate last.", type: list}
archived:
  description: Certificates that a renewal replaced, with the same keys.
  type: list
  elements: dict
  returned: always
revoked:
  description: Certificates that are revoked, with the same keys.
  type: list
  elements: dict
  returned: always
"""

import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils import vpn_certificates


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "certificates": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "usage": {"type": "str", "required": True, "choices": ["server", "client"]},
                },
            },
            "renew": {"type": "list", "elements": "str", "default": []},
            "renew_days": {"type": "int", "default": 60},
            "warn_days": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    if vpn_certificates.CRYPTOGRAPHY_ERROR is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=traceback.format_exc())
    wanted = module.params["certificates"]
    try:
        pki = vpn_certificates.read_pki(
            Path(module.params["path"]),
            wanted=None if wanted is None else {item["name"]: item["usage"] for item in wanted},
            renew=module.params["renew"],
            renew_days=module.params["renew_days"],
        )
    except (vpn_certificates.PkiError, OSError) as error:
        module.fail_json(msg=str(error))
    for text in vpn_certificates.warnings(pki, module.params["warn_days"]):
        module.warn(text)
    module.exit_json(changed=False, **pki.as_dict())


if __name__ == "__main__":
    main()
