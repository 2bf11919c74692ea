"""The Python environments that the Makefile runs in, as far as no package has to be installed for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tools import environments


def test_environments_that_nobody_asked_for_lately_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, 'SHARED', tmp_path)
    now = time.time()
    for name, age in (('dev-new', 0), ('dev-used', 29 * 86400), ('dev-old', 31 * 86400)):
        (tmp_path / name / 'bin').mkdir(parents=True)
        (tmp_path / name / 'finished').touch()
        (tmp_path / f'{name}.log').touch()
        os.utime(tmp_path / name / 'finished', (now - age, now - age))
    (tmp_path / 'dev-unfinished').mkdir()

    environments._remove_unused()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *('dev-new', 'dev-new.log', 'dev-unfinished', 'dev-used', 'dev-used.log'),
    ]


def test_environment_that_is_asked_for_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, 'SHARED', tmp_path)
    python = environments.interpreter('uv')
    folder = tmp_path / f'uv-{environments._hash(environments.REQUIREMENTS / "uv.txt", python)}'
    (folder / 'bin').mkdir(parents=True)
    (folder / 'bin' / 'python').touch()
    (folder / 'finished').touch()
    os.utime(folder / 'finished', (0, 0))

    assert environments._ensure_shared('uv', python) == folder
    environments._remove_unused()
    assert folder.exists()
