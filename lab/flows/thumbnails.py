"""Background tasks: called by a web server, say, and run by a task worker in another process.

As a script this asks for three thumbnails and a cleaning, and goes on without waiting for them; with `ONE_THUMBNAIL` in
its environment for one more thumbnail only.
"""

from __future__ import annotations

import os
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
    if 'ONE_THUMBNAIL' in os.environ:
        make_thumbnail.delay()
    else:
        for _ in range(3):
            make_thumbnail.delay()
        clean_up.delay()
