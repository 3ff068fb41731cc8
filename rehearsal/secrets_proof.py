"""Proves that no secret of the farm is anywhere but where it belongs.

The secrets are known: the keys of the tunnels, of the authority and of the key pair, the passwords of the machines and
those of the vault. They are looked for, in the ways in which a program might write them, in everything that a rehearsal
leaves: disks of images and machines, consoles, logs of machines, of the region and of Ansible, and in what EC2 is given
(user data, launch templates, tags).
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rehearsal.session import ProofError, Rehearsal

SHORTEST = 12
"""Characters of a secret that is looked for: a shorter text may be anywhere by chance."""
LINES_OF_A_KEY = 3
OWN_TUNNEL = re.compile(r"machines/[^/]+/c/Program Files/OpenVPN/config-auto/[^/]+\.ovpn$")
"""A machine's end of a tunnel: with its own key, and with its own or the server's key of the handshake."""
OF_THE_SHARE = {
    "share.json": "vault_share_password",
    "share.pem": "share/share.key",
}
"""What the manager tells its nodes and with which key, in a folder that only Windows itself and administrators read."""
MANAGER_SECRETS = re.compile(r"machines/[^/]+-manager/c/ProgramData/RenderFarm/secrets/([^/]+)$")

# Everything that EC2 is given by the farm, in one process: each start of the AWS CLI takes a second.
_ASK_EC2 = """
import boto3, json
ec2 = boto3.client("ec2")
found = {}
for reservation in ec2.describe_instances()["Reservations"]:
    for instance in reservation["Instances"]:
        name = instance["InstanceId"]
        data = ec2.describe_instance_attribute(InstanceId=name, Attribute="userData").get("UserData", {})
        found["user data of " + name] = data.get("Value", "")
        found["what EC2 tells of " + name] = json.dumps(instance, default=str)
for template in ec2.describe_launch_templates()["LaunchTemplates"]:
    versions = ec2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"])
    for version in versions["LaunchTemplateVersions"]:
        title = "launch template " + template["LaunchTemplateName"]
        found[title] = json.dumps(version, default=str)
        found["user data of " + title] = version["LaunchTemplateData"].get("UserData", "")
print(json.dumps(found))
"""


def secrets(folder: Path) -> dict[str, list[str]]:
    """What must not be seen: name of the secret -> texts that it is known by.

    :raises ProofError: a secret that every farm has is missing, so that this would prove nothing.
    """
    controller = folder / "controller"
    found = {f"pki/{path.name}": _key_lines(path) for path in controller.glob("pki/**/*.key")}
    found |= {f"keys/{path.name}": _key_lines(path) for path in controller.glob("keys/*.pem")}
    found |= {f"share/{path.name}": _key_lines(path) for path in controller.glob("share/*.key")}
    for path in controller.glob("hosts/*/password"):
        found[f"password of {path.parent.name}"] = [path.read_text().strip()]
    settings: dict[str, Any] = yaml.safe_load((folder / "inventory/group_vars/all/rehearsal.yml").read_text())
    found |= {name: [str(value)] for name, value in settings.items() if name.startswith("vault_")}
    for name in ("pki/ca.key", "pki/tls-crypt-v2-server.key", "vault_ca_passphrase", "vault_workstation_password"):
        if not found.get(name):
            raise ProofError(f"{name} is not known, so nothing can be proved of it (is the farm up?)")
    if weak := [name for name, texts in found.items() if not texts or min(map(len, texts)) < SHORTEST]:
        raise ProofError(f"too short to be looked for: {', '.join(sorted(weak))}")
    return found


def _key_lines(path: Path) -> list[str]:
    """Lines of a key file's body that are secret: the last one of a private key holds its public key, too."""
    body = [line for line in path.read_text().splitlines() if line and not line.startswith("-----") and ":" not in line]
    return body[: min(LINES_OF_A_KEY, len(body) - 1) or 1]


def spellings(text: str) -> set[bytes]:
    """A text as it is, as JSON and XML write it, as Windows writes it, and within anything in base64."""
    escaped = {text, json.dumps(text)[1:-1], text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    plain = {each.encode(encoding) for each in escaped for encoding in ("utf-8", "utf-16-le")}
    return plain | {_inside_base64(data, start) for data in plain for start in range(3)}


def _inside_base64(data: bytes, start: int) -> bytes:
    """The characters of base64 that are the same whatever stands before and after ``data``.

    :param start: how many bytes over a multiple of three stand before it.
    """
    whole = base64.b64encode(b"\0" * start + data)
    return whole[-(-start * 8 // 6) : (start + len(data)) * 8 // 6]


def places(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that a rehearsal leaves, but for the controller's own folder, its settings and the download server."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name.split("/", 1)[0] not in ("controller", "inventory", "downloads"):
            data = path.read_bytes()
            if path.name == "host.json":
                # the passwords of its accounts, which Windows keeps as hashes
                data = json.dumps({**json.loads(data), "accounts": None}).encode()
            yield name, data


def misplaced(place: str, data: bytes, known: dict[str, set[bytes]]) -> list[str]:
    """Names of the secrets that are in ``data`` and do not belong there."""
    found = [name for name, written in known.items() if any(text in data for text in written)]
    if OWN_TUNNEL.search(place):
        keys = [name for name in found if name.startswith("pki/") and name != "pki/ca.key"]
        handshake = [name for name in keys if "tls-crypt-v2" in name]
        if len(handshake) <= 1 and len(keys) - len(handshake) <= 1:
            return [name for name in found if name not in keys]
    if own := MANAGER_SECRETS.search(place):
        return [name for name in found if name != OF_THE_SHARE.get(own[1])]
    return found


def prove_no_secrets(rehearsal: Rehearsal) -> str:
    """To be asked while the farm is up, after playbooks with ``-vvv --diff``, so that Ansible shows all that it can.

    :raises ProofError: a secret is where it does not belong. The text names both, never the secret itself.
    """
    known = {
        name: {written for text in texts for written in spellings(text)}
        for name, texts in secrets(rehearsal.folder).items()
    }
    given: dict[str, str] = json.loads(rehearsal.command(sys.executable, "-c", _ASK_EC2))
    looked = [*places(rehearsal.folder), *((name, text.encode()) for name, text in given.items())]
    for kind in ("images/", "machines/", "logs/", "cloud.log", "user data of i-"):
        if not any(place.startswith(kind) and data for place, data in looked):
            raise ProofError(f"nothing of {kind} was found, so nothing can be proved of it")
    problems = [f"{place} shows {name}" for place, data in looked for name in misplaced(place, data, known)]
    if problems:
        raise ProofError(f"secrets are where they do not belong: {'; '.join(problems[:20])}")
    size = sum(len(data) for _, data in looked) / 1e6
    return f"none of {len(known)} secrets is in {len(looked)} files and answers of EC2 ({size:.0f} MB)"
