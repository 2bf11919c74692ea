"""Background tasks: called by a web server, say, and run by a task worker in another process.

As a script this asks for three thumbnails and a cleaning, and goes on without waiting for them.
"""

from __future__ import annotations

import time

from prefect import task


# Without parameters, which would have to be in a storage that both processes reach.
@task
def make_thumbnail() -> None:
    time.sleep(1)


@task
def clean_up() -> None:
    """Nobody listens for this one."""


if __name__ == '__main__':
    for _ in range(3):
        make_thumbnail.delay()
    clean_up.delay()
