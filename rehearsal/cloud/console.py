"""What an instance tells without a login: console output and the Administrator's password."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from rehearsal.cloud.actions import action
from rehearsal.cloud.records import Instance, Params
from rehearsal.cloud.region import Region
from rehearsal.interfaces import RehearsalError

KEPT = 64 * 1024  # bytes; EC2 API Reference, GetConsoleOutput


def write(region: Region, instance: Instance, data: bytes) -> None:
    """Append to the serial console; the last 64 KiB are kept."""
    instance.console += data
    del instance.console[:-KEPT]
    instance.console_time = region.now()


def publish_password(region: Region, instance: Instance, password: str) -> None:
    """Encrypt with the public key that the instance was launched with. RehearsalError: it has none."""
    if instance.public_key is None:
        raise RehearsalError(
            f"{instance.id} was launched without a key pair, so EC2 cannot show its password. Launch it with KeyName."
        )
    key = load_ssh_public_key(instance.public_key)
    if not isinstance(key, RSAPublicKey):
        raise RehearsalError(f"The key pair {instance.key_name} of {instance.id} is not RSA: Windows needs RSA.")
    instance.password_data = base64.b64encode(key.encrypt(password.encode(), PKCS1v15())).decode()
    instance.password_time = region.now()


@action("GetConsoleOutput", "InstanceId", optional=("Latest",))
def get_console_output(region: Region, params: Params) -> Params:
    """With Latest what is there now, without it what was there at the last change of state.

    EC2 User Guide, "Instance console output": without Latest the output is the one posted around a start, stop,
    reboot or termination.
    """
    instance = region.instance(params["InstanceId"])
    if params.get("Latest"):
        text, moment = bytes(instance.console), instance.console_time
    else:
        text, moment = instance.posted, instance.posted_time
    return {
        "InstanceId": instance.id,
        "Output": base64.b64encode(text).decode() if text else None,
        "Timestamp": moment if moment is not None else instance.launch_time,
    }


@action("GetPasswordData", "InstanceId")
def get_password_data(region: Region, params: Params) -> Params:
    """Empty until the guest has published a password (EC2 API Reference, GetPasswordData)."""
    instance = region.instance(params["InstanceId"])
    return {
        "InstanceId": instance.id,
        "PasswordData": instance.password_data,
        "Timestamp": instance.password_time if instance.password_time is not None else region.now(),
    }
