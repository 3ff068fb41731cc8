"""The last step of a bake, on the builder: leave an image from which a machine can make itself."""

from __future__ import annotations

import compileall
from dataclasses import replace
from pathlib import Path
from typing import Any

from farmnode import backburner_xml, converge, first_run, paths, services
from farmnode.converge import Desired
from farmnode.errors import FarmNodeError
from farmnode.machine import Machine

_NAMES = (services.MANAGER, services.SERVER)


def seal(machine: Machine) -> dict[str, Any]:
    """Have Backburner write its file, let no service start by itself, note whose identity the file carries.

    Running it again changes nothing.
    """
    changed = _take_over(machine)
    with machine.alone():
        changed |= _have_file_written(machine)
        for name in _NAMES:
            if machine.services.describe(name) != "stopped":
                machine.services.stop(name)
                changed = True
            changed |= machine.services.start_on_demand(name)
        path = _chosen(machine)
        # What a node will do must be possible, or the image is of no use.
        backburner_xml.edit(path, [], None, {})
        identity = replace(machine.metadata.instance().identity, computer_name=machine.computer_name)
        if machine.state.image() != identity:
            machine.state.remember_image(identity)
            changed = True
        # Into the image, or each node would do it again at its first boot.
        compileall.compile_dir(Path(__file__).parent, quiet=2)
        machine.log.info(f"sealed: {paths.shown(path)} carries {identity.name}, {identity.mac}, {identity.address}")
        return {"changed": changed, "path": paths.shown(path), "identity": identity.as_json()}


def _take_over(machine: Machine) -> bool:
    """On a builder that started from a farm's image, the file carries that image's builder: make it this one's."""
    own = machine.metadata.instance().identity
    before = machine.state.image()
    if before is None or before.mac == own.mac:
        return False
    # Any manager will do: a node sets its own when it boots.
    return converge.apply(Desired(manager="127.0.0.1", identity=own), machine).changed


def _have_file_written(machine: Machine) -> bool:
    """Run both services until the file has all that we shall edit; False when it had it already."""
    if _problem(machine) is None:
        return False
    first_run.run_services(machine, _NAMES, lambda: _problem(machine))
    return True


def _chosen(machine: Machine) -> Path:
    choice = backburner_xml.find(machine.services.account(services.SERVER))
    machine.log.info(f"backburner.xml is {choice}")
    return choice.path


def _problem(machine: Machine) -> FarmNodeError | None:
    """Why the file is not what it must be."""
    try:
        backburner_xml.edit(backburner_xml.find(machine.services.account(services.SERVER)).path, [], None, {})
    except FarmNodeError as error:
        return error
    return None
