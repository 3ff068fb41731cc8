"""The instance metadata service of EC2, version 2 (session token required).

Source: Amazon EC2 User Guide, "Use IMDS to access instance metadata" and "Instance metadata categories".
"""

from __future__ import annotations

import http.client
import urllib.parse
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from farmnode.clock import Clock
from farmnode.errors import FarmNodeError
from farmnode.identity import Identity

ENDPOINT: Final = "169.254.169.254"
_TOKEN_SECONDS: Final = "21600"


@dataclass(frozen=True)
class Instance:
    """What EC2 says about this machine."""

    instance_id: str
    mac: str
    address: IPv4Address
    subnet: IPv4Network
    host_name: str
    role_tag: str | None
    user_data: bytes

    @property
    def identity(self) -> Identity:
        """Name is the first label of the host name, which the VPC's DNS resolves to the private address."""
        return Identity(mac=self.mac, name=self.host_name.split(".")[0], address=str(self.address))


class MetadataClient:
    """Asks the metadata service, past silence and passing errors, until ``limit`` seconds after the first question."""

    def __init__(self, clock: Clock, *, endpoint: str = ENDPOINT, limit: float = 120.0, timeout: float = 2.0) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._limit = limit
        self._end: float | None = None
        self._timeout = timeout
        self._token: str | None = None

    def instance(self) -> Instance:
        """Everything that a boot needs, in eight requests."""
        mac = self.require("meta-data/mac")
        user_data = self.get("user-data")
        tag = self.get("meta-data/tags/instance/renderfarm:role")
        try:
            return Instance(
                instance_id=self.require("meta-data/instance-id"),
                mac=mac,
                address=IPv4Address(self.require("meta-data/local-ipv4")),
                subnet=IPv4Network(self.require(f"meta-data/network/interfaces/macs/{mac}/subnet-ipv4-cidr-block")),
                host_name=self.require("meta-data/local-hostname"),
                role_tag=tag.decode("utf-8", "replace").strip() if tag is not None else None,
                user_data=user_data or b"",
            )
        except ValueError as error:
            raise FarmNodeError("metadata", f"the metadata service gives no usable address: {error}.") from error

    def require(self, path: str) -> str:
        """The text at ``/latest/<path>``; FarmNodeError when there is none."""
        body = self.get(path)
        if body is None or not body.strip():
            raise FarmNodeError(
                "metadata", f"the metadata service has no {path}; see that DNS host names are enabled for the VPC."
            )
        return body.decode("utf-8", "replace").strip()

    def get(self, path: str) -> bytes | None:
        """The bytes at ``/latest/<path>``, None when the service says that there is none (404).

        Raises FarmNodeError when the service refuses (403: switched off for the instance) or stays silent.
        """
        if self._end is None:
            self._end = self._clock.monotonic() + self._limit
        answer: list[bytes | None] = []
        problem = "no answer"

        def asked() -> bool:
            nonlocal problem
            try:
                answer.append(self._ask(path))
            except _Passing as error:
                problem = str(error)
                return False
            return True

        if not self._clock.wait(asked, self._end - self._clock.monotonic(), first=0.25, most=5.0):
            raise FarmNodeError(
                "metadata",
                f"the metadata service did not give {path} within {self._limit:g} seconds ({problem}); "
                "see that the instance's metadata options enable it.",
            )
        return answer[0]

    def _ask(self, path: str) -> bytes | None:
        if self._token is None:
            status, body = self._request("PUT", "api/token", {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS})
            if status != 200:
                raise _refusal(status, "a token")
            self._token = body.decode("ascii", "replace").strip()
        status, body = self._request("GET", path, {"X-aws-ec2-metadata-token": self._token})
        if status == 200:
            return body
        if status == 404:
            return None
        if status == 401:
            self._token = None  # expired, or the machine was resumed from another time
        raise _refusal(status, path)

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        # Straight to the address, which is link-local: no proxy may ever see the token.
        connection = http.client.HTTPConnection(self._endpoint, timeout=self._timeout)
        try:
            connection.request(method, f"/latest/{urllib.parse.quote(path, safe='/:')}", headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(str(error) or type(error).__name__) from error
        finally:
            connection.close()


class _Passing(Exception):
    """Worth another try."""


def _refusal(status: int, what: str) -> Exception:
    if status == 403:
        return FarmNodeError("metadata", "the metadata service is switched off for this instance (403).")
    return _Passing(f"status {status} for {what}")
