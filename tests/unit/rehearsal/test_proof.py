"""The proof's own eyes: each check sees the fault it is there for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rehearsal import proof, session

IMAGE = b"""<?xml version="1.0" encoding="UTF-8"?>\r
<SystemConfiguration>\r
  <GeneralCfg><ManagerPort>3234</ManagerPort><NetworkMask>255.255.255.0</NetworkMask></GeneralCfg>\r
  <Cache mac="0A1B2C3D4E5F"><Host>BUILDER</Host><Card>0a:1b:2c:3d:4e:5f</Card></Cache>\r
  <AppDetails><ServerSettings><ManagerName>old</ManagerName><ServerName>BUILDER</ServerName></ServerSettings></AppDetails>\r
</SystemConfiguration>\r
"""
NODE = (
    IMAGE.replace(b"0A1B2C3D4E5F", b"0AFFFFFFFFFF")
    .replace(b"0a:1b:2c:3d:4e:5f", b"0a:ff:ff:ff:ff:ff")
    .replace(b"<Host>BUILDER", b"<Host>ip-10-0-0-21")
    .replace(b">old<", b">10.0.0.10<")
    .replace(b"<ServerName>BUILDER", b"<ServerName>ip-10-0-0-21")
)
REPLACED = dict(zip(proof.notations("0a:1b:2c:3d:4e:5f"), proof.notations("0a:ff:ff:ff:ff:ff"), strict=True)) | {
    "builder": "ip-10-0-0-21"
}


def test_right_file_has_no_differences():
    assert proof.identity_differences(IMAGE, NODE, REPLACED) == []


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"0AFFFFFFFFFF", b"0A1B2C3D4E5F"),
        (b"0a:ff:ff:ff:ff:ff", b"0a:ff:ff:ff:ff:fe"),
        (b"<Host>ip-10-0-0-21", b"<Host>BUILDER"),
        (b"<Host>ip-10-0-0-21</Host>", b""),
        (b"<Cache", b"<cache"),
    ],
)
def test_wrong_file_is_seen(good, bad):
    wrong = NODE.replace(good, bad).replace(b"</Cache>", b"</cache>" if b"<cache" in bad else b"</Cache>")
    assert proof.identity_differences(IMAGE, wrong, REPLACED)


def test_own_values_are_read_by_name():
    assert proof.own_values(NODE) == {
        "ManagerPort": "3234",
        "NetworkMask": "255.255.255.0",
        "ManagerName": "10.0.0.10",
        "ServerName": "ip-10-0-0-21",
    }


RIGHT = NODE.replace(
    b"</ManagerPort>", b"</ManagerPort><ServerPort>3233</ServerPort><AutomaticSearch>0</AutomaticSearch>"
)


def test_right_values_of_a_node_are_no_problem():
    assert proof.own_problems(RIGHT, "ip-10-0-0-21") == []


@pytest.mark.parametrize(
    ("good", "bad", "problem"),
    [
        (b">10.0.0.10<", b">10.0.0.11<", "ManagerName is '10.0.0.11', expected '10.0.0.10'"),
        (b">3234<", b">3233<", "ManagerPort is '3233', expected '3234'"),
        (b"<ServerPort>3233</ServerPort>", b"", "ServerPort is None, expected '3233'"),
        (b">255.255.255.0<", b">255.255.0.0<", "NetworkMask is '255.255.0.0', expected '255.255.255.0'"),
        (b"<AutomaticSearch>0", b"<AutomaticSearch>1", "AutomaticSearch is '1', expected '0'"),
        (b"<ServerName>ip-10-0-0-21", b"<ServerName>old", "ServerName is 'old', expected 'ip-10-0-0-21'"),
    ],
)
def test_each_wrong_value_of_a_node_is_told(good, bad, problem):
    assert good in RIGHT
    assert proof.own_problems(RIGHT.replace(good, bad), "ip-10-0-0-21") == [problem]
    assert problem.split()[0] in proof.OWN_ELEMENTS


class Region:
    """What the AWS CLI answers of a region with these images, their snapshots and ``other`` things."""

    def __init__(self, images: int, **other: list[dict[str, str]]) -> None:
        names = [f"snap-{number}" for number in range(images)]
        self.has = {
            "Images": [{"BlockDeviceMappings": [{"Ebs": {"SnapshotId": name}}]} for name in names],
            "Snapshots": [{"SnapshotId": name} for name in names],
            **other,
        }

    def aws(self, *_):
        kinds = ("Reservations", "Volumes", "NetworkInterfaces", "Addresses", "LaunchTemplates")
        return {**{kind: [] for kind in kinds}, **self.has}


def test_what_is_left_is_told_and_the_images_are_counted():
    assert proof.prove_nothing_left(Region(1), images=1) == "nothing left but 1 image with 1 snapshot"
    for images in (0, 2):
        with pytest.raises(session.ProofError, match=f"there are {images} images, expected 1"):
            proof.prove_nothing_left(Region(images), images=1)
    with pytest.raises(session.ProofError, match=r"there is left: .*volumes"):
        proof.prove_nothing_left(Region(1, Volumes=[{"VolumeId": "vol-1"}]), images=1)
    with pytest.raises(session.ProofError, match="snapshots of no image"):
        proof.prove_nothing_left(Region(1, Snapshots=[{"SnapshotId": "snap-9"}]), images=1)


def test_recap_is_read():
    output = """
PLAY RECAP *****
localhost   : ok=11   changed=2    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
studio-manager : ok=3    changed=0    unreachable=0    failed=0    skipped=0    rescued=0    ignored=0
"""
    recap = session.parse_recap(output)
    assert recap["localhost"]["changed"] == 2
    assert recap["studio-manager"]["ok"] == 3


def test_output_without_recap_is_no_success():
    with pytest.raises(session.ProofError, match="without its recap"):
        session.parse_recap("ERROR! the playbook could not be found")


def step(**changes):
    recap = {"localhost": {"ok": 1, "changed": changes.get("changed", 0)}}
    return session.Step("farm-up.yml", 1.0, 0.5, 3, changes.get("calls", []), recap, trips={}, log="log")


def test_second_run_must_change_nothing():
    assert "changed=0" in proof.prove_unchanged(step())
    with pytest.raises(session.ProofError, match="changed something"):
        proof.prove_unchanged(step(changed=1))
    with pytest.raises(session.ProofError, match="mutating"):
        proof.prove_unchanged(step(calls=["ec2:CreateTags"]))


def test_notations_of_a_mac():
    assert proof.notations("0A:1B:2C:3D:4E:5F") == ("0a1b2c3d4e5f", "0a:1b:2c:3d:4e:5f", "0a-1b-2c-3d-4e-5f")


def test_memory_counts_children():
    own = session.memory_of({os.getpid()})
    with subprocess.Popen(
        [sys.executable, "-c", "x = bytearray(30_000_000); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with_child = session.memory_of({os.getpid()})
        child.communicate(b"\n", timeout=10)
    assert with_child > own + 25_000
