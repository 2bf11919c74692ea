"""What the check demands of its own options, beyond their types.

The Agent base class calls `instance_<option>` with the value of an option that is set, before the model converts it,
and `check_instance` with the finished model. A raised `PydanticCustomError` becomes one error of the check: a line with
the option's name and a line with the message as it is. No message repeats a value that could hold a credential.

An option that is set to nothing (`max_catchup:` in YAML) counts as not set: the check leaves it out before. An option
of the Agent base without a function of its own is held to the kind of its example below, by `__getattr__`.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError
from requests import PreparedRequest
from requests.exceptions import RequestException

from datadog_checks.prefect import expectations
from datadog_checks.prefect.patterns import Pattern, TooSlow
from datadog_checks.prefect.settings import LOG_LEVELS, MAX_LOG_OVERLAP, MIN_CATCHUP_SECONDS, MIN_LOG_OVERLAP

from . import defaults

if TYPE_CHECKING:
    from .instance import InstanceConfig

# What a name server takes: letters of ASCII, and no label that is empty or too long.
HOST_LABEL = re.compile('[a-zA-Z0-9_-]{1,63}')

URL_EXAMPLE = 'for example: `prefect_url: http://localhost:4200/api`'

# Options of `instances/http`, `instances/default` and their like in `init_config`, each with a right value in YAML.
EXAMPLES: dict[str, str] = {
    'allow_redirects': 'true',
    'auth_token': '{reader: {type: file, path: /etc/token}, writer: {type: header, name: Authorization}}',
    'aws_host': 'prefect.example.com',
    'aws_region': 'eu-west-1',
    'aws_service': 'execute-api',
    'disable_generic_tags': 'true',
    'empty_default_hostname': 'true',
    'enable_legacy_tags_normalization': 'true',
    'extra_headers': '{Authorization: Bearer <TOKEN>}',
    'headers': '{Authorization: Bearer <TOKEN>}',
    'kerberos_cache': '/tmp/krb5cc_0',
    'kerberos_delegate': 'false',
    'kerberos_force_initiate': 'false',
    'kerberos_hostname': 'prefect.example.com',
    'kerberos_keytab': '/etc/prefect.keytab',
    'kerberos_principal': 'agent@EXAMPLE.COM',
    'log_requests': 'false',
    'metric_patterns': '{include: ["flow_runs"]}',
    'ntlm_domain': 'EXAMPLE',
    'password': '"<PASSWORD>"',
    'persist_connections': 'true',
    'service': 'prefect',
    'skip_proxy': 'true',
    'tags': '["team:data"]',
    'tls_ciphers': '["ALL"]',
    'tls_ignore_warning': 'false',
    'tls_protocols_allowed': '["TLSv1.3"]',
    'tls_use_host_header': 'false',
    'tls_verify': 'true',
    'use_legacy_auth_encoding': 'false',
    'username': '"<USER>"',
}

AUTH_TYPES = ('basic', 'digest', 'ntlm', 'kerberos', 'aws')

KERBEROS_AUTH = ('required', 'optional', 'disabled')

YES, NO = {'true', 'yes', 'on', '1'}, {'false', 'no', 'off', '0'}


def initialize_instance(values: dict[str, Any]) -> dict[str, Any]:
    """Called with all options as they are configured."""
    if 'prefect_url' not in values:
        raise _error(f'`prefect_url` is missing: the address of the Prefect API, {URL_EXAMPLE}')
    return values


def instance_prefect_url(value: Any, field: Any) -> str:
    """Accept an absolute http(s) URL that can be extended by a path; user info is allowed and never shown."""
    if not isinstance(value, str) or not value.strip():
        raise _error(f'must be the address of the Prefect API, {URL_EXAMPLE}')

    url = value.strip()
    if not url.lower().startswith(('http://', 'https://')):
        raise _error(f'must start with `http://` or `https://`, {URL_EXAMPLE}')
    try:
        parts = urlsplit(url)
        is_valid = _is_host(url, parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    # An `@` behind the host is the end of a password with an unescaped `/`, which must not become a part of tags.
    if not is_valid or '@' in parts.path or not url.isprintable() or ' ' in url:
        raise _error(
            f'has no valid host and port, {URL_EXAMPLE}. '
            'In a user name or password write `/` as `%2F`, `?` as `%3F`, `#` as `%23`'
        )
    if parts.query or parts.fragment:
        raise _error(f'must end with the path of the API, without `?` and `#`, {URL_EXAMPLE}')
    return url


def instance_ui_url(value: Any, field: Any) -> str:
    """Accept an absolute http(s) URL that paths can be appended to, and give it without its trailing slashes.

    It becomes a tag and begins links, so there is no place for user info.
    """
    example = 'for example: `ui_url: https://prefect.example.com`'
    url = value.strip() if isinstance(value, str) else ''
    if not url.lower().startswith(('http://', 'https://')):
        raise _error(f'must start with `http://` or `https://`, {example}')
    if not _is_address(url) or not all(character.isprintable() and character != ' ' for character in url):
        raise _error(f'has no valid host and port, {example}')
    parts = urlsplit(url)
    if '@' in url:
        raise _error(f'must not hold a user name or password, for it is shown as a tag and in links, {example}')
    if parts.query or parts.fragment or url.endswith(('?', '#')):
        raise _error(f'must end with the path of the UI, without `?` and `#`, {example}')
    return url.rstrip('/')


def instance_work_pool_names(value: Any, field: Any) -> dict[str, list[str]]:
    return _name_filter('work_pool_names', value)


def instance_work_queue_names(value: Any, field: Any) -> dict[str, list[str]]:
    return _name_filter('work_queue_names', value)


def instance_deployment_names(value: Any, field: Any) -> dict[str, list[str]]:
    return _name_filter('deployment_names', value)


def instance_flow_names(value: Any, field: Any) -> dict[str, list[str]]:
    return _name_filter('flow_names', value)


def instance_prefect_tags(value: Any, field: Any) -> dict[str, list[str]]:
    return _name_filter('prefect_tags', value)


def instance_collect(value: Any, field: Any) -> dict[str, bool]:
    """Fill in the default of each group that is not named."""
    groups: dict[str, bool] = dict(defaults.instance_collect())
    example = 'for example: `collect: {late_runs: false}`'
    if not isinstance(value, dict):
        raise _error(f'must be a mapping of groups to true or false, {example}')
    for group, chosen in value.items():
        if group not in groups:
            raise _error(f'has no group `{group}`, only {", ".join(groups)}; {example}')
        word = str(chosen).strip().lower()
        if chosen is not None and word not in YES | NO:
            raise _error(f'`collect.{group}` must be true or false, {example}')
        groups[group] = groups[group] if chosen is None else word in YES
    return groups


def instance_expectations(value: Any, field: Any) -> list[dict[str, Any]]:
    """A list of mappings; the durations become texts, so that `off` stays what it is."""
    example = 'for example: `expectations: [{deployment_names: {include: ["^nightly"]}, max_age: 26h}]`'
    if not isinstance(value, (list, tuple)):
        raise _error(f'must be a list of mappings, {example}')
    entries: list[dict[str, Any]] = []
    for index, entry in enumerate(value):
        path = f'expectations[{index}]'
        if not isinstance(entry, dict):
            raise _error(f'`{path}` must be a mapping, {example}')
        durations = {key: given for key, given in entry.items() if key in expectations.KEYS and given is not None}
        unknown = entry.keys() - {'deployment_names', *expectations.KEYS}
        if unknown:
            raise _error(f'`{path}` has no key `{min(map(str, unknown))[:100]}`, {example}')
        if not durations:
            raise _error(f'`{path}` needs `max_age`, `max_run_time` or both, {example}')
        for key, given in durations.items():
            try:
                expectations.seconds(given)
            except ValueError:
                raise _error(
                    f'`{path}.{key}` must be a number of seconds, one with a unit (s, m, h, d, w), or off, {example}'
                ) from None
        names = entry.get('deployment_names')
        # A list of patterns is one of those that include.
        names = {'include': names} if isinstance(names, (list, tuple)) else names
        if names is not None and not isinstance(names, dict):
            raise _error(f'`{path}.deployment_names` must be a mapping of `include` and `exclude`, {example}')
        filters = {} if names is None else {'deployment_names': _name_filter(f'{path}.deployment_names', names)}
        entries.append({**filters, **{key: _duration(given) for key, given in durations.items()}})
    return entries


def _duration(given: Any) -> str:
    return 'off' if given is False else str(given)


def instance_event_names(value: Any, field: Any) -> dict[str, list[str]]:
    """Fill in the default of the key that is not set, so that no filter lets heartbeats in by the way."""
    return {**defaults.instance_event_names(), **_name_filter('event_names', value)}


def instance_collect_events(value: Any, field: Any) -> bool:
    return _yes_or_no('collect_events', value, 'true')


def instance_collect_logs(value: Any, field: Any) -> bool:
    return _yes_or_no('collect_logs', value, 'true')


def instance_log_level(value: Any, field: Any) -> str:
    level = str(value).strip().upper()
    if level not in LOG_LEVELS:
        raise _error(f'must be one of {", ".join(LOG_LEVELS)}, for example: `log_level: WARNING`')
    return level


def instance_log_names(value: Any, field: Any) -> dict[str, list[str]]:
    return _name_filter('log_names', value)


def instance_log_overlap(value: Any, field: Any) -> float:
    number = _seconds('log_overlap', value, minimum=MIN_LOG_OVERLAP, example=300)
    if number > MAX_LOG_OVERLAP:
        raise _error(f'must be at most {MAX_LOG_OVERLAP} seconds, for example: `log_overlap: 300`')
    return number


def instance_report_idle(value: Any, field: Any) -> bool:
    return _yes_or_no('report_idle', value, 'false')


def instance_max_series(value: Any, field: Any) -> float:
    return _number('max_series', value, 'series', minimum=1, example=100000)


def instance_late_start_threshold(value: Any, field: Any) -> float:
    return _seconds('late_start_threshold', value, minimum=0, example=60)


def instance_max_catchup(value: Any, field: Any) -> float:
    return _seconds('max_catchup', value, minimum=MIN_CATCHUP_SECONDS, example=7200)


def instance_worker_retention(value: Any, field: Any) -> float:
    return _seconds('worker_retention', value, minimum=0, example=86400)


def instance_min_collection_interval(value: Any, field: Any) -> float:
    return _seconds('min_collection_interval', value, minimum=0, example=15)


def instance_request_size(value: Any, field: Any) -> float:
    return _number('request_size', value, 'KiB', minimum=1, example=16)


def instance_auth_string(value: Any, field: Any) -> str:
    user, colon, password = value.partition(':') if isinstance(value, str) else ('', '', '')
    if not user or not colon or not password:
        raise _error('must be a user name and a password, as in PREFECT_API_AUTH_STRING: `auth_string: user:password`')
    return str(value)


def instance_auth_type(value: Any, field: Any) -> str:
    if str(value).lower() in AUTH_TYPES:
        return str(value)
    raise _error(
        f'must be one of {", ".join(AUTH_TYPES)}, for example: `auth_type: basic`. '
        'A token is given as `extra_headers: {Authorization: Bearer <TOKEN>}`'
    )


def instance_kerberos_auth(value: Any, field: Any) -> str:
    if value in KERBEROS_AUTH:
        return str(value)
    raise _error(f'must be one of {", ".join(KERBEROS_AUTH)}, for example: `kerberos_auth: required`')


def instance_timeout(value: Any, field: Any) -> float:
    return _timeout('timeout', value)


def instance_connect_timeout(value: Any, field: Any) -> float:
    return _timeout('connect_timeout', value)


def instance_read_timeout(value: Any, field: Any) -> float:
    return _timeout('read_timeout', value)


def shared_timeout(value: Any, field: Any) -> float:
    return _timeout('timeout', value)


def instance_proxy(value: Any, field: Any) -> Any:
    return _proxy(value)


def shared_proxy(value: Any, field: Any) -> Any:
    return _proxy(value)


def instance_tls_ca_cert(value: Any, field: Any) -> str:
    return _existing_path('tls_ca_cert', value)


def instance_tls_cert(value: Any, field: Any) -> str:
    return _existing_path('tls_cert', value)


def instance_tls_private_key(value: Any, field: Any) -> str:
    return _existing_path('tls_private_key', value)


def check_instance(model: InstanceConfig) -> InstanceConfig:
    """Compare options with each other.

    The time between two checks must fit into what a check reads back; the parts of a credential come together.
    """
    if (model.username is None) != (model.password is None) and (model.auth_type or '').lower() == 'basic':
        raise _error('`username` and `password` must be set both or none of them')
    if model.auth_string is not None and model.username is not None:
        raise _error('`auth_string` stands for `username` and `password`: use either the one or the others')
    if model.tls_private_key is not None and model.tls_cert is None:
        raise _error('`tls_private_key` is of no use without `tls_cert`, the certificate that it belongs to')
    interval, catchup = model.min_collection_interval, model.max_catchup
    if model.empty_default_hostname and 'max_catchup' not in model.model_fields_set:
        # Then it follows the interval.
        catchup = None
    if interval is not None and catchup is not None and catchup < interval:
        raise _error(
            f'`max_catchup` ({catchup:g}) must not be less than `min_collection_interval` ({interval:g}): '
            'what happens between two checks would be skipped'
        )
    return model


def __getattr__(name: str) -> Any:
    """`instance_<option>` and `shared_<option>` for an option with an example."""
    prefix, _, option = name.partition('_')
    if prefix not in ('instance', 'shared') or option not in EXAMPLES:
        raise AttributeError(name)

    def like_its_example(value: Any, field: Any) -> Any:
        example = EXAMPLES[option]
        if example in YES | NO:
            return _yes_or_no(option, value, example)
        if example.startswith('['):
            what = 'a list of texts'
            is_right = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        elif example.startswith('{'):
            what, is_right = 'a mapping', isinstance(value, dict)
        else:
            what, is_right = 'a text (in quotes, if it is a number)', isinstance(value, str)
        if not is_right:
            raise _error(f'must be {what}, for example: `{option}: {example}`')
        return value

    return like_its_example


def _name_filter(option: str, value: Any) -> dict[str, list[str]]:
    """Return `{include: [regex], exclude: [regex]}` with the keys that are set."""
    example = f'for example: `{option}: {{include: ["^prod"], exclude: ["test$"]}}`'
    if not isinstance(value, dict):
        raise _error(f'must be a mapping of `include` and `exclude`, {example}')

    patterns: dict[str, list[str]] = {}
    problems: list[str] = []
    for key, listed in value.items():
        if key not in ('include', 'exclude'):
            problems.append(f'`{option}` has no key `{key}`')
        elif isinstance(listed, (list, tuple)):
            patterns[key] = list(listed)
            problems.extend(_pattern_problems(f'{option}.{key}', listed))
        elif listed is not None:
            problems.append(f'`{option}.{key}` must be a list of regular expressions')
    if problems:
        raise _error(f'{"; ".join(problems)}; {example}')
    return patterns


def _pattern_problems(path: str, patterns: list[Any] | tuple[Any, ...]) -> list[str]:
    problems: list[str] = []
    for index, pattern in enumerate(patterns):
        if not isinstance(pattern, str):
            problems.append(f'`{path}[{index}]` must be a string')
            continue
        try:
            Pattern(pattern)
        except TooSlow as error:
            problems.append(f'`{path}[{index}]` could take forever on some names, for {error}: `{pattern}`')
        except re.error as error:
            problems.append(f'`{path}[{index}]` is not a valid regular expression: `{pattern}` ({error})')
    return problems


def _yes_or_no(option: str, value: Any, example: str) -> bool:
    word = str(value).strip().lower()
    if word in YES | NO:
        return word in YES
    raise _error(f'must be true or false, for example: `{option}: {example}`')


def _seconds(option: str, value: Any, *, minimum: float, example: float) -> float:
    return _number(option, value, 'seconds', minimum=minimum, example=example)


def _number(option: str, value: Any, unit: str, *, minimum: float, example: float) -> float:
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
    if not math.isfinite(number) or number < minimum:
        raise _error(f'must be a number of {unit}, {minimum:g} or more, for example: `{option}: {example:g}`')
    return number


def _timeout(option: str, value: Any) -> float:
    return _seconds(option, value, minimum=0.001, example=10)


def _existing_path(option: str, value: Any) -> str:
    """A path that can be opened."""
    if not isinstance(value, str) or '-----BEGIN' in value:
        raise _error(f'must be the path of a file and not what is in it, for example: `{option}: /etc/prefect.pem`')
    if not os.path.exists(os.path.expanduser(value)):
        raise _error(f'names a file that is not there, or not for the user of the Agent: `{option}: {value[:200]}`')
    return value


def _proxy(value: Any) -> Any:
    """Addresses of proxies, which may hold a password; an empty one is a proxy that is not used."""
    example = 'for example: `proxy: {http: http://user:password@localhost:3128}`'
    if not isinstance(value, dict):
        raise _error(f'must be a mapping of `http`, `https` and `no_proxy`, {example}')
    for scheme in ('http', 'https'):
        if value.get(scheme) and not _is_address(value[scheme]):
            raise _error(f'`proxy.{scheme}` has no valid scheme, host and port, {example}')
    return value


def _is_address(url: Any) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_host(url: str, host: str | None) -> bool:
    """Whether the host of a URL can be asked for at a name server, or is an address. Raises ValueError."""
    if not host or '\\' in url:
        return False
    if '[' in urlsplit(url).netloc.rpartition('@')[2]:
        behind = urlsplit(url).netloc.rpartition(']')[2]
        return bool(ipaddress.IPv6Address(host)) and (not behind or behind.startswith(':'))
    if not host.isascii():
        request = PreparedRequest()
        try:
            request.prepare_url(url, None)
        except (RequestException, UnicodeError):
            return False
        host = urlsplit(request.url or '').hostname or ''
    labels = host.removesuffix('.').split('.')
    return len(host) <= 253 and all(HOST_LABEL.fullmatch(label) for label in labels)


def _error(message: str) -> PydanticCustomError:
    return PydanticCustomError('option', '{message}', {'message': message})
