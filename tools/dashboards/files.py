"""The dashboards as files: where each belongs, and its text."""

from __future__ import annotations

import json
from pathlib import Path

from tools.dashboards.deployments import DEPLOYMENTS
from tools.dashboards.overview import OVERVIEW

FOLDER = Path(__file__).resolve().parents[2] / 'prefect' / 'assets' / 'dashboards'
DASHBOARDS = {'prefect_overview.json': OVERVIEW, 'prefect_deployments.json': DEPLOYMENTS}


def wanted() -> dict[Path, str]:
    """The text that each file should have."""
    return {FOLDER / name: json.dumps(board.as_json(), indent=2) + '\n' for name, board in DASHBOARDS.items()}
