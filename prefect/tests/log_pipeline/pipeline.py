"""The files of `assets/logs`: the pipeline with its facets, and its tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.log_pipeline.errors import PipelineError
from tests.log_pipeline.processors import Log, Pipeline, Reading

# What the tests file says of a log whose time no processor has set.
NO_TIMESTAMP = 1


@dataclass(frozen=True)
class LogTest:
    """One entry of the tests file."""

    sample: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Asset:
    """`<name>.yaml` and `<name>_tests.yaml`."""

    identity: str
    facets: tuple[Mapping[str, Any], ...]
    pipeline: Pipeline
    tests: tuple[LogTest, ...]

    @classmethod
    def read(cls, path: Path) -> Asset:
        """Read the pipeline and its tests. Raises PipelineError for anything that is not known."""
        definition = yaml.safe_load(path.read_text())
        tests = yaml.safe_load(path.with_name(f'{path.stem}_tests.yaml').read_text())
        if set(definition) != {'id', 'metric_id', 'backend_only', 'facets', 'pipeline'} or set(tests) != {
            'id',
            'tests',
        }:
            raise PipelineError(f'unknown or missing keys: {list(definition)}, {list(tests)}')
        if not definition['id'] == definition['metric_id'] == tests['id'] or definition['backend_only']:
            raise PipelineError(f'one id, and not backend_only: {definition["id"]}, {tests["id"]}')
        if definition['pipeline'].get('type') != 'pipeline':
            raise PipelineError('not a pipeline')
        return cls(
            identity=definition['id'],
            facets=tuple(definition['facets']),
            pipeline=Pipeline.read(definition['pipeline']),
            tests=tuple(LogTest(test['sample'], test['result']) for test in tests['tests']),
        )

    def process(self, text: str, reading: Reading = Reading.ATTRIBUTES) -> Log:
        log = Log.from_text(text, reading)
        self.pipeline.apply(log)
        return log

    def result(self, text: str, reading: Reading = Reading.ATTRIBUTES) -> dict[str, Any]:
        """Return what the pipeline makes of a text, in the form of the tests file."""
        log = self.process(text, reading)
        result = {
            'custom': log.attributes or None,
            'message': log.message,
            'status': log.status,
            'tags': ['source:LOGS_SOURCE'],
            'timestamp': NO_TIMESTAMP if log.timestamp is None else log.timestamp,
        }
        return {key: value for key, value in result.items() if value is not None}
