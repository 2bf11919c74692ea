"""Draw cost over the number of future runs, of deployments and of finished runs, as ratios, from the JSON file.

    .envs/bench/bin/python -m benchmarks.plot .benchmarks/results.json docs/images/scale.png

Runs where matplotlib is, and where the check is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.sizes import SIZES, SWEEPS, Sweep

_PLANS = {'naive': ('paging through everything', '#c0392b', 's'), 'steady': ('this check', '#024dfd', 'o')}


def draw(document: dict[str, Any], path: Path) -> None:
    """One panel per sweep; the unit of all is the least that a steady check of this product took."""
    costs = document['sizes']
    unit = min(_processor_seconds(one['steady']) for one in costs.values())
    figure, panels = pyplot.subplots(1, len(SWEEPS), figsize=(16, 3.6), sharey=True)
    for panel, sweep in zip(panels, SWEEPS, strict=True):
        _draw_sweep(panel, sweep, costs, unit)
    panels[0].set_ylabel('processor time of one check,\nserver and check, least = 1')
    panels[0].legend(loc='upper left', frameon=False)
    figure.tight_layout()
    figure.text(0.5, -0.02, document['machine'], fontsize=8, color='0.4', ha='center')
    figure.savefig(path, dpi=130, bbox_inches='tight', metadata={'Software': None})


def _draw_sweep(panel: Axes, sweep: Sweep, costs: dict[str, Any], unit: float) -> None:
    numbers = [getattr(SIZES[name], sweep.field) for name in sweep.sizes]
    for plan, (label, color, marker) in _PLANS.items():
        times = [_processor_seconds(costs[name][plan]) / unit for name in sweep.sizes]
        panel.plot(range(len(numbers)), times, color=color, marker=marker, label=label)
        for place, time in enumerate(times):
            panel.annotate(
                f'{time:.1f}', (place, time), xytext=(0, 6), textcoords='offset points', ha='center', fontsize=8
            )
    panel.set_yscale('log')
    panel.yaxis.set_major_formatter('{x:g}')
    panel.margins(x=0.2, y=0.25)
    panel.set_xticks(range(len(numbers)), [f'{number:,}' for number in numbers])
    panel.set_xlabel(sweep.title)
    panel.spines[['top', 'right']].set_visible(False)


def _processor_seconds(cost: dict[str, float]) -> float:
    """That of the server and of the process that asks: other work of the machine is not in it."""
    return cost['server_seconds'] + cost['own_seconds']


if __name__ == '__main__':
    mpl.use('Agg')
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
