"""What the check sent, for people (tables, a picture) and for programs (JSON).

The table has the form that people know from `agent check prefect`: series with value and tags, events, metadata, the
time of the check. Counts are summed over the runs of the check, gauges are shown with their last value.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from datadog_checks.prefect.metrics import API_REQUESTS, NAMESPACE
from lab.recording import DECLARED, DOCUMENTED, FURTHER, OWN, Recording, Series, Track
from lab.verdicts import Finding, judge
from tools.monitor_evaluation import Status

WIDTH = 120
PICTURE_WIDTH = 154
TAG_SETS = 2
PERCENTILE_GAUGES = 5
SHOWN_FINDINGS = 3
FONT_FACE = re.compile(r'@font-face \{.*?\}', re.DOTALL)
UNIT_SYMBOLS = {'second': 's', 'percent': '%', 'occurrence': '', 'run': ''}
# The same on every series of an instance (it is in the title), or of no use to a person who reads a table.
LEFT_OUT_TAG = 'prefect_url:'
LEFT_OUT_KEY_END = '_id'


def make_console(*, json_output: bool = False) -> Console:
    """Return the console for messages and tables: standard output, or standard error when that is for JSON."""
    console = Console(stderr=json_output, highlight=False, soft_wrap=False)
    # A pipe or a file has no width of its own.
    return console if console.is_terminal else Console(stderr=json_output, highlight=False, width=WIDTH)


def number(value: float, unit: str = '') -> str:
    """Write a number for people: at most three decimals, with the symbol of its unit."""
    digits = f'{value:,.3f}'.rstrip('0').rstrip('.') if value != int(value) else f'{int(value):,}'
    return f'{digits} {UNIT_SYMBOLS.get(unit, unit)}'.rstrip()


def _unit(series: Series) -> str:
    return series.spec.unit if series.spec else ''


def _short_name(name: str) -> str:
    return name.removeprefix(f'{NAMESPACE}.')


def _family(series: Series) -> str:
    return series.spec.family if series.spec else 'not declared'


def _shown_tags(track: Track) -> str:
    shown = [
        tag
        for tag in track.tags
        if not tag.startswith(LEFT_OUT_TAG) and not tag.partition(':')[0].endswith(LEFT_OUT_KEY_END)
    ]
    return ' '.join(shown)


def _value(series: Series, track: Track) -> str:
    return number(series.value(track), _unit(series))


def _peak(series: Series, track: Track) -> str:
    """The highest value of a gauge when it is not the last one."""
    return '' if series.is_count or track.peak == track.last else f'peak {number(track.peak)}'


def series_table(recording: Recording, *, tag_sets: int = TAG_SETS) -> RenderableType:
    """Every series with its type and total, and up to `tag_sets` of its tag sets with their values."""
    lines: list[RenderableType] = [
        Text.assemble(
            ('Series', 'bold'),
            f' below {NAMESPACE}. Counts are summed over all checks; of gauges the last value is shown,'
            ' and the peak where it was higher. Tags that end in _id are left out here; JSON has them all.',
        )
    ]
    for family, members in groupby(recording.series, key=_family):
        lines.append(Text(f'\n{family}', style='bold cyan'))
        for series in members:
            lines += [_series_line(series), _tag_sets_table(series, tag_sets)]
    return Group(*lines)


def _series_line(series: Series) -> Text:
    text = Text(f'  {_short_name(series.name):<48}', style='bold')
    text.append(f'{series.type:<6}', style='not bold dim')
    if series.is_count:
        text.append(number(series.total, _unit(series)))
    if len(series.tracks) > 1:
        in_all = ' in' if series.is_count else ''
        text.append(f'{in_all} {len(series.tracks)} tag sets', style='not bold dim')
    return text


def _tag_sets_table(series: Series, tag_sets: int) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=11, justify='right', no_wrap=True)
    table.add_column(width=12, justify='right', style='dim', no_wrap=True)
    table.add_column(overflow='fold', style='dim')
    tracks = series.by_interest()
    for track in tracks[:tag_sets]:
        table.add_row(_value(series, track), _peak(series, track), Text(_shown_tags(track)))
    if len(tracks) > tag_sets:
        table.add_row('', '', f'+{len(tracks) - tag_sets} more')
    return table


def events_table(recording: Recording) -> RenderableType:
    """How many events of each kind there were, and the title of the last of them."""
    events = recording.events
    heading = Text.assemble(('Events', 'bold'), f': {len(events)}')
    if not events:
        return heading
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    table.add_column(justify='right')
    last = {(event['event_type'], event['alert_type']): event['msg_title'] for event in events}
    numbers = Counter((event['event_type'], event['alert_type']) for event in events)
    for (event_type, alert_type), number_of_events in sorted(numbers.items()):
        title = Text(last[event_type, alert_type], style='dim')
        table.add_row(number(number_of_events), event_type, alert_type, title)
    return Group(heading, Padding(table, (0, 0, 0, 2)))


def log_lines(recording: Recording) -> Text:
    """Each log record in a line: time (UTC), status, logger, run, message; the traceback below. Not to be folded."""
    text = Text.assemble(('Log records', 'bold'), f': {len(recording.logs)}')
    for log in recording.logs:
        at = datetime.fromtimestamp(log['timestamp'] / 1000, UTC)
        about = log['prefect']
        runs = ' / '.join(about[key] for key in ('flow_run_name', 'task_run_name') if key in about)
        text.append(f'\n{at:%H:%M:%S.%f}'[:-3])
        text.append(f' {log["status"]:<8}', style='red' if log['status'] in ('error', 'critical') else '')
        text.append(f' {log["logger"]["name"]} {runs}: ', style='dim')
        text.append(log['message'])
        if 'error' in log:
            text.append(f'\n{log["error"]["stack"]}', style='dim')
    return text


def _named(number_of_names: int) -> str:
    return f'{number_of_names:,} {"name" if number_of_names == 1 else "names"}'


def cost_table(recording: Recording) -> RenderableType:
    """The number of series of the largest run: by family, what each option saves, what filters can leave out."""
    result = recording.largest
    submitted = result.submitted
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    table.add_column(justify='right')
    table.add_column()
    for family, count in submitted.by_family().most_common():
        table.add_row(number(count), f'of {family}')
    for option, count in submitted.by_option(result.idle).items():
        table.add_row(number(count), Text.assemble('saved by ', (option, 'bold')))
    for item in submitted.by_filter():
        text = Text.assemble('selected by ', (item.option, 'bold'), f': {_named(item.objects)}, {item.most:,} of ')
        table.add_row(number(item.series), text.append(item.largest, style='dim'))
    heading = Text.assemble(('Number of series', 'bold'), f': {submitted.total:,} at most in one check')
    return Group(heading, Padding(table, (0, 0, 0, 2)))


def verdicts(recording: Recording) -> RenderableType:
    """What is wrong now, the most urgent first: each object, since when, why, and what to do."""
    judged = judge(recording.results[-1])
    lines: list[RenderableType] = []
    if judged.findings:
        lines.append(Text('What is wrong now', style='bold'))
    else:
        text = f'nothing that {judged.judged} of the recommended monitors look for'
        lines.append(Text.assemble(('What is wrong now', 'bold'), ': ', (text, 'green')))
    of_monitors: dict[str, list[Finding]] = defaultdict(list)
    for finding in judged.findings:
        of_monitors[finding.monitor].append(finding)
    for findings in of_monitors.values():
        lines += [Padding(part, (0, 0, 0, 2)) for part in _findings(findings, recording.results[-1].began)]
    more = f'{len(judged.not_judged)} more monitors sum up minutes or hours of checks: {", ".join(judged.not_judged)}'
    return Group(*lines, Text(more, style='dim'))


def _findings(findings: Sequence[Finding], began: float) -> Iterator[RenderableType]:
    """What one monitor found: some of its objects, then the causes and the advice that they have in common."""
    for finding in findings[:SHOWN_FINDINGS]:
        style = 'bold red' if finding.status is Status.ALERT else 'bold yellow'
        since = f' Since {_time_of(began - finding.seconds)}.' if finding.seconds is not None else ''
        yield Text.assemble((f'{finding.status.value.upper():<6}', style), finding.text.replace('\n', ' '), since)
    if len(findings) > SHOWN_FINDINGS:
        yield Padding(Text(f'and {len(findings) - SHOWN_FINDINGS} more of this kind'), (0, 0, 0, 6))
    reasons = Table.grid(padding=(0, 1))
    reasons.add_column(width=9, justify='right', style='dim')
    reasons.add_column(style='dim', overflow='fold')
    for name, texts in (('Why', findings[0].causes), ('Do', findings[0].advice)):
        for position, text in enumerate(texts):
            reasons.add_row('' if position else name, text)
    yield reasons


def _time_of(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime('%Y-%m-%d %H:%M UTC')


def watching_line(recording: Recording) -> Text:
    """What the last run cost the server, also one in which a part failed."""
    result = recording.results[-1]
    requests = sum(point.value for point in result.points if point.name == API_REQUESTS.full_name)
    text = f': {requests:,.0f} requests and {result.seconds:.2f} s in the last check'
    return Text.assemble(('What it costs to watch', 'bold'), text)


def metadata_line(recording: Recording) -> Text:
    values = ', '.join(f'{name}: {value}' for name, value in sorted(recording.metadata.items()))
    return Text.assemble(('Metadata', 'bold'), f': {values or "none"}')


def checks_line(recording: Recording) -> Text:
    """How many runs there were and what time they took."""
    count = len(recording.results)
    if count == 1:
        times = f'it took {recording.results[0].seconds:.3f} s'
    else:
        fastest, middle, slowest = recording.seconds
        times = f'time per check: min {fastest:.3f} s, median {middle:.3f} s, max {slowest:.3f} s'
    failed = recording.errors.total()
    verdict = Text(f'{failed} failed', style='red') if failed else Text('none failed', style='green')
    return Text.assemble(('Checks', 'bold'), f': {count}, ', verdict, f'; {times}')


def problems(recording: Recording) -> RenderableType:
    """Errors, warnings and log lines of the runs, each once with the number of its occurrences."""
    lines = [
        *((text, count, 'red', 'Error') for text, count in recording.errors.items()),
        *((text, count, 'yellow', 'Warning') for text, count in recording.warnings.items()),
    ]
    if not lines:
        return Text.assemble(('Errors and warnings', 'bold'), ': none')
    texts = [
        Text.assemble((kind, style), f' in {count} {"check" if count == 1 else "checks"}: {text}')
        for text, count, style, kind in lines
    ]
    return Group(*texts)


def _listed(names: Sequence[str]) -> str:
    """The short names in one line; the five gauges of a distribution that is there as a whole become `name.*`."""
    short_names = [_short_name(name) for name in names]
    stems = Counter(name.rpartition('.')[0] for name in short_names)
    whole = {stem for stem, count in stems.items() if stem.endswith('_duration') and count == PERCENTILE_GAUGES}
    collapsed = [f'{stem}.*' if (stem := name.rpartition('.')[0]) in whole else name for name in short_names]
    return ', '.join(dict.fromkeys(collapsed))


def verdict(recording: Recording, *, wants_all: bool) -> RenderableType:
    """The lines that matter: which documented series are there, which of the groups, and those of the check itself.

    `wants_all` says that a series that is missing, or that was always zero, is a fault: so it is in the demo, while an
    ordinary server has nothing to report for many of them.
    """
    missing = recording.missing
    lines = [
        _seen_line(recording, DOCUMENTED, 'documented series', wants_all=wants_all),
        _seen_line(recording, FURTHER, 'series of the groups that can be switched off', wants_all=wants_all),
        _seen_line(recording, OWN, 'series of the check about itself', wants_all=wants_all),
    ]
    if missing:
        reason = 'missing' if wants_all else 'nothing to report on this server so far'
        lines.append(Text(f'  {reason}: {_listed(missing)}', style='red' if wants_all else 'dim'))
    if wants_all:
        zero = recording.always_zero
        lines.append(Text(f'{len(DECLARED) - len(missing) - len(zero)} of them had a value above zero'))
        if zero:
            lines.append(Text(f'  always zero: {_listed(zero)}', style='yellow'))
    if recording.undeclared:
        lines.append(Text(f'not declared: {", ".join(recording.undeclared)}', style='bold red'))
    return Group(*lines)


def _seen_line(recording: Recording, names: Collection[str], what: str, *, wants_all: bool) -> Text:
    seen = len(recording.seen_of(names))
    style = 'bold' if not wants_all else 'bold red' if seen < len(names) else 'bold green'
    return Text(f'{seen} of {len(names)} {what} seen', style=style)


def full_report(recording: Recording, *, title: str, wants_all: bool, tag_sets: int = TAG_SETS) -> RenderableType:
    """Everything about one instance, `title` says which; for `wants_all` see `verdict`."""
    return Group(
        short_report(recording, title=title),
        Text(''),
        series_table(recording, tag_sets=tag_sets),
        Text(''),
        events_table(recording),
        metadata_line(recording),
        verdict(recording, wants_all=wants_all),
    )


def short_report(recording: Recording, *, title: str) -> RenderableType:
    """The first screen: what is wrong on the server, what it costs to watch it, and how the check fared."""
    return Group(
        Panel(Text(title, style='bold'), expand=True),
        verdicts(recording),
        Text(''),
        watching_line(recording),
        cost_table(recording),
        checks_line(recording),
        problems(recording),
    )


def overview(recording: Recording, *, title: str) -> RenderableType:
    """What is wrong, then all series in two columns, one line each, without tags (the picture of the README)."""
    everything = recording.series
    middle = (len(everything) + 1) // 2
    grid = Table.grid(expand=True, padding=(0, 3))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(_overview_column(everything[:middle]), _overview_column(everything[middle:]))
    return Group(
        Panel(Text(title, style='bold'), expand=True),
        verdicts(recording),
        watching_line(recording),
        Text(''),
        grid,
        Text(''),
        metadata_line(recording),
        checks_line(recording),
        verdict(recording, wants_all=True),
    )


def _overview_column(members: Sequence[Series]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, expand=True)
    table.add_column('series', ratio=1, no_wrap=True, header_style='dim')
    table.add_column('type', no_wrap=True, header_style='dim', style='dim')
    table.add_column('sum or peak', justify='right', no_wrap=True, header_style='dim', style='bold')
    table.add_column('tag sets', justify='right', no_wrap=True, header_style='dim', style='dim')
    for series in members:
        # One number for many tag sets: the sum of a count, the highest value of a gauge.
        value = series.total if series.is_count else series.peak
        table.add_row(_short_name(series.name), series.type, number(value, _unit(series)), str(len(series.tracks)))
    return table


def write_svg(path: Path, *renderables: RenderableType) -> None:
    """Draw the renderables as a picture of a terminal."""
    console = Console(record=True, width=PICTURE_WIDTH, file=StringIO(), force_terminal=True, highlight=False)
    for renderable in renderables:
        console.print(renderable)
    # A picture in a page may not load fonts from elsewhere.
    path.write_text(FONT_FACE.sub('', console.export_svg(title='make demo')))


def as_json(recording: Recording) -> dict[str, Any]:
    """The same as the table and more: every tag set, tag, event and log record. Ready for json.dumps."""
    fastest, middle, slowest = recording.seconds
    return {
        'documented_series': {
            'seen': len(recording.seen),
            'documented': len(DOCUMENTED),
        },
        'group_series': {'seen': len(recording.seen_of(FURTHER)), 'declared': len(FURTHER)},
        'own_series': {'seen': len(recording.seen_of(OWN)), 'declared': len(OWN)},
        'missing_series': recording.missing,
        'always_zero_series': recording.always_zero,
        'undeclared_series': recording.undeclared,
        'checks': {
            'count': len(recording.results),
            'failed': recording.errors.total(),
            'seconds': {'min': fastest, 'median': middle, 'max': slowest},
            'errors': dict(recording.errors),
            'warnings': dict(recording.warnings),
        },
        'metadata': dict(recording.metadata),
        'number_of_series': _cost_as_json(recording),
        'series': [_series_as_json(series) for series in recording.series],
        'events': [dict(event) for event in recording.events],
        'logs': [dict(log) for log in recording.logs],
    }


def _cost_as_json(recording: Recording) -> Mapping[str, Any]:
    submitted = recording.largest.submitted
    return {
        'total': submitted.total,
        'by_family': submitted.by_family(),
        'saved_by_option': submitted.by_option(recording.largest.idle),
        'selected_by_filter': [asdict(item) for item in submitted.by_filter()],
    }


def _series_as_json(series: Series) -> Mapping[str, Any]:
    return {
        'name': series.name,
        'type': series.type,
        'unit': _unit(series),
        'tag_sets': [
            {
                'tags': list(track.tags),
                'value': series.value(track),
                'last': track.last,
                'sum': track.total if series.is_count else None,
                'peak': track.peak,
                'points': track.points,
            }
            for track in series.by_interest()
        ],
    }
