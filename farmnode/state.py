r"""What farmnode remembers, in ``C:\ProgramData\RenderFarm``: ``state.json``, and whose image it is in ``image.json``.

``state.json``: ``version`` 1; ``boot`` (see `farmnode.boot`); ``identity`` that backburner.xml carries;
``backburner_xml``, its path; ``routes`` that farmnode set and may therefore remove.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from farmnode import files, paths
from farmnode.errors import FarmNodeError, reading_failed
from farmnode.identity import Identity, identity_from_json
from farmnode.null_routes import network_from_json
from farmnode.routes import Route, route_from_json

_VERSION = 1


@dataclass(frozen=True)
class State:
    """The memory of one machine. Each setter writes the file at once."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "state.json"

    @property
    def image_path(self) -> Path:
        return self.folder / "image.json"

    def load(self) -> dict[str, Any]:
        """All that is remembered; ``{"version": 1}`` on a new machine.

        FarmNodeError when the file cannot be understood: deleting it loses which routes are ours, so a person decides.
        """
        data = _read(self.path)
        if data is None:
            return {"version": _VERSION}
        if data.get("version") != _VERSION:
            raise FarmNodeError(
                "broken_state",
                f"{paths.shown(self.path)} has version {data.get('version')!r}, farmnode knows {_VERSION}; delete it.",
            )
        return data

    def update(self, **values: Any) -> None:
        """Remember ``values`` beside what is there."""
        files.write(self.path, _bytes(self.load() | values))

    def identity(self) -> Identity | None:
        """Whose identity farmnode last wrote into backburner.xml."""
        data = self.load().get("identity")
        return None if data is None else identity_from_json(data, f"identity in {paths.shown(self.path)}")

    def routes(self) -> frozenset[Route]:
        """The persistent routes that farmnode set."""
        where = f"routes in {paths.shown(self.path)}"
        return frozenset(route_from_json(each, where) for each in self.load().get("routes", []))

    def null_routes(self) -> frozenset[IPv4Network]:
        """The null routes that farmnode set."""
        where = f"null_routes in {paths.shown(self.path)}"
        return frozenset(network_from_json(each, where) for each in self.load().get("null_routes", []))

    def image(self) -> Identity | None:
        """The builder's identity, which its image's backburner.xml carries; None when no image was sealed."""
        data = _read(self.image_path)
        return None if data is None else identity_from_json(data, paths.shown(self.image_path))

    def remember_image(self, identity: Identity) -> None:
        files.write(self.image_path, _bytes(identity.as_json()))


def _bytes(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode("ascii")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise reading_failed(error, paths.shown(path)) from error
    except ValueError as error:
        raise FarmNodeError("broken_state", f"{paths.shown(path)} is not JSON: {error}. Delete it.") from error
    if not isinstance(data, dict):
        raise FarmNodeError("broken_state", f"{paths.shown(path)} is not a JSON object. Delete it.")
    return data
