"""Signing in to a Cognito user pool with a name and a password."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from synapse.adapters.aws.calls import call, error_code
from synapse.domain.errors import (
    Forbidden,
    LimitReached,
    SynapseError,
    Unauthenticated,
    Unavailable,
)
from synapse.domain.user import WRONG, Grant

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp.client import CognitoIdentityProviderClient

logger = logging.getLogger(__name__)

ANYBODYS = Config(signature_version=UNSIGNED)
"""For the client: signing in asks for no rights of the function's."""

SLOW_DOWN_S = 5

# A name of another form than names have is one that nobody has.
_WRONG = frozenset({"InvalidParameterException", "NotAuthorizedException", "UserNotFoundException"})
_TOO_MANY = frozenset({"TooManyFailedAttemptsException", "TooManyRequestsException"})

_CHALLENGES = {
    "NEW_PASSWORD_REQUIRED": "the password is a temporary one: choose another one first",
    "MFA_SETUP": "a second factor has to be set up first",
}
_ANOTHER_FACTOR = "a second factor is asked for, which this route does not take"


class CognitoAccounts:
    """See the port `SignIn`: users of a pool whose app client has no secret.

    The token is the ID token: a user's own attributes, of which the tenant is one, are in no other.
    """

    def __init__(self, client: CognitoIdentityProviderClient, client_id: str) -> None:
        self._client = client
        self._client_id = client_id

    async def sign_in(self, username: str, password: str) -> Grant:
        """See the port."""
        try:
            answer: Mapping[str, Any] = await call(
                self._client.initiate_auth,
                AuthFlow="USER_PASSWORD_AUTH",
                ClientId=self._client_id,
                AuthParameters={"USERNAME": username, "PASSWORD": password},
            )
        except ParamValidationError as error:
            raise Unauthenticated(WRONG) from error
        except ClientError as error:
            raise _as_ours(error) from error
        challenge = answer.get("ChallengeName")
        if challenge:
            raise Forbidden(
                f"{_CHALLENGES.get(challenge, _ANOTHER_FACTOR)} ({challenge})",
                code="login_challenge",
            )
        result = answer["AuthenticationResult"]
        return Grant(result["IdToken"], result["ExpiresIn"])


def _as_ours(error: ClientError) -> SynapseError:
    """What Cognito's refusal means. Its messages may repeat what was typed, so none is kept."""
    code = error_code(error)
    if code in _WRONG:
        return Unauthenticated(WRONG)
    if code in _TOO_MANY:
        return LimitReached(
            "too many logins; wait before the next one",
            retry_after_s=SLOW_DOWN_S,
            code="too_many_logins",
        )
    if code == "PasswordResetRequiredException":
        return Forbidden("the password has to be reset first", code="password_reset_required")
    if code == "UserNotConfirmedException":
        return Forbidden("the account has to be confirmed first", code="account_not_confirmed")
    logger.error("Cognito does not let anybody sign in: %s", code)
    return Unavailable("logging in is not possible at present; the log tells why")
