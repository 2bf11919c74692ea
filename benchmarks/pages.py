"""Write the figures of `make bench` into README.md and docs/scale.md: `python -m benchmarks.pages`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from benchmarks import results
from benchmarks.measure import DELAY_SECONDS, Costs
from benchmarks.naive import LIMIT_SECONDS
from benchmarks.sizes import CHANGING, FLOW_RUNS_PER_INTERVAL, MOST, SIZES, TASK_RUNS_PER_FLOW_RUN
from lab.prefect_server import ROOT
from tools.marked import table, with_part

WRITER = 'make bench'
_COLUMNS = (
    'work pools',
    'deployments',
    'future runs',
    'live task runs',
    'finished runs',
    'requests: mean',
    'at most',
    'MB',
    'seconds',
    'own CPU s',
    'server CPU s',
    'peak MB',
    'after a start: checks until all is reported',
    'the longest, s',
    'paging through everything: time',
    'CPU',
)


def summary(measured: Mapping[str, Costs]) -> str:
    """Some lines for a newcomer, about a size that people may have, and about the most that is measured."""
    costs = measured[CHANGING]
    size, steady, naive = SIZES[CHANGING], costs.steady, costs.naive
    assert naive is not None
    task_runs = FLOW_RUNS_PER_INTERVAL * TASK_RUNS_PER_FLOW_RUN
    requests, (times, processor_times) = fmean(costs.requests), costs.naive_times
    slower = 100 * (costs.time_to_floor - 1)
    lines = (
        f'On a server with {size.work_pools} work pools, {size.deployments:,} deployments and {size.future_runs:,} '
        'scheduled runs,',
        f'on which {FLOW_RUNS_PER_INTERVAL} flow runs and {task_runs} task runs happen between two checks, one check',
        '',
        f'- sends {requests:.0f} requests and receives {_megabytes(steady.wire_bytes)}; a check that pages through '
        f'everything sends {naive.requests}, receives {_megabytes(naive.wire_bytes)}, and is {times:.0f} times slower',
        f'- uses {steady.processor_seconds:.1f} s of processor time together with the server; paging through '
        f'everything uses {processor_times:.0f} times as much',
        f'- takes {slower:.0f} % longer than sending the same requests and ignoring the answers',
        f'- needs {_megabytes(steady.peak_bytes)} of memory; paging through everything needs '
        f'{_megabytes(naive.peak_bytes)}',
        *(_of_most(measured[MOST]) if MOST in measured else ()),
    )
    return '\n'.join(lines)


def _of_most(costs: Costs) -> Iterator[str]:
    size, steady = SIZES[MOST], costs.steady
    yield ''
    yield (
        f'With {size.work_pools} work pools, {size.deployments:,} deployments, {size.future_runs:,} scheduled runs, '
        f'{size.live_flow_runs:,} live flow runs and {size.live_task_runs:,} live task runs a check sends '
        f'{fmean(costs.requests):.0f} requests, receives {_megabytes(steady.wire_bytes)}, uses '
        f'{steady.processor_seconds:.1f} s of processor time together with the server, and needs '
        f'{_megabytes(steady.peak_bytes)} of memory.'
    )


def tables(machine: str, measured: Mapping[str, Costs]) -> str:
    """What each measured server costs, and how soon a change of the scheduled runs is seen."""
    lines = [table(_COLUMNS, _rows(measured)), '']
    for name, costs in measured.items():
        if costs.changes:
            size = SIZES[name]
            what = f'{size.live_task_runs:,} live' if size.live_task_runs else f'{size.future_runs:,} scheduled'
            lines += [f'With {what} runs, the numbers of runs are right again', '']
            lines += [*(f'- {seconds:.0f} s after: {what}' for what, seconds in costs.changes.items()), '']
    if far := [(SIZES[name], costs.far_line) for name, costs in measured.items() if costs.far]:
        lines += [f'With {1_000 * DELAY_SECONDS:.0f} ms more for each request, as over a WAN', '']
        lines += [*(f'- {size.deployments:,} deployments: {line}' for size, line in far), '']
    return '\n'.join([*lines, f'Measured on {machine}.'])


def _megabytes(number: int) -> str:
    return f'{number / 1e6:,.1f} MB' if number < 10e6 else f'{number / 1e6:,.0f} MB'


def _rows(measured: Mapping[str, Costs]) -> Iterator[Sequence[str]]:
    for name, costs in measured.items():
        size, steady, naive = SIZES[name], costs.steady, costs.naive
        yield (
            f'{size.work_pools:,}',
            f'{size.deployments:,}',
            f'{size.future_runs:,}',
            f'{size.live_task_runs:,}',
            f'{size.history:,}',
            f'{fmean(costs.requests):.0f}',
            f'{max(costs.requests)}',
            f'{steady.wire_bytes / 1e6:.2f}',
            f'{steady.seconds:.2f}',
            f'{steady.own_seconds:.2f}',
            f'{steady.server_seconds:.2f}',
            f'{steady.peak_bytes / 1e6:.0f}',
            f'{len(costs.start)}',
            f'{max(cost.seconds for cost in costs.start):.1f}',
            *(f'{times:.0f} x' for times in costs.naive_times),
            *([] if naive else [f'over {LIMIT_SECONDS:.0f} s', '']),
        )


def main() -> None:
    machine, measured = results.read(results.PATH)
    for name, part in (('README.md', summary(measured)), ('docs/scale.md', tables(machine, measured))):
        page = ROOT / name
        page.write_text(with_part(page.read_text(), WRITER, part))


if __name__ == '__main__':
    main()
