"""Runs the check alone in a process and prints what that cost: `... -m tests.hostile.only_the_check OPTIONS RUNS WAIT`.

Without arguments it takes one line of JSON after the other from standard input, each a list of the three, and each for
a new check. OPTIONS is the JSON of an instance. The result is a line of JSON: `megabytes` is the highest resident
memory above that of the idle check, C buffers included; `threads` and `sockets` are those that are left after the last
run, WAIT seconds later at most; `cpu_afterwards` is what was computed in that time.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from datadog_checks.base.stubs import aggregator, datadog_agent
from datadog_checks.prefect import PrefectCheck

# What protects the machine if a bound does not hold.
_MAX_MEMORY = 4 * 2**30


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


def measure(options: dict[str, Any], runs: int, wait: float, log: Lines) -> dict[str, Any]:
    """What so many checks cost, and what is left of them when no thread is, `wait` seconds later at the latest."""
    check = PrefectCheck('prefect', {}, [options])
    check.check_id = 'prefect:hostile'
    # What is imported late belongs to the idle check.
    PrefectCheck('prefect', {}, [options | {'prefect_url': 'http://127.0.0.1:9/api'}]).run()
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
    until = time.monotonic() + wait
    while len(os.listdir('/proc/self/task')) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    left = []
    for descriptor in os.listdir('/proc/self/fd'):
        with suppress(OSError):
            left.append(os.readlink(f'/proc/self/fd/{descriptor}'))
    return {
        **cost,
        'cpu_afterwards': time.process_time() - rest,
        'threads': len(os.listdir('/proc/self/task')),
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
    log = Lines()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.DEBUG)
    if len(sys.argv) > 1:
        print(json.dumps(measure(json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), log)))
        return
    for line in sys.stdin:
        print(json.dumps(measure(*json.loads(line), log)), flush=True)
        # The connections of this check are not those of the next one.
        gc.collect()


if __name__ == '__main__':
    main()
