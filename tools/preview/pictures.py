"""Pictures of the page, by the Chromium of the system."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlencode

PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome')
SECONDS = 120
# No sandbox: it does not start as root in a container, and the page is our own. The others: nothing asks the network.
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--hide-scrollbars',
    '--virtual-time-budget=20000',
)


def browser() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def take(program: str, page: Path, picture: Path, *, width: int, height: int, **shown: str) -> None:
    """Draw what `shown` says of the page: `board`, `theme`, `groups`. Raises RuntimeError without a picture."""
    address = f'{page.resolve().as_uri()}?{urlencode(shown)}'
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        result = subprocess.run(
            [
                program,
                *FLAGS,
                f'--user-data-dir={profile}',
                f'--window-size={width},{height}',
                f'--screenshot={picture.resolve()}',
                address,
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    if not picture.exists():
        raise RuntimeError(f'{program} made no picture:\n{result.stderr[-2000:]}')
