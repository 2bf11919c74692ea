"""An interpreter of the part of Datadog's log pipelines that `assets/logs/prefect.yaml` uses.

No Datadog backend is at hand where these tests run, and none can be asked. So the pipeline is run here: grok rules are
translated to regular expressions, queries are parsed, processors are applied one after the other. What is not
known here (a matcher, a filter, a processor, one of its keys, a form of query) is refused when the pipeline is read,
and never passed over.

    log_pipeline.grok        grok rules -> regular expressions, and what they extract
    log_pipeline.query       the queries of filters, categories and saved views
    log_pipeline.processors  the processors, and the log that they change
    log_pipeline.pipeline    the asset files: pipeline, facets, tests
    log_pipeline.multi_line  how the Agent joins lines by a `multi_line` rule

What Datadog's documentation says is followed. These are the limits:

- Python's `re` backtracks, Datadog's engine is of RE2's kind. Rules that RE2 could not take (lookaround,
  backreferences, possessive and atomic groups) are refused. Where both take a rule they find the same match, as both
  prefer the leftmost alternative; the time that they take is not compared.
- A rule must match its whole source. `data` is `.*` over line ends. A bare `.` in a rule does not cross a line end
  here, which the documentation leaves open: the rules of the pipeline are written so that it does not matter.
- Backslashes within the quotes of `regex("...")` are refused, but for `\\n`, as it is not documented whether the
  string or the expression consumes them. An attribute that a rule extracts twice is refused too.
- `date` knows the few letters that the pipeline needs, and takes a date without a zone for UTC.
- Before any pipeline Datadog takes JSON apart, and then takes `message` (or `msg`) for the text of the log. Whether
  these stay among the attributes is not documented. `Reading` names the possibilities; the tests hold the pipeline to
  all.
- What the Agent adds to JSON (`ddsource`, `ddtags`, `service`) is never an attribute.
- A message remapper moves its source; status and date remappers copy theirs. This, too, is not documented.
- Facets have no effect on processing, tags and hosts are not simulated, and the intake's limits (sizes, ages)
  neither.
"""

from __future__ import annotations

from tests.log_pipeline.errors import PipelineError
from tests.log_pipeline.multi_line import MultiLineRule
from tests.log_pipeline.pipeline import Asset, LogTest
from tests.log_pipeline.processors import Log, Reading
from tests.log_pipeline.query import Query

__all__ = ['Asset', 'Log', 'LogTest', 'MultiLineRule', 'PipelineError', 'Query', 'Reading']
