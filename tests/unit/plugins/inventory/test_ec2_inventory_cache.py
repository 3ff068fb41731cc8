"""The cache: whose it is, how old it is, and that nothing in it becomes a template."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible.template import Templar, is_trusted_as_template
from ansible_collections.renderfarm.cloud.plugins.plugin_utils import ec2_inventory_cache as cache

from tests.unit.plugins.inventory.test_ec2_inventory import instance

QUESTION = {"farm": "studio", "regions": ["eu-central-1"], "profiles": [], "states": ["running"]}
EVIL = "{{ lookup('pipe', 'touch /tmp/owned') }}"


@pytest.fixture
def file(tmp_path):
    return cache.file_for(str(tmp_path / "of" / "mine"), QUESTION, {})


def test_what_was_written_is_read_with_its_age(file, monkeypatch):
    monkeypatch.setattr(cache.time, "time", lambda: 1000.0)
    cache.write(file, [instance(1, tags={"ключ": "a\nb"}), instance(2)])
    monkeypatch.setattr(cache.time, "time", lambda: 1042.5)
    assert cache.read(file) == ([instance(1, tags={"ключ": "a\nb"}), instance(2)], 42.5)


def test_only_the_owner_can_enter(file):
    mask = os.umask(0)
    try:
        cache.write(file, [instance(1)])
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_refused(file, mode):
    cache.write(file, [])
    file.parent.chmod(mode)
    for use in (cache.read, lambda path: cache.write(path, [])):
        with pytest.raises(cache.UnsafeFolder, match="chmod 700"):
            use(file)


def test_a_link_to_a_folder_is_refused(file, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    file.parent.parent.mkdir()
    file.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(cache.UnsafeFolder, match="name another folder") as refused:
        cache.read(file)
    assert "chmod" not in str(refused.value)


def test_a_folder_of_somebody_else_is_refused(file, monkeypatch):
    cache.write(file, [])
    monkeypatch.setattr(cache.os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(cache.UnsafeFolder, match="name another folder") as refused:
        cache.read(file)
    assert "chmod" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"fields": [], "asked": 0, "instances": []}'])
def test_what_cannot_be_read_is_not_used(file, text):
    cache.write(file, [instance(1)])
    file.write_text(text)
    assert cache.read(file) is None


def test_there_may_be_no_file(file):
    assert cache.read(file) is None
    cache.write(file, [])
    file.unlink()
    assert cache.read(file) is None


def test_what_must_not_be_read_is_not_used(file, monkeypatch):
    cache.write(file, [instance(1)])

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache.Path, "read_text", refuse)
    assert cache.read(file) is None


def test_an_answer_out_of_the_future_is_not_used(file, monkeypatch):
    cache.write(file, [instance(1)])
    monkeypatch.setattr(cache.time, "time", lambda: 0.0)
    assert cache.read(file) is None


@pytest.mark.parametrize("name", ["farm", "regions", "profiles", "states"])
def test_another_question_has_another_file(file, name):
    assert cache.file_for(str(file.parent), QUESTION | {name: ["other"]}, {}) != file
    assert cache.file_for(str(file.parent), QUESTION, {}) == file


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_DEFAULT_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ],
)
def test_another_account_has_another_file(file, name):
    other = cache.file_for(str(file.parent), QUESTION, {name: "other"})
    assert other != file and "other" not in other.name


def test_a_tag_never_becomes_a_template(file):
    cache.write(file, [instance(1, tags={"note": EVIL})])
    kept = cache.read(file)
    assert kept is not None
    note = kept.instances[0].tags["note"]
    assert note == EVIL and not is_trusted_as_template(note)
    assert Templar(variables={"note": note}).template(note) == EVIL


def test_marks_of_trust_in_the_file_are_no_trust(file):
    """ansible-core's own cache plugins would read this mark as trust."""
    cache.write(file, [instance(1, tags={"note": "x"})])
    text = file.read_text()
    marked = json.dumps({"__ansible_type": "TrustedAsTemplate", "value": EVIL})
    file.write_text(text.replace('"note": "x"', f'"note": {marked}'))
    kept = cache.read(file)
    assert kept is not None and kept.instances[0].tags["note"] == {
        "__ansible_type": "TrustedAsTemplate",
        "value": EVIL,
    }
