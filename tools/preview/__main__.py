"""`make preview`: draw the dashboards from what the check sends in a demo.

    python -m tools.preview [--recording PATH] [--folder dist/preview] [--images]

Without a recording it plays the demo on a real server, about two minutes, and keeps it in the folder, to draw again.
Writes one self-contained page, and with a Chromium at hand a picture of each dashboard in light and dark. Exits with 1
if a widget shows nothing that the demo should give.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.timeline import Timeline
from tools.preview import pictures
from tools.preview.contents import unexplained
from tools.preview.page import WIDTH, Board, height_of_groups, load, render
from tools.preview.recorded import record_demo

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / 'prefect' / 'assets'
THEMES = ('light', 'dark')
# What the READMEs show, in parts: the numbers of the first and the last group of each. The first parts are the pictures
# of the tile, too.
PARTS = {'overview': ((1, 3), (4, 7), (8, 13)), 'deployments': ((1, 2), (3, 5))}
OF_TILE = ROOT / 'prefect' / 'images'
OF_DOCUMENTS = ROOT / 'docs' / 'images'


def boards() -> list[Board]:
    return [
        Board('overview', load(ASSETS / 'dashboards' / 'prefect_overview.json')),
        Board('deployments', load(ASSETS / 'dashboards' / 'prefect_deployments.json')),
    ]


def titles(kind: str, key: str) -> list[str]:
    return sorted(json.loads(path.read_text())[key] for path in (ASSETS / kind).glob('*.json'))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tools.preview', description='Draw the dashboards.')
    parser.add_argument('--recording', type=Path, metavar='PATH', help='draw from this file; no server is started')
    parser.add_argument('--folder', type=Path, default=ROOT / 'dist' / 'preview', help='where the files go')
    parser.add_argument('--images', action='store_true', help='replace the pictures of the READMEs, too')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.recording:
        timeline = Timeline.load(options.recording)
    else:
        print('Playing the demo on a real Prefect server, about two minutes', flush=True)
        try:
            timeline = record_demo()
        except (RuntimeError, OSError) as error:
            print(f'The demo did not come to its end: {error}')
            return 1
        timeline.save(options.folder / 'recording.json.gz')

    page = options.folder / 'dashboards.html'
    page.write_text(render(boards(), timeline, titles('monitors', 'title'), titles('slos', 'name')))
    print(f'The page: {page}')
    program = pictures.browser()
    if program is None:
        print(f'No pictures: none of {", ".join(pictures.PROGRAMS)} was found. Debian: apt-get install chromium')
    else:
        _take_pictures(program, page, options.folder, with_images=options.images)

    empty = [name for board in boards() for name in unexplained(board.dashboard, timeline)]
    for name in empty:
        print(f'shows nothing: {name}')
    return 1 if empty else 0


def _take_pictures(program: str, page: Path, folder: Path, *, with_images: bool) -> None:
    for board in boards():
        everything = (1, len(board.dashboard['widgets']))
        wanted = {folder / f'{board.key}-{theme}.png': (theme, everything) for theme in THEMES}
        if with_images:
            first, *others = PARTS[board.key]
            wanted |= {OF_TILE / f'{board.key}_{theme}.png': (theme, first) for theme in THEMES}
            wanted |= {
                OF_DOCUMENTS / f'{board.key}_{number}.png': ('light', part) for number, part in enumerate(others, 2)
            }
        for picture, (theme, (start, end)) in wanted.items():
            picture.parent.mkdir(exist_ok=True)
            height = height_of_groups(board, start, end)
            shown = {'board': board.key, 'theme': theme, 'groups': f'{start}-{end}'}
            pictures.take(program, page, picture, width=WIDTH, height=height, **shown)
            print(f'A picture: {picture} ({picture.stat().st_size / 1e6:.1f} MB)')


if __name__ == '__main__':
    sys.exit(main())
