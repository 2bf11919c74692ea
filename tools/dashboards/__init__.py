"""The dashboards of the integration, described in Python; `python -m tools.dashboards` writes their JSON.

`widgets.py` is what they are made of, one module per dashboard says what is on it.
"""
