"""The files around the code that nobody runs until a user installs the wheel or Datadog shows the tile."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import pytest

from datadog_checks.prefect import PrefectCheck, __version__
from tools import wheel

FOLDER = Path(__file__).parents[2]
README = (FOLDER / 'README.md').read_text()
CLASSIFIERS = {
    'Category': {'Log Collection', 'Metrics', 'Orchestration'},
    'Offering': {'Integration'},
    'Submitted Data Type': {'Events', 'Logs', 'Metrics'},
    'Supported OS': {'Linux', 'Windows', 'macOS'},
}


@pytest.fixture(scope='module')
def manifest() -> Any:
    return json.loads((FOLDER / 'manifest.json').read_text())


@pytest.fixture(scope='module')
def integration(manifest: Any) -> Any:
    return manifest['assets']['integration']


def test_manifest_identifies_the_integration(manifest: Any, integration: Any) -> None:
    assert manifest['manifest_version'] == '2.0.0'
    assert manifest['app_id'] == PrefectCheck.__module__.split('.')[1] == 'prefect'
    assert str(UUID(manifest['app_uuid'])) == manifest['app_uuid']
    assert integration['source_type_name'] == manifest['tile']['title'] == 'Prefect'
    assert isinstance(integration['source_type_id'], int)
    assert isinstance(manifest['display_on_public_website'], bool)
    assert all(manifest['author'][key] for key in ('name', 'homepage', 'support_email', 'sales_email'))


def test_nothing_is_left_to_fill_in() -> None:
    for name in ('manifest.json', 'README.md', 'CHANGELOG.md', 'pyproject.toml'):
        assert 'FILL IN' not in (FOLDER / name).read_text(), name


def test_tile_description_fits(manifest: Any) -> None:
    description = manifest['tile']['description']

    assert description.isascii()
    assert 0 < len(description) <= 80


def test_tile_points_to_sections_that_exist(manifest: Any) -> None:
    tile = manifest['tile']

    for key in ('overview', 'configuration', 'support'):
        name, _, section = tile[key].partition('#')
        assert f'## {section}\n' in (FOLDER / name).read_text()
    assert (FOLDER / tile['changelog']).is_file()


def test_classifier_tags_are_known_and_sorted(manifest: Any) -> None:
    tags = manifest['tile']['classifier_tags']

    assert tags == sorted(set(tags))
    for tag in tags:
        kind, _, value = tag.partition('::')
        assert value in CLASSIFIERS[kind]


def test_logs_are_named_by_manifest_category_and_example(manifest: Any) -> None:
    example = (FOLDER / 'datadog_checks' / 'prefect' / 'data' / 'conf.yaml.example').read_text()

    assert manifest['assets']['logs'] == {'source': 'prefect'}
    assert {'Category::Log Collection', 'Submitted Data Type::Logs'} <= set(manifest['tile']['classifier_tags'])
    assert '#     source: prefect\n' in example


def test_every_file_of_the_manifest_exists(manifest: Any, integration: Any) -> None:
    listed = [integration['configuration']['spec'], integration['metrics']['metadata_path']]
    for assets in ('dashboards', 'monitors', 'saved_views'):
        listed += manifest['assets'].get(assets, {}).values()
    listed += [medium['image_url'] for medium in manifest['tile']['media']]

    assert [path for path in listed if not (FOLDER / path).is_file()] == []


def test_media_are_small_pictures_with_a_caption(manifest: Any) -> None:
    media = manifest['tile']['media']

    assert media
    for medium in media:
        picture = (FOLDER / medium['image_url']).read_bytes()
        assert medium['media_type'] == 'image'
        assert medium['caption'].isascii()
        assert picture.startswith(b'\x89PNG')
        assert len(picture) < 1_000_000


def test_every_asset_is_in_the_manifest(manifest: Any) -> None:
    """Datadog takes only what is listed, and no validator misses what is not."""
    for assets in ('dashboards', 'monitors', 'saved_views'):
        present = {f'assets/{assets}/{path.name}' for path in (FOLDER / 'assets' / assets).glob('*.json')}
        assert present == set(manifest['assets'].get(assets, {}).values())


def test_metric_to_check_is_one_that_is_always_sent(integration: Any) -> None:
    with (FOLDER / integration['metrics']['metadata_path']).open() as file:
        names = {row['metric_name'] for row in csv.DictReader(file)}

    assert integration['metrics']['check'] == 'prefect.server.health'
    assert integration['metrics']['check'] in names
    assert all(name.startswith(integration['metrics']['prefix']) for name in names)


def test_process_signatures_are_commands_of_prefect(integration: Any) -> None:
    signatures = integration['process_signatures']
    assert signatures
    assert all(re.fullmatch(r'prefect \w+ start', signature) for signature in signatures)


def test_changelog_begins_with_this_version() -> None:
    lines = (FOLDER / 'CHANGELOG.md').read_text().splitlines()
    version, _, day = lines[2].removeprefix('## ').partition(' / ')

    assert lines[0] == '# CHANGELOG - Prefect'
    assert version == __version__
    assert date.fromisoformat(day)
    assert lines[4] in {'***Added***:', '***Changed***:', '***Fixed***:'}


def test_package_depends_on_what_the_agent_brings_and_nothing_else() -> None:
    project = tomllib.loads((FOLDER / 'pyproject.toml').read_text())['project']

    assert project['name'] == 'datadog-prefect'
    assert project['dependencies'] == ['datadog-checks-base>=37.33.0']
    assert project['optional-dependencies'] == {'deps': []}
    assert project['requires-python'] == '>=3.11'


def test_oldest_base_that_is_promised_is_the_one_that_is_tested() -> None:
    project = tomllib.loads((FOLDER / 'pyproject.toml').read_text())['project']
    promised = project['dependencies'][0].replace('>=', '[deps]==')

    assert promised in (FOLDER.parent / 'requirements' / 'base-oldest.in').read_text().splitlines()


def test_readme_has_the_sections_of_an_integration_page() -> None:
    sections = re.findall(r'^## (.+)$', README, re.MULTILINE)

    assert sections == ['Overview', 'Setup', 'Data Collected', 'Troubleshooting', 'Uninstallation', 'Support']


def test_readme_is_ascii() -> None:
    assert README.isascii()


def test_readme_defines_the_links_that_it_uses() -> None:
    used = set(re.findall(r'\]\[(\d+)\]', README))
    defined = dict(re.findall(r'^\[(\d+)\]: (\S+)$', README, re.MULTILINE))

    assert used == set(defined)
    assert [link for link in defined.values() if '://' not in link and not (FOLDER / link).is_file()] == []


def test_readme_names_the_wheel_of_this_version() -> None:
    assert set(re.findall(r'datadog_prefect-(\S+?)-py3', README)) == {__version__}


def test_bill_of_materials_names_the_wheel_and_what_the_agent_brings(tmp_path: Path) -> None:
    built = tmp_path / 'datadog_prefect-9.9.9-py3-none-any.whl'
    with ZipFile(built, 'w') as archive:
        archive.writestr(
            'datadog_prefect-9.9.9.dist-info/METADATA',
            'Name: datadog-prefect\nVersion: 9.9.9\nSummary: A check\nRequires-Dist: datadog-checks-base>=1.2\n',
        )
    bill = json.loads(wheel.write_bill_of_materials(built).read_text())

    component = bill['metadata']['component']
    assert (bill['bomFormat'], component['name'], component['version']) == ('CycloneDX', 'datadog-prefect', '9.9.9')
    assert component['licenses'] == [{'expression': 'BSD-3-Clause'}]
    assert component['hashes'] == [{'alg': 'SHA-256', 'content': hashlib.sha256(built.read_bytes()).hexdigest()}]
    assert [item['purl'] for item in bill['components']] == ['pkg:pypi/datadog-checks-base']
