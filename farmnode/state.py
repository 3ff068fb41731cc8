r"""What farmnode remembers, in ``C:\ProgramData\RenderFarm``: ``state.json``, and whose image it is in ``image.json``.

``state.json``: ``version`` 1; ``boot`` (see `farmnode.boot`); ``role``, the last that a boot found out; ``identity``
that backburner.xml carries; ``backburner_xml``, its path; ``routes`` and ``null_routes`` that farmnode set and may
therefore remove; ``memory``, what became of one that could not be understood.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from farmnode import files, lock, paths
from farmnode.clock import Clock
from farmnode.errors import FarmNodeError, reading_failed
from farmnode.identity import Identity, identity_from_json
from farmnode.null_routes import network_from_json
from farmnode.routes import Route, route_from_json

_VERSION = 1
#: Seconds for which an update waits for another one, which takes as long as a small file needs.
_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class State:
    """The memory of one machine. Each setter writes the file at once."""

    folder: Path
    clock: Clock

    @property
    def path(self) -> Path:
        return self.folder / "state.json"

    @property
    def image_path(self) -> Path:
        return self.folder / "image.json"

    def load(self) -> dict[str, Any]:
        """All that is remembered; ``{"version": 1}`` on a new machine.

        FarmNodeError when the file cannot be understood: without it nobody knows which routes are ours, so a person
        decides; but where a machine boots alone, `farmnode.boot` sets it aside.
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
        """Remember ``values`` beside what is there, also what another process is remembering at the same time."""
        with self._alone():
            files.write(self.path, _bytes(self.load() | values))

    def set_aside(self, why: str) -> str:
        """Give a ``state.json`` that cannot be understood another name and begin anew; returns what is to be told."""
        place = self.path.with_name(self.path.name + ".broken")
        said = f"{why} Set aside as {paths.shown(place)}: which routes were farmnode's is not known any more."
        with self._alone():
            files.move(self.path, place)
            files.write(self.path, _bytes({"version": _VERSION, "memory": said}))
        return said

    def _alone(self) -> AbstractContextManager[None]:
        return lock.held(self.folder / "state.lock", self.clock, _PATIENCE)

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
