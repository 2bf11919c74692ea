"""One Datadog account over Datadog's own client: what is there, and what is made and changed there.

Objects go out as the client's models, so that a body that Datadog would not understand is refused here. They come
back as JSON: models would hide the fields that they do not know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException, OpenApiException
from datadog_api_client.model_utils import UnparsedObject, validate_and_convert_types
from datadog_api_client.v1.api.authentication_api import AuthenticationApi
from datadog_api_client.v1.api.dashboards_api import DashboardsApi
from datadog_api_client.v1.api.logs_pipelines_api import LogsPipelinesApi
from datadog_api_client.v1.api.monitors_api import MonitorsApi
from datadog_api_client.v1.api.service_level_objectives_api import ServiceLevelObjectivesApi
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.logs_pipeline import LogsPipeline
from datadog_api_client.v1.model.monitor import Monitor
from datadog_api_client.v1.model.monitor_update_request import MonitorUpdateRequest
from datadog_api_client.v1.model.service_level_objective import ServiceLevelObjective
from datadog_api_client.v1.model.service_level_objective_request import ServiceLevelObjectiveRequest
from urllib3 import Retry
from urllib3.exceptions import HTTPError, NameResolutionError

PAGE = 100
SECONDS = 30
# How long an import waits for Datadog to take requests again, in all.
MOST_WAITING_SECONDS = 120
Object = dict[str, Any]
_SITES = Configuration().get_host_settings()[0]['variables']['site']['enum_values']
_PERMISSIONS = {
    'monitors': 'monitors_read and monitors_write',
    'dashboards': 'dashboards_read and dashboards_write',
    'slos': 'slos_read and slos_write',
    'logs': 'logs_read_config, logs_write_pipelines and logs_write_processors',
}


class ImportFailed(Exception):
    """An import cannot go on, in words for the person who started it."""


class Refused(ImportFailed):
    """Datadog did not do what was asked with one object; others may still work."""


@dataclass(frozen=True)
class _Calls:
    """The calls for one kind of object. Those with a body take it as the model that is named here."""

    create: Callable[[Any], Any]
    update: Callable[[Any, Any], Any]
    get: Callable[[Any], Any]
    created: type
    updated: type


class Account:
    """The account that the keys belong to.

    `site` is one of Datadog's sites, for example 'datadoghq.eu', or the whole URL of a proxy in front of one. `say` is
    told when Datadog makes the import wait.
    """

    def __init__(self, site: str, api_key: str, app_key: str, say: Callable[[str], None] = print) -> None:
        if not site.startswith(('http://', 'https://')) and site not in _SITES:
            raise ImportFailed(f'SITE={site} is no site of Datadog. Sites are {", ".join(dict.fromkeys(_SITES))}.')
        self._site = site
        self._say = say
        self._waited = 0.0
        # A request that Datadog may have fulfilled is not sent again: it could make an object twice.
        self._configuration = Configuration(retry_policy=Retry(0), request_timeout=SECONDS, preload_content=False)
        if site in _SITES:
            self._configuration.server_variables['site'] = site
        else:
            self._configuration.host = site.rstrip('/')
        self._configuration.api_key.update(apiKeyAuth=api_key, appKeyAuth=app_key)
        self._client = ApiClient(self._configuration)
        monitors, dashboards = MonitorsApi(self._client), DashboardsApi(self._client)
        slos, pipelines = ServiceLevelObjectivesApi(self._client), LogsPipelinesApi(self._client)
        self._calls = {
            'monitors': _Calls(
                monitors.create_monitor, monitors.update_monitor, monitors.get_monitor, Monitor, MonitorUpdateRequest
            ),
            'dashboards': _Calls(
                dashboards.create_dashboard,
                dashboards.update_dashboard,
                dashboards.get_dashboard,
                Dashboard,
                Dashboard,
            ),
            'slos': _Calls(
                slos.create_slo,
                slos.update_slo,
                slos.get_slo,
                ServiceLevelObjectiveRequest,
                ServiceLevelObjective,
            ),
            'logs': _Calls(
                pipelines.create_logs_pipeline,
                pipelines.update_logs_pipeline,
                pipelines.get_logs_pipeline,
                LogsPipeline,
                LogsPipeline,
            ),
        }
        self._lists: Mapping[str, Callable[[], list[Object]]] = {
            'monitors': lambda: self._pages(
                lambda number: monitors.list_monitors(page=number, page_size=PAGE), lambda answer: answer
            ),
            'dashboards': lambda: self._pages(
                lambda number: dashboards.list_dashboards(start=number * PAGE, count=PAGE),
                lambda answer: answer['dashboards'],
            ),
            'slos': lambda: self._pages(
                lambda number: slos.list_slos(limit=PAGE, offset=number * PAGE), lambda answer: answer['data']
            ),
            'logs': lambda: list(self._ask(pipelines.list_logs_pipelines)),
        }

    def close(self) -> None:
        self._client.close()

    def check_keys(self) -> None:
        """Raise ImportFailed where the site does not know the API key."""
        try:
            self._ask(AuthenticationApi(self._client).validate)
        except Refused as error:
            raise ImportFailed(
                f'{self._site} does not take DD_API_KEY ({error}). A key works on one site only: compare SITE with '
                'the address at which you open Datadog, for example SITE=datadoghq.eu for app.datadoghq.eu.'
            ) from error

    def summaries(self, kind: str) -> list[Object]:
        """All objects of a kind; of dashboards only id, title and description. Raises ImportFailed."""
        try:
            return self._lists[kind]()
        except Refused as error:
            raise self._not_permitted(kind, 'read', error) from error

    def get(self, kind: str, identity: Any) -> Object:
        answer = self._ask(lambda: self._calls[kind].get(identity))
        return _inside(kind, answer)

    def create(self, kind: str, body: Mapping[str, Any]) -> Object:
        calls = self._calls[kind]
        return self._write(kind, 'create', lambda: calls.create(self._model(body, calls.created)))

    def update(self, kind: str, identity: Any, body: Mapping[str, Any]) -> Object:
        calls = self._calls[kind]
        return self._write(kind, 'change', lambda: calls.update(identity, self._model(body, calls.updated)))

    def _write(self, kind: str, verb: str, call: Callable[[], Any]) -> Object:
        try:
            return _inside(kind, self._ask(call))
        except Refused as error:
            cause = error.__cause__
            if isinstance(cause, ApiException) and cause.status in {401, 403}:
                raise self._not_permitted(kind, verb, error) from cause
            raise

    def _not_permitted(self, kind: str, verb: str, error: Refused) -> ImportFailed:
        return ImportFailed(
            f'{self._site} does not let us {verb} {kind} ({error}). The owner of DD_APP_KEY needs the permissions '
            f'{_PERMISSIONS[kind]}, and so does the key itself if it has scopes.'
        )

    def _model(self, body: Mapping[str, Any], model: type) -> Any:
        try:
            made = validate_and_convert_types(dict(body), (model,), ['body'], True, True, self._configuration)
        except OpenApiException as error:
            raise Refused(f'the client of Datadog refuses it: {error}') from error
        if isinstance(made, UnparsedObject) or getattr(made, '_unparsed', False):
            raise Refused(f'the client of Datadog does not understand it as {model.__name__}')
        return made

    def _pages(self, page: Callable[[int], Any], objects: Callable[[Any], list[Object]]) -> list[Object]:
        found: list[Object] = []
        number = 0
        while True:
            some = objects(self._ask(lambda number=number: page(number)))  # type: ignore[misc]
            found += some
            if len(some) < PAGE:
                return found
            number += 1

    def _ask(self, call: Callable[[], Any]) -> Any:
        """The JSON of an answer. Waits while Datadog says that there were too many requests. Raises Refused."""
        while True:
            try:
                return json.loads(call().data)
            except ApiException as error:
                if error.status != 429:
                    raise Refused(_words(error)) from error
                self._wait(error)
            except HTTPError as error:
                raise self._unreachable(error) from error
            except ValueError as error:
                raise ImportFailed(f'{self._site} answers with something else than JSON: is it Datadog?') from error

    def _wait(self, error: ApiException) -> None:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        seconds = float(headers.get('x-ratelimit-reset') or headers.get('retry-after') or 10)
        if self._waited + seconds > MOST_WAITING_SECONDS:
            raise ImportFailed(
                f'{self._site} takes no more requests for {seconds:.0f} s (429). Run this again then: it goes on where '
                'it stopped.'
            ) from error
        self._say(f'Datadog takes no more requests for {seconds:.0f} s (429): waiting')
        self._waited += seconds
        time.sleep(seconds)

    def _unreachable(self, error: HTTPError) -> ImportFailed:
        reason = getattr(error, 'reason', None) or error
        if isinstance(reason, NameResolutionError):
            return ImportFailed(f'The name of {self._site} is not found: is there a way to the internet or a proxy?')
        return ImportFailed(f'{self._site} cannot be reached: {reason}')


def _words(error: ApiException) -> str:
    """What Datadog says of a request that it refuses, for example '400: Invalid tag'."""
    body = error.body
    said = body.get('errors', body) if isinstance(body, dict) else body
    text = '; '.join(map(str, said)) if isinstance(said, list) else str(said or error.reason)
    return f'{error.status}: {text[:500]}'


def _inside(kind: str, answer: Any) -> Object:
    """An objective comes in a list or in an envelope, the other objects come bare."""
    if kind != 'slos':
        return dict(answer)
    data = answer['data']
    return dict(data[0] if isinstance(data, list) else data)
