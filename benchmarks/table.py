"""The results as a table, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean

from rich.console import Console
from rich.table import Table

from benchmarks.measure import DELAY_SECONDS, Cost, Costs
from benchmarks.sizes import SIZES


def show(console: Console, machine: str, results: Mapping[str, Costs]) -> None:
    """Print what was measured."""
    table = Table(title='What a check costs', caption=machine, title_justify='left', caption_justify='left')
    for column in ('server', ''):
        table.add_column(column)
    for column in (
        'requests',
        'MB',
        'connections',
        'seconds',
        'CPU s\nserver',
        'CPU s\nown',
        'peak\nMB',
        'state\nkB',
        'time\n/ floor',
        'at equal\nserver CPU',
        'CPU\n/ floor',
        'naive\ntime /',
        'naive\nCPU /',
    ):
        table.add_column(column, justify='right')
    for name, costs in results.items():
        for row in _rows(name, costs):
            table.add_row(*row)
        table.add_section()
    console.print(table)
    for name, costs in results.items():
        longest = max(cost.seconds for cost in costs.start)
        console.print(
            f'{name}: all is reported after {len(costs.start)} checks, the longest takes {longest:.1f} s. A steady '
            f'check takes {fmean(costs.requests):.0f} requests on average, {max(costs.requests)} at most. '
            + ', '.join(f'{costs.counted[kind]:,} of {number:,} {kind}' for kind, number in costs.ended.items())
            + ' that ended were counted. After the first of these checks the process had '
            f'{costs.memory[0] / 1e6:.0f} MB, after the last {costs.memory[-1] / 1e6:.0f} MB.'
        )
        if costs.far:
            console.print(f'With {DELAY_SECONDS} s more for each request: {costs.far_line}')
        for what, seconds in costs.changes.items():
            console.print(f'The numbers of runs were right again {seconds:.0f} s after: {what}')


def _rows(name: str, costs: Costs) -> Iterator[list[str]]:
    size = SIZES[name]
    yield [f'{name}', 'first check', *_figures(costs.start[0])]
    yield [
        f'{size.work_pools} pools, {size.deployments:,} deployments',
        'steady check',
        *_figures(costs.steady),
        f'{costs.steady.seconds / costs.floor.seconds:.2f}',
        f'{costs.time_to_floor:.2f}',
        f'{costs.steady.processor_seconds / costs.floor.processor_seconds:.2f}',
        *(f'{times:.1f}' for times in costs.naive_times),
    ]
    live = f', {size.live_task_runs:,} live task runs' if size.live_task_runs else ''
    yield [f'{size.future_runs:,} future runs{live}', 'its floor', *_figures(costs.floor)]
    yield [f'{size.history:,} finished runs', *(['naive plan', *_figures(costs.naive)] if costs.naive else [])]
    if costs.former:
        yield ['', 'other commit', *_figures(costs.former)]


def _figures(cost: Cost) -> list[str]:
    return [
        f'{cost.requests:,}',
        f'{cost.wire_bytes / 1e6:.2f}',
        str(cost.connections),
        f'{cost.seconds:.2f}',
        f'{cost.server_seconds:.2f}',
        f'{cost.own_seconds:.2f}' if cost.own_seconds else '',
        f'{cost.peak_bytes / 1e6:.0f}' if cost.peak_bytes else '',
        f'{cost.state_bytes / 1e3:.0f}' if cost.state_bytes else '',
    ]
