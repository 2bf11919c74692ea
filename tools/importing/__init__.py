"""Dashboards, monitors, service level objectives and the log pipeline, brought into a Datadog account.

`assets.py` knows the files and the form in which Datadog's API takes them, `account.py` the API of one account,
`importer.py` what has to be done there. `make import` runs it, `make assets` only writes the files.
"""
