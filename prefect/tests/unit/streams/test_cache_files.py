from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import pytest

from datadog_checks.prefect.streams import cache_files
from datadog_checks.prefect.streams.cache_files import CacheFiles
from lab.agent import AgentFiles

PREFIX = 'prefect:name of the instance:0123_'
KEYS = ('state_0', 'state_1')
USER = pwd.getpwuid(os.geteuid()).pw_name


def test_files_are_those_of_the_agent(tmp_path: Path) -> None:
    agent, files = AgentFiles(tmp_path), CacheFiles(str(tmp_path), PREFIX)
    assert files.size('state_0') is None
    agent.write(f'{PREFIX}state_0', 'abc')
    agent.write(f'{PREFIX}state_1', '')
    assert [files.size(key) for key in KEYS] == [3, 0]
    assert files.place == str(tmp_path / 'prefect')
    assert sorted(path.name for path in Path(files.place).iterdir()) == [
        'nameoftheinstance0123_state_0',
        'nameoftheinstance0123_state_1',
    ]


def test_nothing_is_known_without_a_run_directory() -> None:
    files = CacheFiles('', PREFIX)
    assert files.size('state_0') is None
    assert files.place == "the Agent's run directory"
    assert "the Agent's run directory" in files.describe(KEYS)


@pytest.fixture
def of_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `sudo datadog-agent check prefect` leaves, as the user of the Agent sees it."""
    folder = tmp_path / 'prefect'
    folder.mkdir(0o700)
    monkeypatch.setattr(cache_files.os, 'geteuid', lambda: 65534)
    access = os.access
    monkeypatch.setattr(cache_files.os, 'access', lambda path, mode, **more: path != folder and access(path, mode))
    return folder


def test_owner_is_named_with_the_command_that_helps(of_root: Path) -> None:
    user = pwd.getpwuid(65534).pw_name
    assert CacheFiles(str(of_root.parent), PREFIX).describe(KEYS) == (
        f'{of_root} belongs to {USER} (mode 0700) and the Agent runs as {user}: run `sudo chown -R {user} {of_root}`'
    )


def test_owner_without_a_name_is_a_number(of_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files.os, 'geteuid', lambda: 424242)
    assert 'sudo chown -R 424242 ' in CacheFiles(str(of_root.parent), PREFIX).describe(KEYS)


def test_own_folder_needs_other_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'prefect'
    folder.mkdir(0o500)
    access = os.access
    monkeypatch.setattr(cache_files.os, 'access', lambda path, mode, **more: path != folder and access(path, mode))
    description = CacheFiles(str(tmp_path), PREFIX).describe(KEYS)
    assert f'(mode 0500) and the Agent runs as {USER}: run `sudo chmod -R u+rwX {folder}`' in description
    assert 'for reading only' in description


def test_folder_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    (tmp_path / 'prefect').write_text('')
    assert f'{tmp_path / "prefect"}/nameoftheinstance0123_state_0: Not a directory' in CacheFiles(
        str(tmp_path), PREFIX
    ).describe(KEYS)


@pytest.mark.parametrize(('free', 'says'), [(4096, 'only 4 KiB are free: make room'), (2**30, 'check the file system')])
def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, says: str) -> None:
    usage = type('Usage', (), {'free': free})
    monkeypatch.setattr(cache_files.shutil, 'disk_usage', lambda path: usage)
    assert says in CacheFiles(str(tmp_path), PREFIX).describe(KEYS)


def test_run_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    assert 'No such file' in CacheFiles(str(tmp_path / 'gone'), PREFIX).describe(KEYS)


AS_NOBODY = """
import os, sys
from datadog_checks.prefect.streams.cache_files import CacheFiles
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(CacheFiles(sys.argv[1], 'prefect:0123_').describe(('state_0', 'state_1')))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can become another user')
def test_it_is_so_for_another_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    run_path = tmp_path_factory.mktemp('run')
    (run_path / 'prefect').mkdir(0o700)
    for path in (run_path, *(one for one in run_path.parents if Path(gettempdir()) in one.parents)):
        path.chmod(0o755)
    text = subprocess.run(
        [sys.executable, '-c', AS_NOBODY, str(run_path)], capture_output=True, text=True, check=True
    ).stdout
    assert f'{run_path / "prefect"} belongs to root (mode 0700) and the Agent runs as nobody' in text
