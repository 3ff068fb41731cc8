"""Windows' own programs for a real farmnode process: a stand-in that keeps what it changes in ``world.json``.

``world.json``: ``services`` (name to SERVICE_STATUS number), ``routes`` (network, mask, gateway, metric), ``console``
(lines), ``off`` (whether the machine shut down), ``calls`` (all programs with their arguments), ``cut`` (the call, as
the beginning of its words, before which the power goes: the caller is killed).
"""

import json
import os
import signal
import sys
from pathlib import Path

here = Path(__file__).parent
place = here / "world.json"
world = json.loads(place.read_text())


def keep() -> None:
    new = place.with_suffix(".new")
    new.write_text(json.dumps(world))
    new.replace(place)


name, words = Path(sys.argv[1]).name, sys.argv[2:]
world["calls"].append([name, *words])
if world["cut"] and [name, *words][: len(world["cut"])] == world["cut"]:
    world["cut"] = []
    keep()
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)

match [name, *words]:
    case ["sc.exe", "qc", service]:
        rows = {"TYPE": "10  WIN32_OWN_PROCESS", "START_TYPE": "3   DEMAND_START", "DISPLAY_NAME": service}
        rows["SERVICE_START_NAME"] = "NT AUTHORITY\\LocalService"
        print("[SC] QueryServiceConfig SUCCESS\n\nSERVICE_NAME: " + service)
        print("\n".join(f"        {key:<19}: {value}" for key, value in rows.items()))
    case ["sc.exe", "query" | "start" | "stop" as verb, service]:
        world["services"][service] = {"start": 4, "stop": 1}.get(verb, world["services"][service])
        print(f"\nSERVICE_NAME: {service}\n        TYPE               : 10  WIN32_OWN_PROCESS")
        print(f"        STATE              : {world['services'][service]}  X")
    case ["route.exe", "PRINT", "-4"]:
        print("Active Routes:\n          0.0.0.0          0.0.0.0         10.0.0.1        10.0.0.21     25")
        print("         10.0.0.0    255.255.255.0         On-link         10.0.0.21    281")
        for network, mask, gateway, _ in world["routes"]:
            print(f"  {network}  {mask}  {gateway}  10.0.0.21  26")
    case ["route.exe", "-p", "ADD", network, "MASK", mask, gateway, "METRIC", metric]:
        world["routes"].append([network, mask, gateway, metric])
        print(" OK!")
    case ["reg.exe", "query", _]:
        print("\nHKEY_LOCAL_MACHINE\\SYSTEM\\...\\PersistentRoutes")
        print("\n".join(f"    {','.join(route)}    REG_SZ    " for route in world["routes"]))
    case ["cmd.exe", "/d", "/c", "copy", "/b", path, "\\\\.\\COM1"]:
        drive = os.environ["SystemDrive"]  # noqa: SIM112
        world["console"].append(Path(drive + path[2:].replace("\\", "/")).read_text().strip())
    case ["shutdown.exe", "/s", "/f", "/t", "0"]:
        world["off"] = True
    case _:
        sys.exit(f"{name}: {words} is not what its documentation names")
keep()
