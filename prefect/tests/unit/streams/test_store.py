from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datadog_checks.prefect.streams import store as store_module
from datadog_checks.prefect.streams.cache_files import CacheFiles
from datadog_checks.prefect.streams.cursor import CheckState, StreamCursor
from datadog_checks.prefect.streams.store import KEYS, Cache, StateStore
from lab.agent import AgentFiles
from tests.unit.harness import at

PREFIX = 'prefect:0123_'
FORMER_PREFIX = 'prefect:4567_'
STATE_OF_1_0 = (Path(__file__).parents[2] / 'fixtures' / 'state_1.0.0.json').read_text()


class Agent:
    """The persistent cache of an Agent, and the instances of the check that it runs one after the other."""

    def __init__(self, run_path: Path) -> None:
        self.files = AgentFiles(run_path)
        self.now = at(0)
        self.warnings: list[str] = []

    def store(self, instance: str = 'a') -> StateStore:
        return StateStore(
            self._cache(PREFIX),
            logging.getLogger('check'),
            instance=instance,
            former=self._cache(FORMER_PREFIX),
            files=CacheFiles(str(self.files.run_path), PREFIX),
            warn=self.warnings.append,
            now=lambda: self.now,
        )

    def put(self, key: str, text: str, prefix: str = PREFIX) -> None:
        self.files.write(prefix + key, text)

    def path(self, key: str) -> Path:
        return self.files.path(PREFIX + key)

    def _cache(self, prefix: str) -> Cache:
        return Cache(lambda key: self.files.read(prefix + key), lambda key, text: self.files.write(prefix + key, text))


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


def run(store: StateStore, seconds: int, **options: Any) -> CheckState:
    """Load, and let a stream be read up to that second; return what was loaded."""
    loaded = store.load(**options)
    store.save(loaded.advanced('runs', StreamCursor(at(0), at(seconds))))
    return loaded


def until(state: CheckState) -> float | None:
    cursor = state.cursor('runs')
    return None if cursor is None else (cursor.until - at(0)).total_seconds()


class TestLoading:
    def test_nothing_persisted_is_an_empty_state(self, agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
        assert agent.store().load().streams == {}
        assert not agent.warnings
        assert not caplog.records

    @pytest.mark.parametrize('number', [1, 2, 3, 12])
    def test_newest_state_is_loaded(self, agent: Agent, number: int) -> None:
        store = agent.store()
        state = store.load()
        for second in range(number):
            state = state.advanced('runs', StreamCursor(at(0), at(second)))
            assert store.save(state) == agent.path(KEYS[state.serial % 2]).stat().st_size
        assert until(agent.store().load()) == number - 1
        assert not agent.warnings

    @pytest.mark.parametrize('torn', ['', '{"version":1,"ser', 'nonsense', '{"version":9}'])
    @pytest.mark.parametrize('number', [2, 3, 12])
    def test_state_before_the_last_is_loaded_if_that_is_damaged(self, agent: Agent, torn: str, number: int) -> None:
        store = agent.store()
        state = store.load()
        for second in range(number):
            state = state.advanced('runs', StreamCursor(at(0), at(second)))
            store.save(state)
        agent.put(KEYS[state.serial % 2], torn)
        assert until(agent.store().load()) == number - 2
        assert not agent.warnings

    @pytest.mark.parametrize(
        ('texts', 'says'),
        [
            pytest.param(('nonsense', 'nonsense'), 'JSONDecodeError', id='both are damaged'),
            pytest.param((None, '{"vers'), 'JSONDecodeError', id='the first write of all broke off'),
            pytest.param(('', ''), 'a file is empty', id='both are empty'),
            pytest.param(('', None), 'a file is empty', id='the first write of all was emptied'),
        ],
    )
    def test_state_that_is_lost_is_one_warning_and_a_fresh_start(
        self, agent: Agent, texts: tuple[str | None, ...], says: str
    ) -> None:
        for key, text in zip(KEYS, texts, strict=True):
            if text is not None:
                agent.put(key, text)
        store = agent.store()
        assert run(store, 15).streams == {}
        (warning,) = agent.warnings
        assert f'Starting afresh: the persisted state in {agent.files.run_path}/prefect cannot be used' in warning
        assert says in warning
        assert 'not counted' in warning
        assert store.problem is None
        assert until(agent.store().load()) == 15
        assert len(agent.warnings) == 1

    def test_a_fresh_start_is_newer_than_what_may_show_up_again(self, agent: Agent) -> None:
        old = json.dumps(json.loads(STATE_OF_1_0) | {'serial': 10**9})
        agent.put(KEYS[0], 'nonsense')
        state = agent.store().load()
        agent.put(KEYS[(state.serial + 1) % 2], old)
        assert agent.store().load().streams == {}

    @pytest.mark.parametrize('key', KEYS)
    def test_file_that_is_too_large_is_not_read(self, agent: Agent, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store_module, 'MOST_BYTES', 1000)
        agent.put(key, 'x' * 1001)
        store = agent.store()
        read = store._cache.read
        store._cache = replace(store._cache, read=lambda key: fail_if(agent, key) or read(key))
        assert store.load().streams == {}
        assert '1001 bytes are more than 1000' in agent.warnings[0]

    def test_text_that_is_too_long_is_not_parsed_where_the_files_are_not_known(
        self, agent: Agent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, 'MOST_BYTES', 1000)
        agent.put(KEYS[0], '[' * 1001)
        store = agent.store()
        store._files = CacheFiles('', '')
        assert store.load().streams == {}
        assert '1001 characters are more than 1000' in agent.warnings[0]

    def test_cursor_of_a_stream_that_is_no_longer_configured_is_dropped(self, agent: Agent) -> None:
        store = agent.store()
        state = store.load().advanced('runs', StreamCursor(at(0), at(1))).advanced('events', StreamCursor(at(0), at(1)))
        store.save(state)
        assert set(agent.store().load(['runs']).streams) == {'runs'}
        assert set(agent.store().load(['runs', 'events']).streams) == {'runs'}


def fail_if(agent: Agent, key: str) -> None:
    assert agent.path(key).stat().st_size <= 1000 if agent.path(key).exists() else True


class TestUnreadable:
    @pytest.fixture
    def broken(self, agent: Agent) -> Callable[[], None]:
        """A file where the Agent's folder should be: nobody, not even root, reads or writes below it."""
        folder = agent.files.run_path / 'prefect'

        def break_it() -> None:
            if folder.exists():
                folder.rename(folder.with_name('kept'))
            folder.write_text('')

        return break_it

    def test_starts_afresh_with_one_problem_for_as_long_as_it_lasts(
        self, agent: Agent, broken: Callable[[], None]
    ) -> None:
        run(agent.store(), 15)
        broken()
        store = agent.store()
        state = store.load()
        assert state.streams == {}
        for second in range(3):
            state = state.advanced('runs', StreamCursor(at(0), at(second)))
            store.save(state)
            assert store.problem is not None
            assert store.problem.startswith(
                'Starting afresh: the persisted state cannot be read (RuntimeError: failed to read data)'
            )
            assert str(agent.files.run_path / 'prefect') in store.problem
        assert agent.warnings == [store.problem]
        (agent.files.run_path / 'prefect').unlink()
        for second in range(2):
            state = state.advanced('runs', StreamCursor(at(0), at(second)))
            store.save(state)
        assert store.problem is None
        assert until(agent.store().load()) == 1

    def test_one_file_that_cannot_be_read_may_be_the_newer_one(self, agent: Agent) -> None:
        state = agent.store().load()
        state = state.advanced('runs', StreamCursor(at(0), at(15)))
        agent.store().save(state)
        unreadable = agent.path(KEYS[(state.serial + 1) % 2])
        unreadable.unlink()
        unreadable.mkdir()
        store = agent.store()
        assert store.load().streams == {}
        assert store.problem is not None

    def test_file_that_can_be_written_over_is_said_once(self, agent: Agent) -> None:
        run(agent.store(), 15)
        store = agent.store()
        read, failures = store._cache.read, ['']

        def fails_once(key: str) -> str:
            if failures:
                failures.pop()
                raise UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'invalid start byte')
            return read(key)

        store._cache = replace(store._cache, read=fails_once)
        state = store.load()
        store.save(state.advanced('runs', StreamCursor(at(0), at(16))))
        (warning,) = agent.warnings
        assert 'cannot be read (UnicodeDecodeError' in warning
        store.save(state)
        assert store.problem is None


class TestUnwritable:
    def test_state_that_cannot_be_written_back_is_not_used(self, agent: Agent) -> None:
        """More was counted than it says: what it says would be counted again."""
        run(agent.store(), 15)
        store = agent.store()
        store._cache = replace(store._cache, write=lambda key, text: None)
        assert store.load().streams == {}
        assert store.problem is not None
        assert 'Starting afresh: the persisted state cannot be written (what was written is not there)' in store.problem
        assert str(agent.files.run_path / 'prefect') in store.problem
        assert agent.warnings == [store.problem]

    @pytest.mark.parametrize('raises', [False, True])
    def test_folder_that_becomes_unwritable_is_noticed_within_a_minute_or_two(self, agent: Agent, raises: bool) -> None:
        store = agent.store()
        state = store.load()
        cache, is_broken = store._cache, False

        def write(key: str, text: str) -> None:
            if not is_broken:
                cache.write(key, text)
            elif raises:
                raise OSError(28, 'No space left on device')

        store._cache = replace(cache, write=write)
        problems = []
        for check in range(20):
            agent.now = at(15 * check)
            is_broken = 5 <= check < 15
            state = state.advanced('runs', StreamCursor(at(0), agent.now))
            store.save(state)
            problems.append(store.problem)
        assert problems[:5] == [None] * 5
        assert all(problems[9:15])
        assert problems[17:] == [None] * 3
        text = problems[14] or ''
        assert ('OSError' if raises else 'what was written is not there') in text
        assert 'After a restart' in text
        assert str(agent.files.run_path) in text

    def test_full_disk(self, agent: Agent) -> None:
        """The files are emptied: after the restart what was counted is not counted again, and that is said."""
        store = agent.store()
        state = store.load()
        store._cache = replace(store._cache, write=lambda key, text: agent.put(key, ''))
        for check in range(1, 6):
            agent.now = at(60 * check)
            state = state.advanced('runs', StreamCursor(at(0), agent.now))
            store.save(state)
        assert store.problem is not None
        assert [agent.path(key).read_text() for key in KEYS] == ['', '']
        assert agent.store().load().streams == {}
        assert len(agent.warnings) == 1
        assert 'a file is empty' in agent.warnings[0]


class TestTwoInstances:
    @pytest.mark.parametrize('order', ['ab', 'ba'])
    def test_each_finds_its_own_state_in_any_order_of_starts(self, agent: Agent, order: str) -> None:
        one, other = agent.store('a'), agent.store('b')
        run(one, 1)
        run(other, 2, is_shared=True)
        assert (one.is_common, other.is_common) == (True, False)
        loaded = {}
        for number, name in enumerate(order):
            store = agent.store(name)
            loaded[name] = until(run(store, {'a': 3, 'b': 4}[name], is_shared=name == 'b' and number == 1))
            assert store.is_common == (name == 'a')
        assert loaded == {'a': 1, 'b': 2}

    def test_instance_that_was_edited_goes_on(self, agent: Agent) -> None:
        run(agent.store('a'), 1)
        store = agent.store('edited')
        assert until(run(store, 2)) == 1
        assert store.is_common
        assert until(agent.store('edited').load()) == 2

    def test_second_one_begins_afresh(self, agent: Agent) -> None:
        run(agent.store('a'), 1)
        assert agent.store('b').load(is_shared=True).streams == {}
        assert not agent.warnings

    def test_the_one_that_is_left_takes_the_common_state(self, agent: Agent) -> None:
        """When the other one is gone for good: an edit of it then finds the state."""
        run(agent.store('a'), 1)
        run(agent.store('b'), 2, is_shared=True)
        agent.now = at(7200)
        b = agent.store('b')
        b.save(b.load().advanced('runs', StreamCursor(at(0), at(7200))))
        last = agent.store('b')
        assert until(last.load()) == 7200
        assert last.is_common
        assert until(agent.store('edited').load()) == 7200

    def test_common_state_that_is_gone_does_not_hide_the_own_one(self, agent: Agent) -> None:
        run(agent.store('a'), 1)
        run(agent.store('b'), 2, is_shared=True)
        for key in KEYS:
            agent.path(key).unlink()
        assert until(agent.store('b').load()) == 2


class TestClusterCheck:
    @pytest.mark.parametrize(('age', 'goes_on'), [(0, True), (60, True), (61, False), (-61, False)])
    def test_state_that_is_too_old_is_not_gone_on_from(self, agent: Agent, age: int, goes_on: bool) -> None:
        run(agent.store(), 15)
        agent.now = at(age)
        state = agent.store().load(max_age=timedelta(seconds=60))
        assert until(state) == (15 if goes_on else None)
        if goes_on:
            assert not agent.warnings
        else:
            (warning,) = agent.warnings
            assert 'another Agent may have counted meanwhile' in warning
            assert 'longer than 60 s' in warning

    def test_elsewhere_its_age_does_not_matter(self, agent: Agent) -> None:
        run(agent.store(), 15)
        agent.now = at(10**6)
        assert until(agent.store().load()) == 15


class TestVersion10:
    """The document was written by version 1.0.0 (commit 486a0bc) in front of the fake server."""

    @pytest.fixture
    def former(self, agent: Agent) -> Agent:
        agent.put(KEYS[1], STATE_OF_1_0, FORMER_PREFIX)
        return agent

    def test_is_adopted_and_saved_anew_once(self, former: Agent, caplog: pytest.LogCaptureFixture) -> None:
        state = former.store().load()
        assert dict(state.streams) == dict(CheckState.loads(STATE_OF_1_0).streams) != {}
        assert dict(former.store().load().streams) == dict(state.streams)
        for key in KEYS:
            former.path(key).unlink()
        assert former.store().load().streams == {}
        assert not former.warnings

    def test_is_not_adopted_over_one_of_this_version(self, former: Agent) -> None:
        store = former.store()
        store._former = None
        run(store, 15)
        assert until(former.store().load()) == 15

    def test_is_not_used_where_it_cannot_be_saved(self, former: Agent) -> None:
        store = former.store()
        store._cache = replace(store._cache, write=lambda key, text: None)
        assert store.load().streams == {}
        assert former.files.read(FORMER_PREFIX + KEYS[1]) == STATE_OF_1_0

    def test_its_age_is_that_of_its_last_read(self, former: Agent) -> None:
        read = max(cursor.until for cursor in CheckState.loads(STATE_OF_1_0).streams.values())
        former.now = read + timedelta(seconds=61)
        assert former.store().load(max_age=timedelta(seconds=60)).streams == {}
        assert len(former.warnings) == 1

    def test_damaged_one_is_none(self, former: Agent) -> None:
        former.put(KEYS[0], 'nonsense', FORMER_PREFIX)
        assert former.store().load().streams == {}
        assert not former.warnings

    def test_second_instance_does_not_adopt_it(self, former: Agent) -> None:
        assert former.store('b').load(is_shared=True).streams == {}
