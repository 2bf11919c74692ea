"""`make import` against a stand-in for a Datadog account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fake_datadog import API_KEY, APP_KEY, FakeDatadog, running
from tools.importing import account as account_module
from tools.importing import assets as assets_module
from tools.importing.__main__ import main
from tools.importing.assets import Choices, assets

ALL = len(list(assets()))
MONITORS = len(list(assets(kinds=['monitors'])))


@pytest.fixture
def datadog(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[FakeDatadog]:
    monkeypatch.setenv('DD_API_KEY', API_KEY)
    monkeypatch.setenv('DD_APP_KEY', APP_KEY)
    monkeypatch.setattr(assets_module, 'DIST', tmp_path)
    monkeypatch.setattr('tools.importing.__main__.DIST', tmp_path)
    with running(FakeDatadog()) as fake:
        yield fake


def bring(datadog: FakeDatadog, *arguments: str) -> int:
    return main(['--site', datadog.url, *arguments])


def number_of_objects(datadog: FakeDatadog) -> int:
    return sum(len(datadog.everything(resource)) for resource in datadog.objects)


def monitor_of(datadog: FakeDatadog, name: str) -> dict[str, Any]:
    (found,) = (one for one in datadog.everything('monitor') if f'prefect_asset:{name}' in one['tags'])
    return found


def test_second_import_has_nothing_to_do(datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]) -> None:
    assert bring(datadog) == 0
    written = len(datadog.writes)
    assert number_of_objects(datadog) == ALL
    capsys.readouterr()

    assert bring(datadog) == 0

    assert len(datadog.writes) == written
    assert capsys.readouterr().out.count(': nothing to do') == ALL

    datadog.everything('dashboard')[0]['title'] = 'Ours'
    assert bring(datadog, '--only', 'dashboards') == 1
    assert '-title: Ours' in capsys.readouterr().out


def test_new_choices_update_in_place(datadog: FakeDatadog) -> None:
    bring(datadog, '--only', 'monitors')
    before = {one['id'] for one in datadog.everything('monitor')}

    choices = ['--notify', '@team-data', '--tags', 'service:prefect,team:data', '--runbook', 'https://wiki/runbook.md']
    assert bring(datadog, '--only', 'monitors', *choices) == 0

    late = monitor_of(datadog, 'late_runs')
    assert {one['id'] for one in datadog.everything('monitor')} == before
    assert late['message'].endswith('[Runbook](https://wiki/runbook.md#late-runs)\n\n@team-data')
    assert {'integration:prefect', 'service:prefect', 'team:data'} <= set(late['tags'])


def test_change_of_a_person_is_shown_and_kept_unless_forced(
    datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(datadog, '--only', 'monitors')
    late = monitor_of(datadog, 'late_runs')
    late['options']['thresholds']['critical'] = 77
    capsys.readouterr()

    assert bring(datadog, '--only', 'monitors') == 1
    assert '-options.thresholds.critical: 77' in capsys.readouterr().out
    assert late['options']['thresholds']['critical'] == 77

    assert bring(datadog, '--only', 'monitors', '--force') == 0
    assert monitor_of(datadog, 'late_runs')['options']['thresholds']['critical'] == 900


def test_mute_is_no_change(datadog: FakeDatadog) -> None:
    bring(datadog, '--only', 'monitors')
    monitor_of(datadog, 'late_runs')['options']['silenced'] = {'*': None}

    assert bring(datadog, '--only', 'monitors') == 0


def test_dry_run_writes_nothing(datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]) -> None:
    assert bring(datadog, '--dry-run') == 0

    assert datadog.writes == []
    assert capsys.readouterr().out.count('would be created') == ALL


@pytest.mark.parametrize(('kind', 'resource'), [('slos', 'slo'), ('monitors', 'monitor')])
def test_objects_beyond_the_first_page_are_found(kind: str, resource: str, datadog: FakeDatadog) -> None:
    for number in range(250):
        datadog.objects[resource][f'foreign-{number}'] = {'id': number, 'tags': ['team:other']}
    for _ in range(2):
        assert bring(datadog, '--only', kind) == 0

    assert len(datadog.everything(resource)) == 250 + len(list(assets(kinds=[kind])))


def test_server_error_is_told_and_the_next_import_doubles_nothing(
    datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]
) -> None:
    datadog.break_once = {'monitor'}

    assert bring(datadog, '--only', 'monitors') == 1
    said = capsys.readouterr().out
    assert '500: Internal error' in said
    assert bring(datadog, '--only', 'monitors') == 0

    assert len(datadog.everything('monitor')) == MONITORS


def test_too_many_requests_are_waited_for(datadog: FakeDatadog, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(account_module.time, 'sleep', waits.append)
    datadog.throttle, datadog.throttle_seconds = 2, 7

    assert bring(datadog, '--only', 'slos') == 0
    assert waits == [7, 7]


def test_too_long_a_wait_ends_the_import(datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]) -> None:
    datadog.throttle, datadog.throttle_seconds = 1, 3600

    assert bring(datadog) == 1
    assert 'takes no more requests for 3600 s (429). Run this again then' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('denied', 'said'),
    [
        ('GET dashboard', 'does not let us read dashboards (403: Forbidden)'),
        ('POST monitor', 'does not let us create monitors (403: Forbidden)'),
    ],
)
def test_missing_permission_is_named(
    denied: str, said: str, datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]
) -> None:
    datadog.deny = {denied}

    assert bring(datadog) == 1
    output = capsys.readouterr().out
    assert said in output
    assert 'The owner of DD_APP_KEY needs the permissions' in output


def test_key_of_another_site_is_told(
    datadog: FakeDatadog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('DD_API_KEY', 'key-of-another-site')

    assert bring(datadog) == 1
    output = capsys.readouterr().out
    assert 'A key works on one site only' in output
    assert 'key-of-another-site' not in output


def test_site_that_does_not_exist_is_told(datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--site', 'datadog.com']) == 1
    assert 'SITE=datadog.com is no site of Datadog. Sites are datadoghq.com, us3.' in capsys.readouterr().out


def test_account_that_cannot_be_reached_is_told(datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--site', 'http://127.0.0.1:1']) == 1
    assert 'http://127.0.0.1:1 cannot be reached' in capsys.readouterr().out


def test_keys_must_be_there(
    datadog: FakeDatadog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv('DD_APP_KEY')

    assert bring(datadog) == 1
    assert 'put both DD_API_KEY and DD_APP_KEY into the environment' in capsys.readouterr().out


def test_a_copy_is_told_and_left_alone(datadog: FakeDatadog, capsys: pytest.CaptureFixture[str]) -> None:
    bring(datadog, '--only', 'monitors')
    datadog.objects['monitor']['9'] = {**monitor_of(datadog, 'late_runs'), 'id': 9}

    assert bring(datadog, '--only', 'monitors') == 1
    assert '2 objects carry the name of this asset' in capsys.readouterr().out


def test_text_of_the_runbook_stands_in_messages_without_its_address() -> None:
    messages = {asset.name: asset.body['message'] for asset in assets(Choices(), ['monitors'])}

    assert '**Runbook: Late runs**\n\nThe tag `late_reason` names' in messages['late_runs']
    assert not [name for name, message in messages.items() if 'docs/runbook.md' in message or 'example.com' in message]


def test_dashboards_take_only_tags_of_teams() -> None:
    choices = Choices(tags=('service:prefect', 'team:data'), runbook='https://wiki/runbook.md')
    boards = list(assets(choices, ['dashboards']))

    assert [board.body['tags'] for board in boards] == [['team:data']] * 2
    assert '[Runbook](https://wiki/runbook.md)' in json.dumps([board.body for board in boards])


def test_files_hold_what_is_imported(datadog: FakeDatadog, tmp_path: Any) -> None:
    assert main(['--files-only', '--notify', '@team-data']) == 0

    late = json.loads((tmp_path / 'monitors' / 'late_runs.json').read_text())
    assert late['type'] == 'query alert'
    assert late['message'].endswith('@team-data')
    assert len(list(tmp_path.rglob('*.json'))) == ALL
