"""Where the state of the check lies: in two places of the Agent's persistent cache, which are written in turn.

The Agent writes a key as a plain file, truncated and then filled, so a kill in between leaves nothing of it or a half.
The other place then holds what was written before: one batch is repeated, instead of all cursors being lost.

The Agent reports no error of a write (see `cache_files.py`). So what was written is read back: when the state is
loaded, and now and then. A state that cannot be written is not used: more was counted than it says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from datadog_checks.prefect.api.log import Log
from datadog_checks.prefect.api.times import is_due
from datadog_checks.prefect.streams.cache_files import CacheFiles
from datadog_checks.prefect.streams.cursor import CheckState, StateError

KEYS = ('state_0', 'state_1')
# Several times what all streams together may remember; the Agent reads a file of any size.
MOST_BYTES = 32 * 2**20
_READ_BACK = timedelta(minutes=1)
# A state that is so much older than the one of another instance belongs to an instance that is gone.
_ABANDONED = timedelta(hours=1)


@dataclass(frozen=True)
class Cache:
    """Reads and writes the persistent cache under one id: a missing key reads as an empty text."""

    read: Callable[[str], str]
    write: Callable[[str, str], object]


class StateStore:
    """Loads the state once, then saves each state that follows.

    `cache` is that of the state id, `former` that of the id which version 1.0 made. `instance` tells instances with one
    state id apart. `warn` is given what `load` has to say, once; `problem` is what is wrong for as long as it is.
    """

    def __init__(
        self,
        cache: Cache,
        log: Log,
        *,
        instance: str = '',
        former: Cache | None = None,
        files: CacheFiles | None = None,
        warn: Callable[[str], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cache = cache
        self._log = log
        self._instance = instance
        self._former = former
        self._files = files or CacheFiles('', '')
        self._warn = warn or (lambda message: log.warning('%s', message))
        self._now = now
        self._keys = KEYS
        # By key, when it was last read back, and what is wrong with it.
        self._read_back_at: dict[str, datetime] = {}
        self._problems: dict[str, str] = {}

    @property
    def problem(self) -> str | None:
        """Why the state is not kept now, where that is, and what to do. None if all is well."""
        return next(iter(self._problems.values()), None)

    @property
    def is_common(self) -> bool:
        """Whether the state is kept under the keys that the instances with this id share, of which one uses them."""
        return self._keys == KEYS

    def load(
        self,
        streams: Collection[str] | None = None,
        *,
        is_shared: bool = False,
        max_age: timedelta | None = None,
    ) -> CheckState:
        """The newest state that is intact, written back; without one, an empty one, with one warning if it is lost.

        Only the cursors of these `streams` are kept. `is_shared` says that another instance uses the common keys. A
        state that was last used longer ago than `max_age` is not gone on from.
        """
        state, loss = self._choose(is_shared)
        adopted = self._adopted() if loss is None and self.is_common and not state.serial else None
        if adopted is not None:
            state = adopted
        if loss is None and state.streams:
            loss = self._expired(state, max_age)
        if loss is not None:
            # A number that is larger than that of anything that may show up again in the files.
            state = CheckState(serial=max(state.serial, int(self._now().timestamp())))
        state = replace(state if streams is None else state.of(streams), serial=state.serial + 1)
        why = self._write(replace(state, saved=self._now(), writer=self._instance).dumps(), state.serial)
        if why and state.streams:
            state = CheckState(serial=state.serial)
            self._problems[self._key(state.serial)] = (
                f'Starting afresh: the persisted state cannot be written ({why}), so it is older than what was '
                f'counted. {_AFRESH}. {self._files.describe(self._keys)}'
            )
        said = self.problem or loss
        if said is not None:
            self._warn(said)
        elif adopted is not None and self._former is not None:
            # Once: at another time it would be older than what was counted.
            self._log.info('Going on from the state of version 1.0')
            for key in KEYS:
                self._former.write(key, '')
        return state

    def save(self, state: CheckState) -> int:
        """Write the state, over the one before the last; return its size in bytes. A failure of it is a `problem`."""
        document = replace(state, saved=self._now(), writer=self._instance).dumps()
        self._write(document, state.serial)
        return len(document)

    def _write(self, document: str, serial: int) -> str:
        """Write it and now and then read it back; return what is wrong, '' if nothing is."""
        now = self._now()
        key = self._key(serial)
        why = ''
        try:
            self._cache.write(key, document)
            if key in self._problems or is_due(self._read_back_at.get(key), now, _READ_BACK):
                self._read_back_at[key] = now
                why = '' if self._cache.read(key) == document else 'what was written is not there'
                if not why and self._problems.pop(key, None) is not None:
                    self._log.info('The state of the check is saved again in %s', self._files.place)
        except Exception as error:
            why = _text(error)
        if why and key not in self._problems:
            self._problems[key] = (
                f'The state of the check cannot be saved ({why}). Counts go on. After a restart of the Agent, what '
                'happened since its last check is not counted; if the fault is mended while the Agent is stopped, runs '
                f'are counted twice. {self._files.describe(self._keys)}. Do it while the Agent runs'
            )
        return why

    def _key(self, serial: int) -> str:
        return self._keys[serial % len(self._keys)]

    def _choose(self, is_shared: bool) -> tuple[CheckState, str | None]:
        """The state to go on from, and why it is lost if it is; sets the keys.

        The common keys may hold the state of another instance, which is to come back after a restart in another order.
        """
        own_keys = (f'{KEYS[0]}_{self._instance}', f'{KEYS[1]}_{self._instance}')
        common, common_loss = (CheckState(), None) if is_shared else self._newest(KEYS)
        if not is_shared and (common_loss is not None or common.writer == self._instance):
            return common, common_loss
        own, own_loss = self._newest(own_keys)
        if is_shared or own_loss is not None or _is_in_use_beside(own, common):
            self._keys = own_keys
            return own, own_loss
        return replace(max(common, own, key=_age_key), serial=max(common.serial, own.serial)), None

    def _newest(self, keys: tuple[str, ...]) -> tuple[CheckState, str | None]:
        """The newest intact state of these keys, an empty one without; and why it is lost if there was one."""
        found: list[CheckState] = []
        damages: list[str] = []
        for key in keys:
            size = self._files.size(key)
            try:
                if size is not None and size > MOST_BYTES:
                    raise StateError(f'{size} bytes are more than {MOST_BYTES}')
                text = self._cache.read(key)
                if len(text) > MOST_BYTES:
                    raise StateError(f'{len(text)} characters are more than {MOST_BYTES}')
                if size == 0:
                    raise StateError('a file is empty: the disk was full, or the machine broke down')
                found.append(CheckState.loads(text))
            except StateError as error:
                damages.append(str(error))
            except Exception as error:
                # It may be the newer one.
                self._problems[key] = (
                    f'Starting afresh: the persisted state cannot be read ({_text(error)}). {_AFRESH}. '
                    f'{self._files.describe(keys)}'
                )
                return CheckState(), self._problems[key]
        newest = max(found, key=lambda state: state.serial, default=CheckState())
        if not damages:
            return newest, None
        if newest.streams:
            self._log.debug('One of the two persisted states cannot be used, going on from the other: %s', damages[0])
            return newest, None
        place = self._files.place
        return newest, f'Starting afresh: the persisted state in {place} cannot be used ({damages[0]}). {_AFRESH}'

    def _adopted(self) -> CheckState | None:
        """The state that version 1.0 left; None without."""
        if self._former is None:
            return None
        try:
            found = [CheckState.loads(self._former.read(key)) for key in KEYS]
        except Exception as error:
            self._log.debug('A state of version 1.0 cannot be used: %s', error)
            return None
        newest = max(found, key=lambda state: state.serial)
        return newest if newest.streams else None

    def _expired(self, state: CheckState, max_age: timedelta | None) -> str | None:
        """Why the state is too old, if it is."""
        if max_age is None or state.used_until is None:
            return None
        age = abs(self._now() - state.used_until)
        if age <= max_age:
            return None
        return (
            f'The state of this cluster check was last saved {age.total_seconds():.0f} s ago, longer than '
            f'{max_age.total_seconds():.0f} s: another Agent may have counted meanwhile. Counting begins now'
        )


_AFRESH = 'What happened before now is not counted'


def _is_in_use_beside(own: CheckState, common: CheckState) -> bool:
    """Whether there is a state of this instance alone, and no common one or that of an instance that is still there."""
    return own.saved is not None and (common.saved is None or own.saved - common.saved < _ABANDONED)


def _age_key(state: CheckState) -> datetime:
    return state.used_until or datetime.min.replace(tzinfo=UTC)


def _text(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'[:200]
