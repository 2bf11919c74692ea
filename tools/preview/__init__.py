"""Dashboards as a user would see them, drawn from what the check sent in a demo: `python -m tools.preview`.

`contents.py` answers the queries of each widget, `page.py` draws them as one HTML page, `pictures.py` makes PNGs of it.
"""
