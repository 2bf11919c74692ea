"""What schedulers and people add to the scheduled runs of a server and delete: in SQL that only SQLite takes."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.activity import insert
from benchmarks.seed import DEPLOYMENT, Samples, add_future_runs, connected, python_id, sql_time
from benchmarks.sizes import Size


class Changes:
    """Changes of one server; each is in its database when the call returns."""

    def __init__(self, path: Path, samples: Samples, size: Size) -> None:
        self._path = path
        self._samples = samples
        self._size = size
        self._added = size.future_runs

    def add_and_delete_one(self) -> None:
        """One scheduled run less of the first deployment, one more of the last: the total stays as it was."""
        with connected(self._path) as database:
            database.execute(
                'DELETE FROM flow_run WHERE id = (SELECT id FROM flow_run WHERE deployment_id = ? AND state_type = '
                "'SCHEDULED' ORDER BY next_scheduled_start_time DESC LIMIT 1)",
                (python_id(DEPLOYMENT, 0),),
            )
            last = self._size.deployments - 1
            # Numbers go from deployment to deployment; the next one that falls to the last.
            first = self._added + (last - self._added) % self._size.deployments
            self._add(database, first, 1)

    def add_to_all(self, rounds: int) -> None:
        """So many more scheduled runs of every deployment."""
        with connected(self._path) as database:
            self._add(database, self._added, rounds * self._size.deployments)

    def delete_a_third(self) -> None:
        """Delete every third scheduled run."""
        with connected(self._path) as database:
            database.execute("DELETE FROM flow_run WHERE state_type = 'SCHEDULED' AND rowid % 3 = 0")

    def delete_all(self) -> None:
        """Delete all scheduled runs."""
        with connected(self._path) as database:
            database.execute("DELETE FROM flow_run WHERE state_type = 'SCHEDULED'")

    def _add(self, database: sqlite3.Connection, first: int, number: int) -> None:
        periods_ahead = self._size.future_runs // self._size.deployments
        now, period = datetime.now(UTC).timestamp(), self._size.schedule_seconds
        due = sql_time(f'{now} + {period} * ({periods_ahead} + (n - {first} + 1.0) / {self._size.deployments})')
        samples = {'flow_run': self._samples.scheduled_run, 'flow_run_state': self._samples.scheduled_state}
        # What is copied is not there any more.
        for table, row in samples.items():
            insert(database, table, row)
        add_future_runs(database, self._samples, self._size, first, number, due)
        for table, row in samples.items():
            database.execute(f'DELETE FROM {table} WHERE id = ?', (row['id'],))
        self._added = first + number
