"""The timeline that the preview is drawn from: a demo on a real server, or the file of an earlier one."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from datadog_checks.prefect.config_models.defaults import instance_event_names
from lab.agent import CheckRunner
from lab.demo import EXPECTATIONS, LATE_START_THRESHOLD_SECONDS, PREFECT_TAGS, Progress, observe
from lab.prefect_server import PrefectServer
from lab.recording import Recording
from lab.timeline import Timeline, log_lines
from lab.workload import Workload

# The log lines of worker and flow runs tell their flow and deployment only as JSON.
LOG_SETTINGS = {'PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER': 'json'}
# The default, and the changes of objects, which graphs show as lines.
EVENT_NAMES = {
    'include': [
        *instance_event_names()['include'],
        r'^prefect\.(deployment|work-pool|work-queue|automation)\.(created|updated|deleted)$',
    ]
}


def record_demo() -> Timeline:
    """Play the demo's workload on a server of its own; keep what the check sent, and what worker and flows logged."""
    recording = Recording()
    with (
        PrefectServer() as server,
        Workload(server.api_url, settings=LOG_SETTINGS) as workload,
    ):
        workload.set_up()
        runner = CheckRunner(
            {
                'prefect_url': server.api_url,
                'collect_events': True,
                'collect_logs': True,
                'event_names': EVENT_NAMES,
                'expectations': EXPECTATIONS,
                'late_start_threshold': LATE_START_THRESHOLD_SECONDS,
                'prefect_tags': PREFECT_TAGS,
            }
        )
        observe(workload, runner, recording, Progress(Console(file=StringIO())))
        logs = [line for path in workload.log_paths.values() for line in log_lines(path.read_text())]
    return Timeline.of_recording(recording, logs)
