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


@dataclass(frozen=True)
class MotoAction:
    """An action that moto answers, after what EC2 checks and moto does not."""

    parameters: frozenset[str]
    check: Check | None = None


OWN: dict[str, Action] = {}
MOTO: dict[str, MotoAction] = {}
COMMON = {"DryRun"}


def action(name: str, *required: str, optional: tuple[str, ...] = ()) -> Callable[[Handler], Handler]:
    """Register the handler of an EC2 action. Every parameter that is not named here is refused."""

    def register(handler: Handler) -> Handler:
        OWN[name] = Action(handler, required, frozenset(required) | frozenset(optional) | COMMON)
        return handler

    return register


def by_moto(name: str, *parameters: str) -> Callable[[Check], Check]:
    """Register a check for an action that moto answers. Parameters that moto would ignore are refused."""

    def register(check: Check) -> Check:
        MOTO[name] = MotoAction(frozenset(parameters) | COMMON, check)
        return check

    return register


def check_parameters(name: str, params: Params) -> None:
    """ApiError: a required parameter is missing, or one is not modelled."""
    known = OWN.get(name) or MOTO[name]
    for parameter in known.required if isinstance(known, Action) else ():
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
