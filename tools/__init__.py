"""Generators and gates of this repository; run from its root as `python -m tools.<name>`."""
