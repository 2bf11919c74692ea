"""Options and what is said of wrong ones; `assets/configuration/spec.yaml` and `config_models/validators.py`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from pydantic import BaseModel

import datadog_checks.prefect
from datadog_checks.prefect import PrefectCheck
from datadog_checks.prefect.config_models.instance import InstanceConfig
from datadog_checks.prefect.config_models.shared import SharedConfig
from datadog_checks.prefect.config_models.validators import EXAMPLES
from datadog_checks.prefect.streams.window import OVERLAP
from datadog_checks.prefect.unknown_options import options_of_the_base
from tests.unit.lint import for_each

URL = 'http://localhost:4200/api'
EXAMPLE = Path(datadog_checks.prefect.__file__).parent / 'data' / 'conf.yaml.example'
PATTERNS = ('work_pool_names', 'work_queue_names', 'deployment_names', 'flow_names', 'prefect_tags', 'log_names')
FILTERS = (*PATTERNS, 'event_names')

# All that could be a credential in a wrong URL.
SECRETS = ('bob', 'hunter', 'ter2')


def make_check(**options: Any) -> PrefectCheck:
    instance = {'prefect_url': URL, **options}
    return PrefectCheck('prefect', {}, [{key: value for key, value in instance.items() if value is not ...}])


def load(**options: Any) -> InstanceConfig:
    check = make_check(**options)
    check.load_configuration_models()
    return check.config


def error_of(**options: Any) -> list[str]:
    """Return the lines of the error that a run of the check gives, without the first, which is the same for all."""
    head, *lines = json.loads(make_check(**options).run())[0]['message'].splitlines()
    assert head.startswith('Detected ')
    return lines


def test_defaults() -> None:
    config = load()

    assert config.collect_events is False
    assert config.late_start_threshold == 15
    assert config.max_catchup == 3600
    assert config.persist_connections is True
    assert config.timeout == 10
    assert (config.work_pool_names, config.work_queue_names, config.deployment_names) == (None, None, None)
    assert config.event_names.include == (
        r'^prefect\.task-run\..*$',
        r'^prefect\.flow-run\..*$',
        r'^prefect\.[a-z-]+\.(ready|not-ready)$',
        r'^prefect\.automation\.action\.failed$',
    )
    assert config.event_names.exclude == (r'^prefect\.flow-run\.heartbeat$',)


def test_no_optional_option_gets_its_example_as_default() -> None:
    """An example would silently become a value, such as a proxy or a user name that nobody configured."""
    options = {name for name, value in load() if value is not None and not isinstance(value, (bool, int, float))}

    assert options == {'prefect_url', 'event_names', 'log_level', 'collect', 'auth_type', 'kerberos_auth'}


def test_options_that_are_set_to_nothing_get_their_defaults() -> None:
    empty = dict.fromkeys(set(InstanceConfig.model_fields) - {'prefect_url'})

    assert load(**empty) == load()
    assert make_check(**empty).http.options['verify'] is True
    assert make_check(**empty).http.options['timeout'] == (10, 10)
    assert load(collect={'late_runs': None}) == load()
    empty_init_config = dict.fromkeys(SharedConfig.model_fields)
    assert PrefectCheck('prefect', empty_init_config, [{'prefect_url': URL}]).http.options['timeout'] == (10, 10)


def test_groups_are_switched_one_by_one() -> None:
    groups = dict(load(collect={'late_runs': False, 'freshness': 'no', 'concurrency': 'on'}).collect)

    assert [group for group, is_on in groups.items() if not is_on] == ['freshness', 'late_runs']


@pytest.mark.parametrize(
    ('value', 'problem'),
    [
        (['late_runs'], 'must be a mapping of groups to true or false'),
        ({'late_runs': 'perhaps'}, '`collect.late_runs` must be true or false'),
        ({'laet_runs': False}, 'has no group `laet_runs`, only late_runs, run_ages'),
    ],
    ids=['a list', 'no boolean', 'unknown group'],
)
def test_wrong_groups(value: Any, problem: str) -> None:
    (option, message) = error_of(collect=value)

    assert option == 'collect'
    assert problem in message
    assert '`collect: {late_runs: false}`' in message


def test_expectations_are_read() -> None:
    entries = load(
        expectations=[
            {'deployment_names': {'include': ['^nightly']}, 'max_age': '26h', 'max_run_time': 1800},
            {'deployment_names': ['^backfill'], 'max_age': False, 'max_run_time': None},
            {'max_run_time': ' 1.5 d '},
        ]
    ).expectations

    assert [(item.max_age, item.max_run_time) for item in entries] == [
        ('26h', '1800'),
        ('off', None),
        (None, ' 1.5 d '),
    ]
    assert [item.deployment_names and item.deployment_names.include for item in entries] == [
        ('^nightly',),
        ('^backfill',),
        None,
    ]
    assert load(expectations=[]).expectations == ()


@pytest.mark.parametrize(
    ('value', 'problem'),
    [
        ({'max_age': '26h'}, 'must be a list of mappings'),
        (['26h'], '`expectations[0]` must be a mapping'),
        ([{'max_age': '26h'}, {}], '`expectations[1]` needs `max_age`, `max_run_time` or both'),
        ([{'deployment_names': {'include': ['a']}, 'max_age': None}], '`expectations[0]` needs'),
        ([{'max_age': '26h', 'max_agee': '1h'}], '`expectations[0]` has no key `max_agee`'),
        ([{'max_age': '26h', 1: 2}], '`expectations[0]` has no key `1`'),
        ([{'deployment_names': {'include': ['(']}, 'max_age': 1}], '`expectations[0].deployment_names.include[0]`'),
        ([{'deployment_names': 'nightly', 'max_age': 1}], '`expectations[0].deployment_names` must be a mapping'),
        *(
            ([{key: value}], f'`expectations[0].{key}` must be a number of seconds')
            for key, value in (
                *(('max_age', wrong) for wrong in ('26 hours', '1h30m', '', 0, -1, True, 'on', 1e300, [1], {})),
                ('max_run_time', 'nan'),
            )
        ),
    ],
    ids=str,
)
def test_wrong_expectations(value: Any, problem: str) -> None:
    (option, message) = error_of(expectations=value)

    assert option == 'expectations'
    assert problem in message
    assert 'max_age: 26h' in message or 'include' in message


@pytest.mark.parametrize('option', FILTERS[:-1])
def test_filter_is_read(option: str) -> None:
    names = getattr(load(**{option: {'include': ['^a', 'b$'], 'exclude': None}}), option)

    assert (names.include, names.exclude) == (('^a', 'b$'), None)


def test_event_names_keep_the_default_of_the_key_that_is_not_set() -> None:
    default = load().event_names

    assert load(event_names={'include': ['x']}).event_names.exclude == default.exclude
    assert load(event_names={'exclude': ['x']}).event_names.include == default.include
    assert load(event_names={'exclude': []}).event_names.exclude == ()


@pytest.mark.parametrize(
    'url',
    [
        'http://localhost:4200/api',
        'https://prefect.example.com',
        'https://example.com/teams/data/prefect/api/',
        'http://[::1]:4200/api',
        'HTTP://LOCALHOST/api',
        'http://bob:hunter%2Fter2@localhost/api',
        'http://my_service.data:65535/api',
        'http://prefect.example.com.:1/api',
        f'http://{"a" * 63}.test/api',
        'http://10.0.0.7/api',
        'http://b\u00fccher.example/api',
        'http://[2001:db8::7]/api',
    ],
)
def test_right_urls(url: str) -> None:
    assert load(prefect_url=f' {url} ').prefect_url == url


@pytest.mark.parametrize(
    ('url', 'problem'),
    [
        pytest.param(' ', 'must be the address of the Prefect API', id='blank'),
        pytest.param(4200, 'must be the address of the Prefect API', id='a number'),
        pytest.param('localhost:4200/api', 'must start with `http://` or `https://`', id='no scheme'),
        pytest.param('ftp://bob:hunter2@localhost', 'must start with `http://` or `https://`', id='wrong scheme'),
        pytest.param('http:///api', 'has no valid host and port', id='no host'),
        pytest.param('http://bob:hunter2@/api', 'has no valid host and port', id='no host but a password'),
        pytest.param('http://localhost:port/api', 'has no valid host and port', id='port is no number'),
        pytest.param('http://localhost:70000/api', 'has no valid host and port', id='port too high'),
        pytest.param('http://[::1/api', 'has no valid host and port', id='open bracket'),
        pytest.param('http://local host/api', 'has no valid host and port', id='space'),
        pytest.param('http://localhost:0/api', 'has no valid host and port', id='port 0'),
        pytest.param('http://localhost:99999/api', 'has no valid host and port', id='port beyond the last'),
        pytest.param('http://localhost:-1/api', 'has no valid host and port', id='port below the first'),
        pytest.param('http://localhost:\u0664\u0662/api', 'has no valid host and port', id='port in other digits'),
        pytest.param(f'http://{"a" * 64}.test/api', 'has no valid host and port', id='label of 64 characters'),
        pytest.param(f'http://{".".join(["abc"] * 70)}/api', 'has no valid host and port', id='host of 279 characters'),
        pytest.param('http://prefect..test/api', 'has no valid host and port', id='empty label'),
        pytest.param('http://.prefect.test/api', 'has no valid host and port', id='empty first label'),
        pytest.param('http://prefect.test../api', 'has no valid host and port', id='two dots at the end'),
        pytest.param('http://./api', 'has no valid host and port', id='only a dot'),
        pytest.param('http://*.prefect.test/api', 'has no valid host and port', id='wildcard'),
        pytest.param('http://pre%66ect/api', 'has no valid host and port', id='escaped letter'),
        pytest.param('http://prefect,test/api', 'has no valid host and port', id='comma'),
        pytest.param('http://pre\x00fect/api', 'has no valid host and port', id='NUL'),
        pytest.param('http://pre\u202efect/api', 'has no valid host and port', id='bidirectional control'),
        pytest.param('http://\u00e4' + '\u00e4' * 63 + '.test/api', 'has no valid host and port', id='long umlauts'),
        pytest.param('http://localhost\\@evil.test/api', 'has no valid host and port', id='backslash'),
        pytest.param('http://[localhost]/api', 'has no valid host and port', id='name in brackets'),
        pytest.param('http://[::1]x/api', 'has no valid host and port', id='more behind the bracket'),
        pytest.param('http://::1/api', 'has no valid host and port', id='IPv6 without brackets'),
        pytest.param('http://bob:hunter2@[::1/api', 'has no valid host and port', id='open bracket and a password'),
        pytest.param('http://bob:hunter/ter2@localhost/api', 'has no valid host and port', id='slash in password'),
        pytest.param('http://bob:1/hunter2@localhost/api', 'has no valid host and port', id='password like a port'),
        pytest.param('http://bob:hunter#ter2@localhost/api', 'has no valid host and port', id='hash in password'),
        pytest.param('http://localhost/api?hunter2', 'without `?` and `#`', id='query'),
        pytest.param('http://localhost/#/bob', 'without `?` and `#`', id='fragment'),
    ],
)
def test_wrong_urls_are_named_without_their_secrets(url: Any, problem: str) -> None:
    option, message = error_of(prefect_url=url)

    assert option == 'prefect_url'
    assert problem in message
    assert '`prefect_url: http://localhost:4200/api`' in message
    assert not [secret for secret in SECRETS if secret in make_check(prefect_url=url).run()]


@pytest.mark.parametrize(
    ('url', 'accepted'),
    [
        ('https://prefect.example.com', 'https://prefect.example.com'),
        (' https://prefect.example.com/team// ', 'https://prefect.example.com/team'),
        ('HTTP://[::1]:4200', 'HTTP://[::1]:4200'),
        ('https://app.prefect.cloud/account/a1/workspace/w1', 'https://app.prefect.cloud/account/a1/workspace/w1'),
    ],
)
def test_ui_url_can_be_extended_by_a_path(url: str, accepted: str) -> None:
    assert load(ui_url=url).ui_url == accepted


@pytest.mark.parametrize(
    ('url', 'problem'),
    [
        pytest.param(7, 'must start with `http://` or `https://`', id='a number'),
        pytest.param('', 'must start with `http://` or `https://`', id='empty'),
        pytest.param('prefect.example.com', 'must start with `http://` or `https://`', id='no scheme'),
        pytest.param('javascript:alert(1)', 'must start with `http://` or `https://`', id='a script'),
        pytest.param('http://', 'has no valid host and port', id='no host'),
        pytest.param('http://localhost:port', 'has no valid host and port', id='port is no number'),
        pytest.param('http://local host', 'has no valid host and port', id='space'),
        pytest.param('http://local\0host', 'has no valid host and port', id='control character'),
        pytest.param('http://[::1', 'has no valid host and port', id='open bracket'),
        pytest.param('http://bob:hunter2@localhost', 'must not hold a user name or password', id='user info'),
        pytest.param('http://bob:1/hunter2@localhost', 'must not hold a user name or password', id='slash in password'),
        pytest.param('http://localhost?a=hunter2', 'without `?` and `#`', id='query'),
        pytest.param('http://localhost/#/runs', 'without `?` and `#`', id='fragment'),
        pytest.param('http://localhost#', 'without `?` and `#`', id='empty fragment'),
    ],
)
def test_wrong_ui_urls_are_named_without_their_secrets(url: Any, problem: str) -> None:
    option, message = error_of(ui_url=url)
    assert option == 'ui_url'
    assert problem in message
    assert '`ui_url: https://prefect.example.com`' in message
    assert 'hunter2' not in make_check(ui_url=url).run()


@pytest.mark.parametrize('url', [..., None], ids=['missing', 'nothing'])
def test_missing_url(url: Any) -> None:
    (message,) = (line for line in error_of(prefect_url=url) if line.strip())
    assert '`prefect_url` is missing' in message
    assert '`prefect_url: http://localhost:4200/api`' in message


@pytest.mark.parametrize('option', FILTERS)
@pytest.mark.parametrize(
    ('value', 'problem'),
    [
        pytest.param(['^prod'], 'must be a mapping of `include` and `exclude`', id='a list'),
        pytest.param('^prod', 'must be a mapping of `include` and `exclude`', id='a string'),
        pytest.param({'include': '^prod'}, '`OPTION.include` must be a list of regular expressions', id='one pattern'),
        pytest.param({'includes': ['^prod']}, '`OPTION` has no key `includes`', id='unknown key'),
        pytest.param({'include': [1]}, '`OPTION.include[0]` must be a string', id='not a string'),
        pytest.param(
            {'include': ['a', '[b']},
            '`OPTION.include[1]` is not a valid regular expression: `[b` (unterminated character set at position 0)',
            id='include does not compile',
        ),
        pytest.param(
            {'exclude': ['*{a}']},
            '`OPTION.exclude[0]` is not a valid regular expression: `*{a}` (nothing to repeat at position 0)',
            id='exclude does not compile',
        ),
    ],
)
def test_wrong_filters(option: str, value: Any, problem: str) -> None:
    name, message = error_of(**{option: value})

    assert name == option
    assert problem.replace('OPTION', option) in message
    assert f'for example: `{option}: {{include: ["^prod"], exclude: ["test$"]}}`' in message


def test_all_problems_of_a_filter_are_told_at_once() -> None:
    _, message = error_of(deployment_names={'include': ['[', '('], 'exclud': []})

    for part in ('`deployment_names.include[0]`', '`deployment_names.include[1]`', 'no key `exclud`'):
        assert part in message


@pytest.mark.parametrize('option', ['late_start_threshold', 'max_catchup', 'worker_retention'])
@pytest.mark.parametrize('value', [-1, 'soon', True, [], float('nan'), float('inf')])
def test_wrong_seconds(option: str, value: Any) -> None:
    name, message = error_of(**{option: value})

    assert name == option
    assert 'must be a number of seconds' in message
    assert f'for example: `{option}: ' in message


@pytest.mark.parametrize('value', [0, 0.5, 90, '90'])
def test_right_seconds(value: Any) -> None:
    assert load(late_start_threshold=value).late_start_threshold == float(value)


def test_catchup_is_not_shorter_than_what_a_check_reads_again() -> None:
    assert error_of(max_catchup=119)[1].startswith('  must be a number of seconds, 120 or more')
    assert load(max_catchup=120).max_catchup == OVERLAP.total_seconds()


def test_catchup_reaches_back_to_the_last_check() -> None:
    message = error_of(max_catchup=600, min_collection_interval=900)[-1]

    assert '`max_catchup` (600) must not be less than `min_collection_interval` (900)' in message
    assert '`max_catchup` (3600) must not be less' in error_of(min_collection_interval=7200)[-1]


def test_unset_catchup_of_a_cluster_check_follows_the_interval() -> None:
    load(min_collection_interval=7200, empty_default_hostname=True)
    assert (
        '`max_catchup` (600)' in error_of(max_catchup=600, min_collection_interval=900, empty_default_hostname=True)[-1]
    )


@pytest.mark.parametrize('level', ['LOUD', 20, ['INFO']])
def test_wrong_log_levels(level: Any) -> None:
    assert error_of(log_level=level)[1] == (
        '  must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, for example: `log_level: WARNING`'
    )


@pytest.mark.parametrize('seconds', [119, 901, 'long'])
def test_wrong_log_overlaps(seconds: Any) -> None:
    assert error_of(log_overlap=seconds)[0] == 'log_overlap'


@pytest.mark.parametrize(('value', 'meaning'), [(True, True), ('true', True), ('no', False), (0, False)])
def test_right_booleans(value: Any, meaning: bool) -> None:
    assert load(collect_events=value).collect_events is meaning


@pytest.mark.parametrize('value', ['perhaps', 2, ['true'], {}])
def test_wrong_booleans(value: Any) -> None:
    assert error_of(collect_events=value) == [
        'collect_events',
        '  must be true or false, for example: `collect_events: true`',
    ]


def test_every_wrong_option_is_named() -> None:
    lines = error_of(prefect_url='x', max_catchup=1, tags=[1], tls_verify='perhaps')

    assert [line for line in lines if not line.startswith(' ')] == [
        'max_catchup',
        'prefect_url',
        'tags',
        'tls_verify',
    ]


# What is no value of an option that the model declares as such.
WRONG: dict[str, list[Any]] = {
    'bool': ['hunter2', 2, ['true'], {}],
    'float': ['hunter2', True, ['1'], {}, -1, float('nan')],
    'str': [2, True, ['hunter2'], {'hunter2': 'hunter2'}],
    'tuple': ['hunter2', 2, [1], {'hunter2': 'hunter2'}],
    'mapping': ['hunter2', 2, ['hunter2']],
}
# The base looks into it when the check is made, before any option is checked.
READ_BEFORE = 'metric_patterns'


def wrong_values(model: type[BaseModel]) -> dict[str, tuple[str, Any]]:
    """(option, wrong value) for each option of a model."""
    found = {}
    for option in set(model.model_fields) - {READ_BEFORE}:
        declared = str(model.model_fields[option].annotation).replace('mappingproxy[str', 'mapping')
        kind = next((kind for kind in ('tuple', 'bool', 'float', 'str') if kind in declared), 'mapping')
        kind = 'str' if 'Literal' in declared else kind
        found |= {f'{option}: {value}': (option, value) for value in WRONG[kind]}
    return dict(sorted(found.items()))


@for_each(wrong_values(InstanceConfig))
def test_wrong_kind_of_value_is_told_with_an_example(wrong: tuple[str, Any]) -> None:
    option, value = wrong
    name, message = error_of(**{option: value})

    assert name == option
    assert 'must ' in message or 'has no valid' in message
    assert f'`{option}: ' in message
    assert 'hunter2' not in message


@for_each(wrong_values(SharedConfig))
def test_wrong_kind_of_value_in_init_config_is_told_with_an_example(wrong: tuple[str, Any]) -> None:
    option, value = wrong
    answer = PrefectCheck('prefect', {option: value}, [{'prefect_url': URL}]).run()
    _, name, message = json.loads(answer)[0]['message'].splitlines()

    assert name == option
    assert f'`{option}: ' in message


@for_each({option: option for option in sorted(EXAMPLES)})
def test_examples_in_messages_are_right(option: str) -> None:
    together = {'username': EXAMPLES['username'], 'password': EXAMPLES['password']}
    example = yaml.safe_load(f'{option}: {EXAMPLES[option]}')
    load(**((together | example) if option in together else example))


def warnings_of(init_config: dict[str, Any], **options: Any) -> list[str]:
    """The warnings that a check logs as it reads its options."""
    with mock.patch.object(logging.LoggerAdapter, 'warning') as warning:
        PrefectCheck('prefect', init_config, [{'prefect_url': URL, **options}]).load_configuration_models()
    return [call.args[0] % call.args[1:] for call in warning.call_args_list]


@pytest.mark.parametrize(
    ('option', 'meant'),
    [
        ('pasword', 'did you mean `password`?'),
        ('prefect', 'did you mean `prefect_url`?'),
        ('work_pools', 'did you mean `work_pool_names`?'),
        ('deployments', 'did you mean `deployment_names`?'),
        ('tls_verfy', 'did you mean `tls_verify`?'),
        ('zzz', 'see conf.yaml.example for those that there are'),
    ],
)
def test_unknown_option_is_told_with_the_nearest_name(option: str, meant: str) -> None:
    assert warnings_of({}, **{option: 'hunter2'}) == [f'Unknown option `{option}` is ignored: {meant}']
    assert warnings_of({'timeouts': 'hunter2'}) == ['Unknown option `timeouts` is ignored: did you mean `timeout`?']


@pytest.mark.parametrize(
    ('option', 'value'),
    [('max_returned_metrics', 5), ('debug_metrics', {'metric_contexts': True}), ('process_isolation_timeout', 5)],
)
def test_no_option_of_the_base_is_unknown(option: str, value: object) -> None:
    if option == 'process_isolation_timeout' and option not in options_of_the_base():
        pytest.skip('datadog-checks-base 37.33.0 has no such option')
    assert warnings_of({}, **{option: value}) == []
    assert option in options_of_the_base()


@pytest.mark.parametrize('option', ['allow_redirects', 'request_size'])
def test_option_of_the_base_without_effect_is_told(option: str) -> None:
    (warning,) = warnings_of({}, **{option: 1})
    assert warning.startswith(f'Option `{option}` has no effect: ')
    assert f'@param {option}' not in EXAMPLE.read_text()


def test_no_option_that_is_read_is_unknown() -> None:
    known = {'loader': 'python', 'name': 'x', 'no_index': True, 'tls_validate_hostname': True, 'kerberos': 'disabled'}
    examples = {option: yaml.safe_load(example) for option, example in EXAMPLES.items() if option != 'allow_redirects'}
    assert warnings_of({'timeout': 5, 'skip_proxy': True, 'use_agent_proxy': False}, **known, **examples) == []


def test_example_is_a_configuration_that_loads() -> None:
    (instance,) = yaml.safe_load(EXAMPLE.read_text())['instances']

    assert instance == {'prefect_url': URL}
    assert load(**instance).prefect_url == URL


def test_example_loads_with_every_option_of_our_own_uncommented() -> None:
    text = EXAMPLE.read_text()
    # `## ` explains, `# ` is an option.
    ours = text[text.index('instances:') : text.index('## @param proxy', text.index('instances:'))]
    (instance,) = yaml.safe_load(ours.replace('    # ', '    '))['instances']

    assert set(instance) == {
        'prefect_url',
        'ui_url',
        *FILTERS,
        'expectations',
        'collect',
        'report_idle',
        'max_series',
        'collect_events',
        'collect_logs',
        'log_level',
        'log_overlap',
        'late_start_threshold',
        'max_catchup',
        'worker_retention',
        'auth_string',
    }
    defaults = load()
    numbers = ('late_start_threshold', 'max_catchup', 'max_series', 'worker_retention')
    booleans = ('collect_events', 'collect_logs', 'report_idle')
    for option in ('collect', 'event_names', 'log_level', 'log_overlap', *booleans, *numbers):
        assert getattr(load(**instance), option) == getattr(defaults, option), option


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        pytest.param(
            {'auth_type': 'basic', 'username': 'me'},
            '`username` and `password` must be set both or none',
            id='half a login',
        ),
        pytest.param(
            {'auth_string': 'a:b', 'username': 'me', 'password': 'x'},
            '`auth_string` stands for `username` and `password`',
            id='two logins',
        ),
        pytest.param(
            {'tls_private_key': '.'}, '`tls_private_key` is of no use without `tls_cert`', id='key without certificate'
        ),
        pytest.param({'tls_cert': '/not/there.pem'}, 'names a file that is not there', id='no such file'),
        pytest.param(
            {'tls_cert': '-----BEGIN CERTIFICATE-----'},
            'must be the path of a file and not what is in it',
            id='content of a file',
        ),
    ],
)
def test_credentials_that_cannot_be_used_are_an_error_that_says_why(options: dict[str, Any], words: str) -> None:
    assert words in str(error_of(**options))
