#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: openvpn_tls_crypt_v2
short_description: Make tls-crypt-v2 keys for OpenVPN
version_added: 0.1.0
description:
  - Makes the server key and one key for each client, as C(openvpn --genkey tls-crypt-v2-server) and
    C(tls-crypt-v2-client) would, without the program.
  - Keys that exist and fit the server key are kept. A client key that does not fit is an error, never overwritten.
author:
  - Renderfarm Cloud contributors (@renderfarm)
options:
  path:
    description: Folder of the keys. It must exist.
    type: path
    required: true
  clients:
    description: Names of the clients, one key file C(<name>.tls-crypt-v2.key) for each.
    type: list
    elements: str
    default: []
requirements:
  - cryptography
attributes:
  check_mode:
    description: Says what would be made and makes nothing.
    support: full
  diff_mode:
    description: Keys are secret and never shown.
    support: none
"""

EXAMPLES = r"""
- name: Make the keys of the studio's tunnel
  renderfarm.cloud.openvpn_tls_crypt_v2:
    path: "{{ farm_state_dir }}/pki"
    clients:
      - aws-gateway
"""

RETURN = r"""
created:
  description: Names of the files that were made (or would be, in check mode).
  type: list
  elements: str
  returned: always
  sample: [tls-crypt-v2-server.key, aws-gateway.tls-crypt-v2.key]
"""

import os
import re
import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils import openvpn_keys

SERVER_FILE = "tls-crypt-v2-server.key"


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read; it is never visible half written."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(path)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "clients": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
        supports_check_mode=True,
    )
    if openvpn_keys.CRYPTOGRAPHY_ERROR is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=traceback.format_exc())
    folder = Path(module.params["path"])
    if not folder.is_dir():
        module.fail_json(msg=f"path: the folder {folder} does not exist; create it with mode 0700 first")
    for name in module.params["clients"]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
            module.fail_json(
                msg=f"clients: {name!r} is no name for a file (letters, digits, dot, hyphen; example: aws-gateway)"
            )

    created: list[str] = []
    server_file = folder / SERVER_FILE
    if server_file.exists():
        server = server_file.read_text()
    else:
        server = openvpn_keys.server_key()
        created.append(SERVER_FILE)
        if not module.check_mode:
            _write_secret(server_file, server)
    for name in module.params["clients"]:
        client_file = folder / f"{name}.tls-crypt-v2.key"
        try:
            if client_file.exists():
                if not openvpn_keys.client_key_matches(server, client_file.read_text()):
                    module.fail_json(
                        msg=f"{client_file} was made for another server key than {server_file}: restore the one that "
                        "belongs to it from your backup, or delete the client's key to have a new one made"
                    )
                continue
            client = openvpn_keys.client_key(server)
        except openvpn_keys.KeyFormatError as error:
            module.fail_json(
                msg=f"{server_file} and {client_file}: {error}; restore them from your backup or delete both"
            )
        created.append(client_file.name)
        if not module.check_mode:
            _write_secret(client_file, client)
    module.exit_json(changed=bool(created), created=created)


if __name__ == "__main__":
    main()
