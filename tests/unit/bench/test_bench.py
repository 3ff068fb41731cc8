"""The benches' own arithmetic: what they compare, what they read, where they write."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rehearsal.tables import text_table
from tests.bench import __main__ as every
from tests.bench import document, farm, inventory, parts

STEPS = [
    {"playbook": "farm-up.yml", "seconds": "40", "AWS calls": "90", "WinRM round trips": "studio-manager 30, pc 12"},
    {"playbook": "farm-up.yml again", "seconds": "20", "AWS calls": "9", "WinRM round trips": "-"},
]
MACHINES = [
    {"machine": "studio-manager", "role": "manager", "seconds": "-"},
    {"machine": "node", "role": "render_node", "seconds": "2.5"},
    {"machine": "node-i-1", "role": "render_node", "seconds": "4.5"},
]


def test_tables_are_read_as_they_were_written():
    tables = ["something else", text_table(MACHINES), text_table(STEPS)]
    assert farm.table_with(tables, "playbook") == STEPS
    assert farm.table_with(tables, "machine") == MACHINES


def test_a_table_that_is_missing_ends_the_bench():
    with pytest.raises(SystemExit, match="0 tables that begin with 'machine'"):
        farm.table_with([text_table(STEPS)], "machine")


def test_the_report_of_a_farm():
    text = farm.report(2, STEPS, MACHINES, "`make bench` on a machine")
    assert "| `farm-up.yml` | 40 | 20.0 | 90 | 42 (studio-manager 30, pc 12) | 21.0 |" in text
    assert "| `farm-up.yml again` | 20 | 10.0 | 9 | 0 (-) | 0.0 |" in text
    assert "3.5 s in the median of 2 nodes, 2.5 to 4.5 s" in text


def listed() -> dict[str, dict[str, object]]:
    return {
        "_meta": {"hostvars": {"a": {"farm_zone": "z", "farm_inventory_name": "studio"}}},
        "spot": {"hosts": ["a"]},
    }


def test_equal_inventories_differ_in_nothing():
    theirs = copy.deepcopy(listed())
    theirs["_meta"]["hostvars"] = {"a": {"farm_zone": "z", "more": 1}}
    theirs["aws_ec2"] = {"hosts": ["a"]}
    assert inventory.differences(listed(), theirs) == []


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("spot", {"hosts": []}, "the groups are not the same"),
        ("_meta", {"hostvars": {"a": {"farm_zone": "y"}}}, "a: farm_zone is 'z' and 'y'"),
        ("_meta", {"hostvars": {}}, "the hosts are not the same"),
    ],
)
def test_different_inventories_are_told(part, value, words):
    assert words in inventory.differences(listed(), {**listed(), part: value})


def contender(title: str, cpu: dict[int, float], memory: float) -> inventory.Contender:
    return inventory.Contender(
        title,
        Path("x"),
        5,
        cpu={size: [seconds] for size, seconds in cpu.items()},
        memory={size: [memory] for size in cpu},
    )


def test_what_takes_minutes_runs_once():
    slow = inventory.Contender("slow", Path("x"), runs=2, once=5000)
    turns = {size: [number for number in range(5) if slow.takes_turn(size, number)] for size in (100, 5000, 20000)}
    assert turns == {100: [0, 1], 5000: [0], 20000: []}


def test_missed_targets_are_told():
    peer = contender("peer", {0: 1, 100: 1.5, 5000: 24}, 300)
    assert inventory.misses(contender("ours", {0: 0.9, 100: 1.4, 5000: 1.9}, 100), peer) == []
    slow = inventory.misses(contender("ours", {0: 0.9, 100: 1.6, 5000: 2.1}, 101), peer)
    assert len(slow) == 4


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((0, 100, 5000), "none"),
        ((0, 100), "not measured at 5000 instances"),
        ((0, 5000), "not measured at 100 instances"),
        ((0, 20), "not measured at 5000 instances; not measured at 100 instances"),
    ],
)
def test_a_target_that_was_not_measured_is_not_met(sizes, told):
    ours = contender("ours", dict.fromkeys(sizes, 1), 100)
    peers = [contender("peer", dict.fromkeys(sizes, 20), 400)] * 2
    about = {"command": "`make bench`", "machine": "one", "profiled": 100, "bare": 0.5}
    assert inventory.verdict(ours, peers[0]) == told
    assert f"Missed: {told}.\n" in inventory.report([ours, *peers], {"start": 1.0}, about)


def test_a_section_is_replaced_and_the_others_stay_in_their_order(tmp_path):
    path = tmp_path / "benchmarks.md"
    for name, text in (("farm", "one\n\n| a |"), ("inventory", "two"), ("farm", "three"), ("controller", "four")):
        document.write_section(name, text, path)
    written = path.read_text()
    assert "one" not in written
    assert [written.index(text) for text in ("# Bench", "two", "four", "three")] == sorted(
        written.index(text) for text in ("# Bench", "two", "four", "three")
    )
    assert written.count("begin") == written.count("end") == 3
    document.write_section("controller", "four", path)
    assert path.read_text() == written


def test_the_document_of_this_project_is_read_whole():
    text = document.DOCUMENT.read_text()
    assert text.count(": begin -->") == len(document._SECTION.findall(text))
    assert [name for name, _ in document._SECTION.findall(text)] == list(document.SECTIONS)


def test_the_command_that_is_told_is_the_one_that_ran():
    assert document.command("farm", []) == "`make bench`"
    assert document.command("farm", ["--nodes", "1"]) == "`python -m tests.bench.farm --nodes 1`"


def test_each_section_has_a_bench_and_a_quick_way(capsys):
    assert set(every.QUICK) == set(document.SECTIONS)
    for name, words in every.QUICK.items():
        with pytest.raises(SystemExit, match="0"):
            importlib.import_module(f"tests.bench.{name}").main(["--help"])
        said = capsys.readouterr().out
        assert all(word in said for word in (*words, "--document") if word.startswith("--"))


def test_quick_figures_are_not_for_the_document(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--quick"])
    with pytest.raises(SystemExit, match="2"):
        every.main()


def test_a_bench_that_fails_does_not_keep_the_others_from_their_sections(monkeypatch, tmp_path):
    ran = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command[2].removeprefix("tests.bench."))
        return subprocess.CompletedProcess(command, 1 if command[2].endswith("inventory") else 0)

    monkeypatch.setattr(every.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["bench", "--document", str(tmp_path / "x")])
    assert every.main() == 1
    assert tuple(ran) == document.SECTIONS


def test_a_processor_that_works_is_noticed():
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            sum(range(1000))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert document.processors_in_use(0.3) > 0.5
    finally:
        done.set()
        worker.join()


def test_a_part_inside_another_counts_once():
    clock = parts.Clock()

    def work(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    inner = clock.around("inner", lambda: work(0.03))
    outer = clock.around("outer", lambda: (inner(), work(0.01), time.sleep(0.05)))
    outer()
    assert clock.seconds["inner"] == pytest.approx(0.03, abs=0.008)
    assert clock.seconds["outer"] == pytest.approx(0.01, abs=0.008)
