"""Where the Agent keeps the persisted state, and what is wrong there: for a person who has to mend it.

The Agent (pkg/persistentcache/persistentcache.go) keeps a key as one plain file: `<run_path>/<what stands before the
first colon>/<the rest, without characters other than A-Z a-z 0-9 _ ->`, in a folder of mode 0700. A file that is
missing reads as an empty text, one that cannot be read raises. A write truncates the file first, and an error of it
goes to the Agent's log only.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

_DROPPED = re.compile('[^a-zA-Z0-9_-]')
_LITTLE_SPACE = 16 * 2**20
_HAS_EFFECTIVE_IDS = os.access in os.supports_effective_ids


class CacheFiles:
    """The files of the keys that begin with `prefix` (`prefect:<id>_`). `run_path` is '' where there are none."""

    def __init__(self, run_path: str, prefix: str) -> None:
        self._folder_key, _, self._file_prefix = prefix.partition(':')
        self._run_path = run_path

    def size(self, key: str) -> int | None:
        """The bytes of a file; None if there is none, or nobody may know."""
        try:
            return self._path(key).stat().st_size if self._run_path else None
        except OSError:
            return None

    def describe(self, keys: tuple[str, ...]) -> str:
        """Where the files are, whom they belong to, and what to do."""
        if not self._run_path:
            return "Look at the Agent's run directory: its owner, and the free space"
        folder = self._folder
        # The Agent makes the folder.
        top = folder if os.path.lexists(folder) else Path(self._run_path)
        for path in (top, *(self._path(key) for key in keys)):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                return f'{path}: {error.strerror}. Give {_user(_own_id())}, the user of the Agent, all rights there'
            mode = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
            if not os.access(path, mode, effective_ids=_HAS_EFFECTIVE_IDS):
                return f'{path} {_obstacle(status, top)}'
        try:
            free = shutil.disk_usage(self._run_path).free
        except OSError as error:
            return f'{self._run_path}: {error.strerror}'
        hint = f'only {free // 2**10} KiB are free: make room' if free < _LITTLE_SPACE else 'check the file system'
        return f'{folder}: {hint}'

    @property
    def place(self) -> str:
        """The folder, or what stands for it where it is not known."""
        return str(self._folder) if self._run_path else "the Agent's run directory"

    @property
    def _folder(self) -> Path:
        return Path(self._run_path, _DROPPED.sub('', self._folder_key))

    def _path(self, key: str) -> Path:
        return self._folder / _DROPPED.sub('', self._file_prefix + key)


def _obstacle(status: os.stat_result, top: Path) -> str:
    """Why the user of the Agent cannot read and write it."""
    owner, user = _user(status.st_uid), _user(_own_id())
    facts = f'belongs to {owner} (mode {status.st_mode & 0o7777:04o}) and the Agent runs as {user}'
    if status.st_uid != _own_id():
        return f'{facts}: run `sudo chown -R {user} {top}`'
    return f'{facts}: run `sudo chmod -R u+rwX {top}`; is its file system mounted for reading only?'


def _own_id() -> int:
    # Windows has none.
    return os.geteuid() if hasattr(os, 'geteuid') else 0


def _user(user_id: int) -> str:
    try:
        import pwd
    except ImportError:
        return 'another user'
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
