"""A Prefect server in memory, for tests that send thousands of requests.

It honours what the check may ask for (filters, sorts, paging, counts, events, credentials) with the semantics of
Prefect 3.8.8, and remembers every request that it does not know, so that a test fails instead of passing by luck:

    fake = FakePrefect()
    deployment = fake.add_deployment(name='hourly')
    run = fake.add_flow_run(deployment=deployment)
    fake.set_flow_run_state(run, 'RUNNING')
    with fake.install() as url:      # or fake.serve(): the same behind a socket
        ...
    fake.assert_all_known()

`integration/test_fake_is_faithful.py` compares it with a real server.
"""

from __future__ import annotations

from .server import FakePrefect, FakeRequest, FakeResponse
from .world import World

__all__ = ['FakePrefect', 'FakeRequest', 'FakeResponse', 'World']
