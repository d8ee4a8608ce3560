"""Wiring of the AWS target, as far as callers go: no more than the authorizer needs.

Every caller waits for its start now and then, so it loads nothing of the API.
"""

from __future__ import annotations

import os
import time
from functools import cache

from synapse.application.authentication import Authenticator
from synapse.aws_parts import Parts
from synapse.settings import Settings


@cache
def authenticator() -> Authenticator:
    """Tells whose a credential is."""
    settings = Settings.load(os.environ)
    tokens = settings.issuer.verifier(time.time) if settings.issuer else None
    return Authenticator(Parts(settings).keys, time.time, tokens)
