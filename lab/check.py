"""Run the check as the Agent would against any Prefect server, and show what is wrong there and what the check sends.

    python -m lab.check --url http://host:4200/api
    python -m lab.check --url http://host:4200/api --full
    python -m lab.check --config conf.yaml --times 5 --pause 15 --json
    python -m lab.check --url http://host:4200/api --logs --times 12

It exits with 1 when a server is not there, a configuration file cannot be read, or a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from lab.agent import CheckRunner
from lab.recording import Recording
from lab.report import TAG_SETS, as_json, full_report, log_lines, make_console, short_report

HEALTH = 'prefect.server.health'


class UsageError(Exception):
    """The caller asked for something that cannot be done; the text is one line for a person."""


def read_config(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read an Agent configuration file (conf.yaml); return its init_config and its instances."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}') from error
    except yaml.YAMLError as error:
        raise UsageError(f'{path} is not YAML: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict):
        raise UsageError(f'{path} is not an Agent configuration: it has no `instances`')
    instances = content.get('instances')
    if not isinstance(instances, list) or not instances or not all(isinstance(one, dict) for one in instances):
        raise UsageError(f'{path} has no instance: `instances` is a list with one mapping per Prefect server')
    init_config = content.get('init_config') or {}
    if not isinstance(init_config, dict):
        raise UsageError(f'{path}: `init_config` is not a mapping')
    return init_config, instances


def got_nothing(recording: Recording) -> bool:
    """Whether every check failed, and none found a healthy server."""
    health = recording.get(HEALTH)
    return recording.errors.total() == len(recording.results) and (health is None or health.peak == 0)


def run_checks(
    runners: Mapping[str, CheckRunner], times: int, pause: float, console: Console
) -> Mapping[str, Recording]:
    """Run every instance `times` times with a pause between the rounds; stop early when no server answers."""
    recordings = {url: Recording() for url in runners}
    with console.status('') as status:
        for round_number in range(1, times + 1):
            status.update(f'Check {round_number} of {times}')
            for url, runner in runners.items():
                recordings[url].add(runner.run())
            if all(map(got_nothing, recordings.values())):
                break
            if round_number < times:
                status.update(f'Check {round_number} of {times} is done, the next one comes {pause:g} s later')
                time.sleep(pause)
    return recordings


def without_user_info(url: str) -> str:
    """A password in the URL is for the server only."""
    return re.sub(r'//[^/]*@', '//', url)


def one_line(text: str | None) -> str:
    return ' '.join((text or '').split())


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m lab.check', description='Run the check against a Prefect server.')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--url', help='the prefect_url of the server, for example http://localhost:4200/api')
    source.add_argument('--config', type=Path, metavar='FILE', help='an Agent configuration file (conf.yaml)')
    parser.add_argument('--times', type=int, default=2, help='how many times the check runs (default: 2)')
    parser.add_argument('--pause', type=float, default=5.0, help='seconds between two runs (default: 5)')
    parser.add_argument('--tag-sets', type=int, default=TAG_SETS, help='tag sets shown per series (default: 2)')
    parser.add_argument('--full', action='store_true', help='print each series too, not only what is wrong now')
    parser.add_argument('--logs', action='store_true', help='collect the log records of runs, and print them')
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    parsed = parser.parse_args(arguments)
    if parsed.times < 1:
        parser.error('--times must be at least 1')
    if parsed.pause < 0:
        parser.error('--pause must not be negative')
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = make_console(json_output=options.json)
    # The stub aggregator refuses tags such as `env:prod`, which the Agent takes.
    os.environ.setdefault('DDEV_SKIP_GENERIC_TAGS_CHECK', 'true')
    try:
        init_config, instances = read_config(options.config) if options.config else ({}, [{'prefect_url': options.url}])
    except UsageError as error:
        console.print(str(error), style='red', soft_wrap=True, markup=False)
        return 1
    if options.logs:
        instances = [{**instance, 'collect_logs': True} for instance in instances]
    titles = [without_user_info(str(instance.get('prefect_url', 'no prefect_url'))) for instance in instances]
    if len(titles) > 1:
        titles = [f'{position}. {title}' for position, title in enumerate(titles, start=1)]
    runners = {title: CheckRunner(instance, init_config) for title, instance in zip(titles, instances, strict=True)}
    recordings = run_checks(runners, options.times, options.pause, console)

    if options.json:
        print(json.dumps({title: as_json(recording) for title, recording in recordings.items()}, indent=2))
    for title, recording in recordings.items():
        if got_nothing(recording):
            console.print(
                f'{title}: {one_line(recording.results[-1].error)}', style='red', soft_wrap=True, markup=False
            )
        elif not options.json:
            if options.full:
                console.print(full_report(recording, title=title, wants_all=False, tag_sets=options.tag_sets))
            else:
                console.print(short_report(recording, title=title))
            if options.logs:
                console.print(log_lines(recording), soft_wrap=True)
    if options.times == 1 and not all(map(got_nothing, recordings.values())):
        console.print('One check only: counts and durations start with the second (--times 2).', style='dim')
    return 1 if any(recording.errors for recording in recordings.values()) else 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
