"""The check as it was at a commit, to be measured beside the present one."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from lab.prefect_server import ROOT


def extract(commit: str, folder: Path) -> Path:
    """Write the package of that commit into a folder. The result is what goes on Python's path.

    Raises CalledProcessError for a commit that git does not know.
    """
    archive = subprocess.run(['git', 'archive', commit, 'prefect'], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter='data')
    return folder / 'prefect'
