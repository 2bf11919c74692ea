"""The one error of the interpreter."""

from __future__ import annotations


class PipelineError(ValueError):
    """The pipeline has something that Datadog would refuse, or that the interpreter does not know."""
