"""Windows services through sc.exe, in a language that is not English."""

from __future__ import annotations

import pytest
from farmnode_fakes import Bench

from farmnode.errors import FarmNodeError
from farmnode.programs import Completed
from farmnode.services import MANAGER, SERVER


def test_start_and_stop_wait_for_the_state(bench: Bench) -> None:
    services = bench.machine.services
    services.start(SERVER)
    assert (services.state(SERVER), services.describe(SERVER)) == (4, "running")
    services.start(SERVER)
    services.stop(SERVER)
    services.stop(SERVER)
    assert services.describe(SERVER) == "stopped"
    assert bench.windows.called("sc.exe", "start") == [["sc.exe", "start", SERVER]] * 2


def test_a_missing_service_says_how_to_get_it(bench: Bench) -> None:
    del bench.windows.services[MANAGER]
    assert bench.machine.services.describe(MANAGER) == "missing"
    for act in (bench.machine.services.start, bench.machine.services.stop, bench.machine.services.start_on_demand):
        with pytest.raises(FarmNodeError, match="no service BACKBURNER_MGR_200; install") as caught:
            act(MANAGER)
        assert caught.value.reason == "service"


def test_a_service_that_does_not_come_up(bench: Bench) -> None:
    bench.windows.on_call = lambda words: setattr(bench.windows.services[SERVER], "state", 2)
    bench.windows.answers[("sc.exe", "start")] = Completed(0, "", "")
    with pytest.raises(FarmNodeError, match=r"is starting, not running, after 60 seconds; see backburner.log"):
        bench.machine.services.start(SERVER)
    assert bench.clock.passed == 60
    bench.windows.on_call = lambda words: setattr(bench.windows.services[SERVER], "state", 9)
    assert bench.machine.services.describe(SERVER) == "state 9"


def test_a_service_that_is_stopping_already_is_waited_for(bench: Bench) -> None:
    service = bench.windows.services[SERVER]
    service.state = 3
    bench.windows.answers[("sc.exe", "stop")] = Completed(1061 & 255, "[SC] ControlService FAILED 1061:\r\n", "")
    bench.windows.on_call = lambda words: setattr(service, "state", 1 if bench.clock.passed >= 20 else 3)
    bench.machine.services.stop(SERVER)
    assert 20 <= bench.clock.passed < 22
    bench.windows.on_call = lambda words: setattr(service, "state", 3)
    with pytest.raises(FarmNodeError, match="is stopping, not stopped, after 60 seconds"):
        bench.machine.services.stop(SERVER)


def test_the_process_of_a_service(bench: Bench) -> None:
    services = bench.machine.services
    assert services.process_id(SERVER) == 0
    services.start(SERVER)
    assert services.process_id(SERVER) == 1001
    services.stop(SERVER)
    services.start(SERVER)
    assert services.process_id(SERVER) == 1002
    for text in ("nothing", "PID: x\r\nFLAGS:", "FLAGS:"):
        bench.windows.answers[("sc.exe", "queryex")] = Completed(0, text, "")
        with pytest.raises(FarmNodeError, match=f"about {SERVER} what is not understood"):
            services.process_id(SERVER)


def test_other_failures_are_told(bench: Bench) -> None:
    bench.windows.answers[("sc.exe", "start")] = Completed(
        5, "[SC] StartService FAILED 5:\r\n\r\nAccess is denied.", ""
    )
    with pytest.raises(FarmNodeError, match=r"sc.exe start BACKBURNER_SRV_200 ended with 5: .*Access is denied"):
        bench.machine.services.start(SERVER)
    bench.windows.answers[("sc.exe", "query")] = Completed(0, "nothing", "")
    with pytest.raises(FarmNodeError, match="not understood: nothing"):
        bench.machine.services.state(SERVER)


def test_start_on_demand_changes_only_what_is_otherwise(bench: Bench) -> None:
    bench.windows.services[SERVER].start_type = 2
    assert bench.machine.services.start_on_demand(SERVER) is True
    assert bench.machine.services.start_on_demand(SERVER) is False
    assert len(bench.windows.called("sc.exe", "config")) == 1
