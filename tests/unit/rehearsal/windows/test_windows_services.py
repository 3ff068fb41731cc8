"""The service control manager."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from windows_bench import Bench

from rehearsal.windows.errors import WindowsError
from rehearsal.windows.services import Service

Run = Callable[[Any], Any]


class Daemon:
    """A service program that notes when it runs."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.error: Exception | None = None

    async def __call__(self, host: Any, service: str) -> None:
        self.events.append(f"start {service}")
        if self.error is not None:
            raise self.error
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append(f"stop {service}")


def install(bench: Bench, name: str = "Daemon", **settings: Any) -> Daemon:
    bench.host.files.make_directory("C:\\Program Files\\Some")
    bench.host.files.write_bytes("C:\\Program Files\\Some\\daemon.exe", b"")
    path = settings.pop("path", '"C:\\Program Files\\Some\\daemon.exe" --run')
    bench.host.services.create(Service(name, f"{name} Service", path, **settings))
    daemon = Daemon()
    bench.host.service_programs["daemon.exe"] = daemon
    return daemon


async def failing(work: Any) -> int:
    with pytest.raises(WindowsError) as error:
        await work
    return error.value.code


def test_a_program_runs_while_its_service_does(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        daemon = install(bench)
        services = bench.host.services
        await services.start("daemon")
        assert services.status("DAEMON").state == "running" and services.status("daemon").process_id
        assert await failing(services.start("daemon")) == 1056
        await services.stop("daemon")
        assert daemon.events == ["start Daemon", "stop Daemon"]
        assert await failing(services.stop("daemon")) == 1062
        assert await failing(services.start("none")) == 1060
        assert await failing(services.stop("none")) == 1060

    run(scenario)


def test_what_keeps_a_service_from_starting(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        services, files = bench.host.services, bench.host.files
        install(bench, start="disabled")
        assert await failing(services.start("Daemon")) == 1058
        install(bench, "Gone", path="C:\\Program Files\\Some\\gone.exe")
        assert await failing(services.start("Gone")) == 2
        install(bench, "Nowhere", path="C:\\Nowhere\\x.exe")
        assert await failing(services.start("Nowhere")) == 3
        files.write_bytes("C:\\Program Files\\Some\\other.exe", b"")
        install(bench, "Other", path="C:\\Program Files\\Some\\other.exe -x")
        assert await failing(services.start("Other")) == 1053
        assert "no stand-in for the program C:\\Program Files\\Some\\other.exe" in bench.log
        install(bench, "Lost", dependencies=["Missing"])
        assert await failing(services.start("Lost")) == 1075
        install(bench, "Dependent", dependencies=["Daemon"])
        assert await failing(services.start("Dependent")) == 1068

    run(scenario)


def test_a_service_of_a_user_needs_the_right_password(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        host = bench.host
        host.accounts.add_user("render", "secret")
        install(bench, account=".\\render", password="wrong")
        assert await failing(host.services.start("Daemon")) == 1069
        service = host.services.get("Daemon")
        service.password = "secret"
        await host.services.start("Daemon")
        service.account = "nobody"
        await host.services.stop("Daemon")
        assert await failing(host.services.start("Daemon")) == 1069

    run(scenario)


def test_dependencies_start_first_and_stop_last(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        first = install(bench, "First")
        install(bench, "Second", dependencies=["first"])
        bench.host.service_programs["daemon.exe"] = first
        await bench.host.services.start("Second")
        assert first.events == ["start First", "start Second"]
        assert await failing(bench.host.services.stop("First")) == 1051
        await bench.host.services.stop("First", force=True)
        assert first.events[2:] == ["stop Second", "stop First"]

    run(scenario)


def test_a_program_that_dies_is_restarted_when_the_service_says_so(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        services = bench.host.services
        daemon = install(bench, failure_actions=[["restart", 1], ["none", 0]])
        daemon.error = RuntimeError("broken")
        assert await failing(services.start("Daemon")) == 1053
        assert services.status("Daemon").exit_code == 1067
        assert "terminated unexpectedly: RuntimeError: broken" in bench.log
        await asyncio.sleep(0.05)
        assert daemon.events == ["start Daemon"] * 2, "restarted once, the second action is none"
        daemon.error = WindowsError(5)
        assert await failing(services.start("Daemon")) == 5

    run(scenario)


def test_automatic_services_start_with_the_machine_delayed_ones_last(bench: Bench) -> None:
    async def scenario() -> None:
        bench.host.files.delete("C:\\Program Files\\Amazon", force=True)
        daemon = install(bench, "Late", start="delayed")
        install(bench, "Early", start="auto")
        install(bench, "Manual")
        bench.host.service_programs["daemon.exe"] = daemon
        await bench.host.power_on()
        assert daemon.events == ["start Early", "start Late"]
        await bench.host.power_off()
        assert sorted(daemon.events[2:]) == ["stop Early", "stop Late"]

    asyncio.run(scenario())


def test_names_are_unique(run: Run) -> None:
    async def scenario(bench: Bench) -> None:
        install(bench)
        for name, expected in (("daemon", 1073), ("DAEMON SERVICE", 1078)):
            with pytest.raises(WindowsError) as error:
                bench.host.services.create(Service(name, "daemon service", "x"))
            assert error.value.code == expected
        await bench.host.services.start("Daemon")
        await bench.host.services.delete("daemon")
        assert bench.host.services.find("Daemon") is None

    run(scenario)
