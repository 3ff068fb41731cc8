#!/usr/bin/python
# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_windows_access
short_description: Get certificate and password of a new Windows instance on EC2
version_added: 0.1.0
author:
  - Renderfarm Cloud contributors
description:
  - Waits until a Windows instance has printed its WinRM certificate on its console, as a line
    C(RENDERFARM-CERTIFICATE <base64>), and until EC2 has its Administrator password. Writes both to files.
  - Who verifies WinRM connections with that certificate talks to exactly that instance. The console output comes
    through the AWS API, and no other machine can write to it.
  - Of several certificate lines the last one counts.
  - When the files for this instance and address are there, nothing is asked of AWS.
options:
  instance_id:
    description: Id of the instance.
    type: str
    required: true
  address:
    description:
      - The address to which Ansible will connect. The certificate must name it (IP address in the subject alternative
        name), else the task fails.
    type: str
    required: true
  key_file:
    description:
      - Private RSA key of the key pair with which the instance was launched. Required with O(password=true).
    type: path
  key_passphrase:
    description: Passphrase of O(key_file).
    type: str
  path:
    description:
      - Folder for the files, made when missing, with mode C(0700). It gets C(winrm.pem), C(password) and
        C(instance_id), each with mode C(0600).
    type: path
    required: true
  password:
    description: Get the password, too.
    type: bool
    default: true
  timeout:
    description: How long to wait, in seconds. A first boot of Windows takes 4 to 10 minutes.
    type: int
    default: 900
  poll_interval:
    description: Seconds between two looks.
    type: int
    default: 5
  force:
    description: Ask AWS even if the files are there.
    type: bool
    default: false
notes:
  - The IAM permissions that it needs are C(ec2:GetConsoleOutput), C(ec2:GetPasswordData) and C(ec2:DescribeInstances).
  - Reading a console at any moment needs an instance type on the Nitro system.
requirements:
  - cryptography
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    description: Does not wait and asks nothing of AWS. Reports a change when files are missing.
    support: full
  diff_mode:
    description: There is no diff, the files are secret.
    support: none
"""

EXAMPLES = r"""
- name: Trust the builder
  renderfarm.cloud.ec2_windows_access:
    instance_id: "{{ farm_instance_id }}"
    address: "{{ ansible_host }}"
    key_file: "{{ farm_state_dir }}/keys/studio.pem"
    path: "{{ farm_state_dir }}/access/{{ inventory_hostname }}"
    region: eu-central-1
  delegate_to: localhost
  register: access

- name: Connect with what it gave
  ansible.builtin.set_fact:
    ansible_winrm_ca_trust_path: "{{ access.certificate }}"
    ansible_password: "{{ lookup('ansible.builtin.file', access.password_file) }}"
  no_log: true
"""

RETURN = r"""
certificate:
  description: Path of the certificate, a PEM file.
  type: str
  returned: always
password_file:
  description: Path of the file that holds the password and nothing else. Empty with O(password=false).
  type: str
  returned: always
fingerprint:
  description: SHA-256 of the certificate in hexadecimal digits.
  type: str
  returned: when known
addresses:
  description: IP addresses that the certificate names.
  type: list
  elements: str
  returned: when known
not_after:
  description: When the certificate expires, ISO 8601 in UTC.
  type: str
  returned: when known
elapsed:
  description: Seconds waited.
  type: int
  returned: always
"""

import time
import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.renderfarm.cloud.plugins.module_utils.aws_errors import explain

try:
    from ansible_collections.renderfarm.cloud.plugins.module_utils import windows_access
except ImportError:
    CRYPTOGRAPHY_MISSING: str | None = traceback.format_exc()
else:
    CRYPTOGRAPHY_MISSING = None

try:  # noqa: SIM105
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    pass  # AnsibleAWSModule says it with a remedy


def argument_spec() -> dict[str, dict[str, Any]]:
    """The module's options, without those for the connection to AWS."""
    return {
        "instance_id": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "key_file": {"type": "path", "no_log": False},
        "key_passphrase": {"type": "str", "no_log": True},
        "path": {"type": "path", "required": True},
        "password": {"type": "bool", "default": True, "no_log": False},
        "timeout": {"type": "int", "default": 900},
        "poll_interval": {"type": "int", "default": 5},
        "force": {"type": "bool", "default": False},
    }


def run(module: Any) -> dict[str, Any]:
    """What the module returns. Raises AccessError, OSError and botocore's errors."""
    options = module.params
    folder = windows_access.Folder(Path(options["path"]))
    result: dict[str, Any] = {
        "changed": False,
        "certificate": str(folder.certificate),
        "password_file": str(folder.password) if options["password"] else "",
        "elapsed": 0,
    }
    known = folder.known(options["instance_id"], options["address"], with_password=options["password"])
    if module.check_mode:
        return {**result, "changed": known is None, **(facts(known) if known else {})}
    if known is not None and not options["force"]:
        return {**result, **facts(known)}
    key = None
    if options["password"]:
        key = windows_access.load_key(
            Path(options["key_file"]).read_bytes(), options["key_passphrase"], options["key_file"]
        )
    begin = time.monotonic()
    access = windows_access.wait_for_access(
        module.client("ec2", config={"retries": {"mode": "standard", "max_attempts": 8}}),
        options["instance_id"],
        options["address"],
        key,
        key_name=options["key_file"] or "",
        timeout=options["timeout"],
        poll_seconds=options["poll_interval"],
    )
    return {
        **result,
        "changed": folder.write(options["instance_id"], access.certificate, access.password),
        "elapsed": round(time.monotonic() - begin),
        **facts(access.certificate),
    }


def facts(certificate: windows_access.Certificate) -> dict[str, Any]:
    """What is said about a certificate."""
    return {
        "fingerprint": certificate.fingerprint,
        "addresses": list(certificate.addresses),
        "not_after": certificate.not_after,
    }


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec=argument_spec(),
        required_if=[("password", True, ("key_file",))],
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_MISSING is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_MISSING)
    instance_id = module.params["instance_id"]
    try:
        module.exit_json(**run(module))
    except windows_access.AccessError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Could not read or write the files for {instance_id}: {error}. Remedy: check its path.")
    except (BotoCoreError, ClientError) as error:
        module.fail_json(msg=explain(error, doing=f"get access to instance {instance_id}"))


if __name__ == "__main__":
    main()
