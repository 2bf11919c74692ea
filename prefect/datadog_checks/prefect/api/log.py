"""The type of a log to write to (a plain logger, or the check's own adapter that adds its name and instance), and what
must not be in one.
"""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

from datadog_checks.base.utils import tls

Log: TypeAlias = 'logging.Logger | logging.LoggerAdapter[Any]'

# What the Agent base connects and authorizes with. At DEBUG these log the secrets that they use: base 38.5.0 itself the
# password of tls_private_key, requests_oauthlib 2.0.0 body, headers and token of a token request, spnego 0.12.4 each
# token of Kerberos and NTLM.
_TELLTALES = (tls.LOGGER.name, 'oauthlib', 'requests_kerberos', 'requests_ntlm', 'requests_oauthlib', 'spnego')


def silence_telltales() -> None:
    for name in _TELLTALES:
        logging.getLogger(name).setLevel(logging.INFO)
