"""The snippets of `docs/deploying.md` are configurations that the check takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datadog_checks.prefect import PrefectCheck, __version__

PAGE = (Path(__file__).parents[3] / 'docs' / 'deploying.md').read_text()
YAML_BLOCKS = [yaml.safe_load(block) for block in re.findall(r'```yaml\n(.*?)```', PAGE, re.DOTALL)]
# What the Agent puts in the place of its template variables.
RESOLVED = {'%%host%%': '10.0.0.7', '%%env_PREFECT_AUTH_STRING%%': 'admin:sesame'}


def texts(document: Any) -> Iterator[tuple[str, str]]:
    """Every key with a text, at any depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(value, str):
                yield key, value
            else:
                yield from texts(value)
    elif isinstance(document, list):
        for item in document:
            yield from texts(item)


def resolved(text: str) -> str:
    for variable, value in RESOLVED.items():
        text = text.replace(variable, value)
    assert '%%' not in text
    return text


def check_configurations() -> Iterator[tuple[str, dict[str, Any]]]:
    for block in YAML_BLOCKS:
        for key, text in texts(block):
            if key.endswith(('.checks', 'ad.checks')):
                yield key, json.loads(resolved(text))['prefect']
            elif key == 'prefect.yaml':
                yield key, yaml.safe_load(text)


CONFIGURATIONS = list(check_configurations())


def test_every_way_has_a_snippet() -> None:
    assert [key for key, _ in CONFIGURATIONS] == [
        'com.datadoghq.ad.checks',
        'ad.datadoghq.com/prefect-server.checks',
        'ad.datadoghq.com/service.checks',
        'prefect.yaml',
    ]


@pytest.mark.parametrize('configuration', [item for _, item in CONFIGURATIONS], ids=[key for key, _ in CONFIGURATIONS])
def test_snippet_is_a_configuration_of_the_check(configuration: dict[str, Any]) -> None:
    (instance,) = configuration['instances']
    check = PrefectCheck('prefect', configuration['init_config'] or {}, [instance])
    check.load_configuration_models()

    assert check.config.prefect_url.endswith(':4200/api')
    assert set(instance) <= set(type(check.config).model_fields)


def test_annotation_names_its_container() -> None:
    (deployment,) = [block for block in YAML_BLOCKS if block.get('kind') == 'Deployment']
    template = deployment['spec']['template']
    (container,) = template['spec']['containers']

    for key in template['metadata']['annotations']:
        assert key.startswith(f'ad.datadoghq.com/{container["name"]}.')


def test_log_sources_are_that_of_the_pipeline() -> None:
    logs = [json.loads(text) for block in YAML_BLOCKS for key, text in texts(block) if key.endswith('.logs')]

    assert [item['source'] for (item,) in logs] == ['prefect', 'prefect']


def test_image_installs_this_version() -> None:
    assert set(re.findall(r'datadog_prefect-(\S+?)-py3', PAGE)) == {__version__}
