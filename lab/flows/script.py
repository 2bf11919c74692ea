"""A flow that is run by calling it, as people do at their desks: flow runs without a deployment."""

from __future__ import annotations

from prefect import flow
from tasks import work


@flow(name='desk-research')
def desk_research(question: str) -> float:
    return work(1.0)


if __name__ == '__main__':
    for question in ('why', 'how'):
        desk_research(question)
