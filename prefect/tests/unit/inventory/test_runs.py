from __future__ import annotations

import pytest

from tests.fake_prefect import FakePrefect
from tests.unit.harness import Bench, Row, at, sent


@pytest.fixture
def bench(fake: FakePrefect, prefect_url: str) -> Bench:
    return Bench(fake, prefect_url)


class TestParents:
    def parents(self, bench: Bench) -> dict[str, str]:
        """The parents that are found of what lives, by the id of the subflow."""
        inventory = bench.context().inventory
        return {key: parent.id for key, parent in inventory.parents_not_alive(inventory.live_flow_runs()).items()}

    def add_subflow(self, fake: FakePrefect, parent_state: tuple[str, str]) -> tuple[Row, Row]:
        parent = fake.add_flow_run(state=('RUNNING', 'Running'))
        subflow = fake.add_flow_run(parent=parent, state=('RUNNING', 'Running'))
        fake.set_flow_run_state(parent, *parent_state, at=at(1))
        return subflow, parent

    def test_parent_that_is_not_alive_is_looked_up_by_its_task_run(self, fake: FakePrefect, bench: Bench) -> None:
        subflow, parent = self.add_subflow(fake, ('CANCELLED', 'Cancelled'))
        assert self.parents(bench) == {subflow['id']: parent['id']}

    def test_parent_that_lives_is_not_asked_for(self, fake: FakePrefect, bench: Bench) -> None:
        self.add_subflow(fake, ('RUNNING', 'Running'))
        assert self.parents(bench) == {}
        assert len(sent(fake, '/flow_runs/filter')) == 1

    def test_whose_subflow_it_is_is_asked_for_once_while_it_lives(self, fake: FakePrefect, bench: Bench) -> None:
        subflow, parent = self.add_subflow(fake, ('CANCELLED', 'Cancelled'))
        for _ in range(3):
            assert self.parents(bench) == {subflow['id']: parent['id']}
        assert len(sent(fake, '/task_runs/filter')) == 1

    def test_nothing_is_asked_for_what_is_no_subflow(self, fake: FakePrefect, bench: Bench) -> None:
        fake.add_flow_run(state=('RUNNING', 'Running'))
        assert self.parents(bench) == {}
        assert sent(fake, '/task_runs/filter') == []
