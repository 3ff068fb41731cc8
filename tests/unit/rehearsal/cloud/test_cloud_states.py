"""Start, stop, reboot, terminate, and what the clock does."""

from __future__ import annotations

import time

import pytest
from simulated_ec2 import Aws, refused

from rehearsal.interfaces import RehearsalError


def test_stop_and_start_take_time_and_count_boots(aws: Aws) -> None:
    """stopping, stopped, pending, running; each start and reboot is a boot."""
    name = aws.launch()[0]["InstanceId"]
    aws.running()
    change = aws.ec2.stop_instances(InstanceIds=[name])["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    with refused("IncorrectInstanceState"):
        aws.ec2.start_instances(InstanceIds=[name])
    aws.running()
    shown = aws.instance(name)
    assert shown["State"] == {"Code": 80, "Name": "stopped"}
    assert shown["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert shown["StateTransitionReason"].startswith("User initiated (")
    launched = shown["LaunchTime"]
    aws.ec2.start_instances(InstanceIds=[name])
    aws.running()
    aws.ec2.reboot_instances(InstanceIds=[name])
    view = aws.cloud.view().instances[0]
    assert (view.state, view.boots) == ("running", 3)
    assert aws.instance(name)["LaunchTime"] > launched


def test_a_terminated_instance_stays_dead_and_vanishes(aws: Aws) -> None:
    """It cannot be started, has no address and no disk, and is shown for an hour."""
    name = aws.launch()[0]["InstanceId"]
    aws.running()
    aws.ec2.terminate_instances(InstanceIds=[name])
    assert aws.state(name) == "shutting-down"
    aws.running()
    shown = aws.instance(name)
    assert shown["State"]["Name"] == "terminated"
    assert "PrivateIpAddress" not in shown
    assert shown["NetworkInterfaces"] == shown["BlockDeviceMappings"] == []
    for call in (aws.ec2.start_instances, aws.ec2.stop_instances, aws.ec2.reboot_instances):
        with refused("IncorrectInstanceState"):
            call(InstanceIds=[name])
    assert aws.ec2.terminate_instances(InstanceIds=[name])["TerminatingInstances"][0]["CurrentState"]["Code"] == 48
    aws.clock.forward(3600)
    with refused("InvalidInstanceID.NotFound"):
        aws.instance(name)
    assert not aws.cloud.view().instances


def test_one_unknown_id_fails_the_whole_call(aws: Aws) -> None:
    name = aws.launch()[0]["InstanceId"]
    with refused("InvalidInstanceID.NotFound"):
        aws.ec2.terminate_instances(InstanceIds=[name, "i-0123456789abcdef0"])
    with refused("InvalidInstanceID.Malformed"):
        aws.ec2.terminate_instances(InstanceIds=["manager"])
    assert aws.state(name) == "pending"


def test_protection_against_termination(aws: Aws) -> None:
    name = aws.launch(DisableApiTermination=True)[0]["InstanceId"]
    with refused("OperationNotPermitted"):
        aws.ec2.terminate_instances(InstanceIds=[name])
    aws.ec2.modify_instance_attribute(InstanceId=name, DisableApiTermination={"Value": False})
    aws.ec2.terminate_instances(InstanceIds=[name])


@pytest.mark.parametrize(("behavior", "state"), [("stop", "stopped"), ("terminate", "terminated")])
def test_the_guest_powers_off(aws: Aws, behavior: str, state: str) -> None:
    """InstanceInitiatedShutdownBehavior decides."""
    name = aws.launch(InstanceInitiatedShutdownBehavior=behavior)[0]["InstanceId"]
    aws.running()
    aws.cloud.guest_power_off(name)
    aws.running()
    shown = aws.instance(name)
    assert shown["State"]["Name"] == state
    assert shown["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    aws.cloud.guest_power_off(name)
    assert aws.state(name) == state


def test_one_time_spot_instances_cannot_be_stopped(aws: Aws) -> None:
    name = aws.launch(InstanceMarketOptions={"MarketType": "spot"})[0]["InstanceId"]
    aws.running()
    with refused("UnsupportedOperation"):
        aws.ec2.stop_instances(InstanceIds=[name])


def test_a_spot_interruption(aws: Aws) -> None:
    """Announced first, then the instance is terminated by EC2 and its request is closed."""
    name = aws.launch(InstanceMarketOptions={"MarketType": "spot"})[0]["InstanceId"]
    aws.running()
    aws.cloud.spot_interrupt(name, 120)
    assert aws.cloud.view().instances[0].spot_action_time == aws.clock.seconds + 120
    aws.clock.forward(119)
    assert aws.state(name) == "running"
    aws.clock.forward(2)
    assert aws.state(name) == "shutting-down"
    aws.running()
    assert aws.instance(name)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    request = aws.ec2.describe_spot_instance_requests()["SpotInstanceRequests"][0]
    assert (request["State"], request["Status"]["Code"]) == ("closed", "instance-terminated-no-capacity")


def test_only_spot_instances_are_interrupted(aws: Aws) -> None:
    with pytest.raises(RehearsalError, match="not a spot instance"):
        aws.cloud.spot_interrupt(aws.launch()[0]["InstanceId"])


def test_cancelled_spot_requests_leave_the_instance(aws: Aws) -> None:
    instance = aws.launch(InstanceMarketOptions={"MarketType": "spot"})[0]
    aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[instance["SpotInstanceRequestId"]])
    aws.running()
    assert aws.state(instance["InstanceId"]) == "running"


def test_type_and_user_data_change_only_while_stopped(aws: Aws) -> None:
    name = aws.launch()[0]["InstanceId"]
    aws.running()
    with refused("IncorrectInstanceState"):
        aws.ec2.modify_instance_attribute(InstanceId=name, InstanceType={"Value": "c7i.4xlarge"})
    aws.ec2.stop_instances(InstanceIds=[name])
    aws.running()
    aws.ec2.modify_instance_attribute(InstanceId=name, InstanceType={"Value": "c7i.4xlarge"})
    aws.ec2.modify_instance_attribute(InstanceId=name, UserData={"Value": b"later"})
    view = aws.cloud.view().instances[0]
    assert (view.instance_type, view.user_data) == ("c7i.4xlarge", b"later")


def test_metadata_options_can_be_changed(aws: Aws) -> None:
    name = aws.launch()[0]["InstanceId"]
    assert not aws.cloud.view().instances[0].metadata_token_required
    aws.ec2.modify_instance_metadata_options(InstanceId=name, HttpTokens="required", InstanceMetadataTags="enabled")
    view = aws.cloud.view().instances[0]
    assert (view.metadata_enabled, view.metadata_token_required, view.metadata_tags) == (True, True, True)


def test_status_checks_show_running_instances(aws: Aws) -> None:
    name = aws.launch()[0]["InstanceId"]
    assert aws.ec2.describe_instance_status()["InstanceStatuses"] == []
    assert len(aws.ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]) == 1
    aws.running()
    shown = aws.ec2.describe_instance_status(InstanceIds=[name])["InstanceStatuses"][0]
    assert shown["InstanceStatus"]["Status"] == shown["SystemStatus"]["Status"] == "ok"


def test_listeners_hear_of_calls_and_of_the_clock(aws: Aws) -> None:
    """Callbacks come after a mutating call and when a state passes by time."""
    heard: list[str] = []
    name = aws.launch()[0]["InstanceId"]
    aws.cloud.on_change(lambda: heard.append(aws.cloud.view().instances[0].state))
    aws.ec2.describe_instances()
    assert heard == []
    aws.ec2.create_tags(Resources=[name], Tags=[{"Key": "a", "Value": "b"}])
    assert heard == ["pending"]
    aws.clock.forward(2)
    deadline = time.monotonic() + 5  # the clock is looked at ten times a second
    while len(heard) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert heard == ["pending", "running"]
