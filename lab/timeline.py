"""What an Agent sent, with the times: series, events and log lines, kept in a file from which pictures are drawn.

The file is compressed JSON. Tags are as Datadog keeps them: in lower case, by key.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lab.agent import CheckResult
from lab.recording import Recording

# Several values of one key are possible (prefect_tag); the last one is kept.
TagMap: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class TimedSeries:
    """One series with one tag set; a point is (number of the check, value)."""

    name: str
    type: str
    tags: TagMap
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class StreamItem:
    """An event or a log record; `time` in seconds since 1970, `status` error, warning, success or info.

    `url` is the page in Prefect of the run that wrote a record, '' without.
    """

    time: float
    status: str
    title: str
    text: str
    tags: TagMap
    url: str = ''


@dataclass(frozen=True)
class Timeline:
    """`times` are those of the checks, in seconds since 1970."""

    times: tuple[float, ...]
    series: tuple[TimedSeries, ...]
    events: tuple[StreamItem, ...] = ()
    logs: tuple[StreamItem, ...] = ()

    @classmethod
    def of_recording(cls, recording: Recording, logs: Iterable[StreamItem] = ()) -> Timeline:
        return cls.of_results(recording.results, logs)

    @classmethod
    def of_results(
        cls, results: Sequence[CheckResult], logs: Iterable[StreamItem] = (), *, keeps_case: bool = False
    ) -> Timeline:
        points: dict[tuple[str, str, tuple[str, ...]], list[tuple[int, float]]] = defaultdict(list)
        for number, result in enumerate(results):
            for point in result.points:
                points[point.name, point.type, point.tags].append((number, point.value))
        return cls(
            times=tuple(result.began for result in results),
            series=tuple(
                TimedSeries(name, kind, tag_map(tags, keeps_case=keeps_case), tuple(values))
                for (name, kind, tags), values in points.items()
            ),
            events=tuple(_event(event) for result in results for event in result.events),
            logs=(*logs, *(_log(log) for result in results for log in result.logs)),
        )

    def save(self, path: Path) -> None:
        document = {
            'times': self.times,
            'series': [[one.name, one.type, one.tags, one.points] for one in self.series],
            'events': [vars(one) for one in self.events],
            'logs': [vars(one) for one in self.logs],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a time stamp: the same timeline is the same file.
        path.write_bytes(gzip.compress(json.dumps(document, separators=(',', ':')).encode(), mtime=0))

    @classmethod
    def load(cls, path: Path) -> Timeline:
        document = json.loads(gzip.decompress(path.read_bytes()))
        return cls(
            times=tuple(document['times']),
            series=tuple(
                TimedSeries(name, kind, tags, tuple((number, value) for number, value in points))
                for name, kind, tags, points in document['series']
            ),
            events=tuple(StreamItem(**event) for event in document['events']),
            logs=tuple(StreamItem(**log) for log in document['logs']),
        )


def tag_map(tags: Iterable[str], *, keeps_case: bool = False) -> TagMap:
    return {key: value for key, _, value in ((tag if keeps_case else tag.lower()).partition(':') for tag in tags)}


def log_lines(text: str) -> Iterable[StreamItem]:
    """The records of a log that Prefect wrote as JSON, without those of runs, which the check sends.

    Lines in other forms are left out.
    """
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and 'levelname' in record and not record.get('flow_run_id'):
            names = ('flow_name', 'deployment_name', 'work_pool_name', 'flow_run_name')
            yield StreamItem(
                time=float(record['created']),
                status=str(record['levelname']).lower(),
                title=str(record.get('flow_run_name') or record.get('name') or ''),
                text=str(record.get('message') or record.get('msg')),
                tags={name: str(record[name]).lower() for name in names if record.get(name)},
            )


def _log(log: Mapping[str, Any]) -> StreamItem:
    about = log['prefect']
    names = [about[key] for key in ('flow_run_name', 'task_run_name') if key in about]
    return StreamItem(
        time=log['timestamp'] / 1000,
        status={'warn': 'warning'}.get(log['status'], log['status']),
        title=' / '.join(names),
        text='\n'.join([log['message'], *([log['error']['stack']] if 'error' in log else [])]),
        tags=tag_map(log['ddtags'].split(',')),
        url=about.get('url', ''),
    )


def _event(event: Mapping[str, Any]) -> StreamItem:
    return StreamItem(
        time=float(event['timestamp']),
        status=str(event.get('alert_type', 'info')),
        title=str(event['msg_title']),
        text=str(event['msg_text']),
        tags=tag_map(event.get('tags', ())),
    )
