"""A task worker: it runs the thumbnails that others have asked for, and not their cleaning."""

from __future__ import annotations

from prefect.task_worker import serve
from thumbnails import make_thumbnail

if __name__ == '__main__':
    serve(make_thumbnail)
