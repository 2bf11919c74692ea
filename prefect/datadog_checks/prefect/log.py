"""The type of a log to write to: a plain logger, or the check's own adapter that adds its name and instance."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

Log: TypeAlias = 'logging.Logger | logging.LoggerAdapter[Any]'
