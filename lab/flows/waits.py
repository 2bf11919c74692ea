"""A flow that only waits, for tests of the heartbeats that its process sends meanwhile. FLOW_NAME is its name."""

from __future__ import annotations

import os
import time

from prefect import flow


@flow(name=os.environ['FLOW_NAME'])
def waits() -> None:
    time.sleep(600)


if __name__ == '__main__':
    waits()
