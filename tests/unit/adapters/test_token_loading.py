"""Who sends an API key does not wait for cryptography to be loaded."""

from __future__ import annotations

import subprocess
import sys

SLOW = "{'jwt', 'cryptography', 'argon2'}"
ENVIRONMENT = {
    "SYNAPSE_JOBS_TABLE": "jobs",
    "SYNAPSE_REGISTRY_TABLE": "registry",
    "SYNAPSE_FILES_TABLE": "files",
    "SYNAPSE_ACCESS_TABLE": "access",
    "SYNAPSE_BLOB_BUCKET": "blobs",
    "SYNAPSE_OIDC_ISSUER": "https://id.example",
    "SYNAPSE_OIDC_AUDIENCE": "synapse",
    "SYNAPSE_COGNITO_CLIENT_ID": "client-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_TRACE_DISABLED": "true",
}


def loaded_by(code: str) -> str:
    """Which of the slow ones that code loads."""
    tell = f"import sys; print(sorted({SLOW} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-W", "ignore", "-c", f"{code}\n{tell}"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return ended.stderr.strip()


def test_the_authorizer_starts_without_it_although_tokens_are_accepted() -> None:
    code = "from functions.authorize import handler\nhandler.authenticator()"

    assert loaded_by(code) == "[]"


def test_the_api_starts_without_it() -> None:
    assert loaded_by("from synapse.bootstrap_aws import target\ntarget().api") == "[]"


def test_the_first_token_loads_it() -> None:
    code = """
import asyncio
from functions.authorize import handler
from synapse.domain.errors import Unauthenticated
try:
    asyncio.run(handler.authenticator().principal("a.b.c"))
except Unauthenticated:
    pass
"""

    assert loaded_by(code) == "['cryptography', 'jwt']"
