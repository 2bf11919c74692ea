"""A real Prefect server, real work for it, and a stand-in for the Datadog Agent.

`make demo`, `make check` and the integration tests are built from the modules of this package. It is a development
tool: it runs from the clone and is no part of the wheel.
"""
