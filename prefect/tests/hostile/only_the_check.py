"""Runs the check alone in a process of its own and prints what that cost.

From standard input it takes one line of JSON after the other, each a list: the options of an instance, how many runs,
for how many seconds its threads may go on after the last one, and what to change in the environment. Each check has a
new process. The result is a line of JSON: `megabytes` is the highest resident memory above that of the idle check,
C buffers included; `threads` and `sockets` are those that are left in the end; `cpu_afterwards` is what was computed
after the last run; `ended` stands alone, and says how a process ended that has no result.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck

# What protects the machine if a bound does not hold.
_MAX_MEMORY = 4 * 2**30
_MAX_SECONDS = 60
_NOBODY = {'prefect_url': 'http://127.0.0.1:9/api'}


def memory(key: str) -> float:
    """VmRSS or VmHWM of this process in megabytes."""
    status = Path('/proc/self/status').read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(key)]
    return int(line.split()[1]) / 1024


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f'{record.levelname} {self.format(record)}')


def threads() -> int:
    return len(os.listdir('/proc/self/task'))


def wait_for_threads(seconds: float) -> None:
    until = time.monotonic() + seconds
    while threads() > 1 and time.monotonic() < until:
        time.sleep(0.05)


def measure(options: dict[str, Any], runs: int, wait: float, environment: dict[str, str]) -> dict[str, Any]:
    """What so many checks cost, and what is left of them when no thread is, `wait` seconds later at the latest."""
    os.environ.update(environment)
    log = Lines()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    check = PrefectCheck('prefect', {}, [options])
    check.check_id = 'prefect:hostile'
    # What is imported late belongs to the idle check.
    PrefectCheck('prefect', {}, [options | _NOBODY]).run()
    aggregator.reset()
    datadog_agent.reset()
    log.lines.clear()
    idle = memory('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')
    cpu, started = time.process_time(), time.monotonic()
    answers = []
    seconds = 0.0
    for _ in range(runs):
        began = time.monotonic()
        answers.append(check.run())
        seconds = max(seconds, time.monotonic() - began)
    cost = {
        'megabytes': memory('VmHWM') - idle,
        'seconds': seconds,
        'cpu': time.process_time() - cpu,
        'wall': time.monotonic() - started,
    }
    rest = time.process_time()
    wait_for_threads(wait)
    left = []
    for descriptor in os.listdir('/proc/self/fd'):
        with suppress(OSError):
            left.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    return {
        **cost,
        'cpu_afterwards': time.process_time() - rest,
        'threads': threads(),
        'sockets': sum(target.startswith('socket:') for target in left),
        'errors': [json.loads(answer)[0]['message'] if answer else '' for answer in answers],
        'log': list(log.lines),
        'values': {
            name: [[item.value, sorted(item.tags)] for item in aggregator.metrics(name)]
            for name in aggregator.metric_names
        },
        'events': aggregator.events,
        'state': str(datadog_agent._cache),
    }


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    # All that a check imports is there before the first fork, and no thread is.
    PrefectCheck('prefect', {}, [_NOBODY]).run()
    wait_for_threads(_MAX_SECONDS)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            answer_and_exit(*json.loads(line))
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({'ended': status}), flush=True)


def answer_and_exit(options: dict[str, Any], runs: int, wait: float, environment: dict[str, str]) -> NoReturn:
    signal.alarm(_MAX_SECONDS)
    try:
        print(json.dumps(measure(options, runs, wait, environment)), flush=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == '__main__':
    main()
