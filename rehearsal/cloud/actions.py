"""Which EC2 actions the rehearsal knows, and with which parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rehearsal.cloud.errors import missing, not_modelled
from rehearsal.cloud.records import Params
from rehearsal.cloud.region import Region

Handler = Callable[[Region, Params], Params]
Check = Callable[[Region, Params], None]


@dataclass(frozen=True)
class Action:
    """An action that the rehearsal answers itself."""

    handler: Handler
    required: tuple[str, ...]
    parameters: frozenset[str]


OWN: dict[str, Action] = {}
# Actions that moto answers -> what EC2 checks before and moto does not.
MOTO: dict[str, Check | None] = {}
COMMON = {"DryRun"}


def action(name: str, *required: str, optional: tuple[str, ...] = ()) -> Callable[[Handler], Handler]:
    """Register the handler of an EC2 action. Every parameter that is not named here is refused."""

    def register(handler: Handler) -> Handler:
        OWN[name] = Action(handler, required, frozenset(required) | frozenset(optional) | COMMON)
        return handler

    return register


def check_parameters(name: str, params: Params) -> None:
    """ApiError: a required parameter is missing, or one is not modelled."""
    known = OWN[name]
    for parameter in known.required:
        if parameter not in params:
            raise missing(parameter)
    strange = sorted(set(params) - known.parameters)
    if strange:
        raise not_modelled(f"the parameter {strange[0]} of {name}")


def check_fields(where: str, value: Params, known: frozenset[str] | set[str]) -> None:
    """Refuse the fields of a nested structure that the rehearsal would not honour."""
    strange = sorted(set(value) - known)
    if strange:
        raise not_modelled(f"{where}.{strange[0]}")


def attribute(params: Params, name: str) -> Any | None:
    """The value of an attribute structure such as ``SourceDestCheck={"Value": False}``."""
    return params.get(name, {}).get("Value")
