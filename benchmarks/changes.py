"""What schedulers, people and failures change on a server: in SQL that only SQLite takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.activity import insert, stored
from benchmarks.seed import (
    DEPLOYMENT,
    LIVE,
    LIVE_TASK,
    PAST_TASK,
    Samples,
    add_future_runs,
    connected,
    python_id,
    sql_time,
)
from benchmarks.sizes import Size

_IS_LIVE = f"id LIKE '{LIVE}%' AND state_type = 'RUNNING'"


class ScheduledChanges:
    """Changes of the scheduled runs of one server; each is in its database when the call returns."""

    def __init__(self, path: Path, samples: Samples, size: Size) -> None:
        self._path = path
        self._samples = samples
        self._size = size
        self._added = size.future_runs

    def all(self) -> dict[str, Callable[[], None]]:
        """Each change with what it is, in the order in which they are to be made."""
        return {
            'one run of one deployment deleted, one of another added': self.add_and_delete_one,
            '10 runs of each deployment added': lambda: self.add_to_all(10),
            'a third of the runs of each deployment deleted': self.delete_a_third,
            'all runs of all deployments deleted': self.delete_all,
        }

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


class LiveChanges:
    """Changes of the live runs of one server; but for the crashes none is a start or an end that streams read."""

    def __init__(self, path: Path, put_back: Callable[[Path], None]) -> None:
        """`put_back` has the server go on with a copy of the database at a path."""
        self._path = path
        self._backup = path.with_name('backup.db')
        self._put_back = put_back

    def all(self) -> dict[str, Callable[[], None]]:
        """Each change with what it is, in the order in which they are to be made."""
        with connected(self._path) as database, closing(sqlite3.connect(self._backup)) as backup:
            database.backup(backup)
        return {
            'a third of the flow runs crashed': self.crash_a_third,
            '50 flow runs forced to PAUSED': self.pause_some,
            '100 task runs deleted, and 100 others forced to RUNNING': self.exchange_some,
            'a tenth of the flow runs deleted with their task runs': self.delete_a_tenth,
            'the database put back as it was before all this': lambda: self._put_back(self._backup),
        }

    def crash_a_third(self) -> None:
        """These flow runs are CRASHED, and their task runs stay RUNNING, as after the death of their process."""
        with connected(self._path) as database:
            (number,) = database.execute(f'SELECT count(*) FROM flow_run WHERE {_IS_LIVE}').fetchone()
            keys = _live_flow_runs(database, number // 3)
            _force(database, keys, 'CRASHED')
            now = stored(datetime.now(UTC))
            database.executemany('UPDATE flow_run SET end_time = ? WHERE id = ?', [(now, *key) for key in keys])

    def pause_some(self) -> None:
        """They neither end nor start."""
        with connected(self._path) as database:
            _force(database, _live_flow_runs(database, 50), 'PAUSED')

    def exchange_some(self) -> None:
        """The number stays as it was: four task runs of each of 25 flow runs go; those that come began long ago."""
        with connected(self._path) as database:
            keys = _live_flow_runs(database, 100)
            database.executemany(f"DELETE FROM task_run WHERE id LIKE '{LIVE_TASK}%' AND flow_run_id = ?", keys[:25])
            ended = database.execute(f"SELECT id FROM task_run WHERE id LIKE '{PAST_TASK}%' LIMIT 100").fetchall()
            database.executemany(
                "UPDATE task_run SET state_type = 'RUNNING', state_name = 'Running', end_time = NULL, "
                "dynamic_key = 'forced', flow_run_id = ? WHERE id = ?",
                [(*key, *task_run) for key, task_run in zip(keys, ended, strict=True)],
            )

    def delete_a_tenth(self) -> None:
        """As the server does it, with all that is theirs."""
        with connected(self._path) as database:
            (number,) = database.execute(f'SELECT count(*) FROM flow_run WHERE {_IS_LIVE}').fetchone()
            keys = _live_flow_runs(database, number // 10)
            database.executemany('DELETE FROM task_run WHERE flow_run_id = ?', keys)
            database.executemany('DELETE FROM flow_run WHERE id = ?', keys)


def _live_flow_runs(database: sqlite3.Connection, number: int) -> list[tuple[str]]:
    rows = database.execute(f'SELECT id FROM flow_run WHERE {_IS_LIVE} ORDER BY id LIMIT ?', (number,))
    return [(row['id'],) for row in rows]


def _force(database: sqlite3.Connection, keys: list[tuple[str]], state_type: str) -> None:
    """Put flow runs into a state."""
    values = [(state_type, state_type.title(), *key) for key in keys]
    database.executemany('UPDATE flow_run SET state_type = ?, state_name = ? WHERE id = ?', values)
    database.executemany('UPDATE flow_run_state SET type = ?, name = ? WHERE flow_run_id = ?', values)
