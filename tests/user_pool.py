"""People who log in: a Cognito user pool in an emulator, made of the template's own properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.infra.translation import ROOT, read

if TYPE_CHECKING:
    from mypy_boto3_cognito_idp.client import CognitoIdentityProviderClient

PASSWORD = "Correct-horse-1"
REGION = "us-east-1"
POOL_PROPERTIES = ("Schema", "UsernameConfiguration", "AdminCreateUserConfig", "Policies")


@dataclass(frozen=True)
class UserPool:
    """A pool, its client for logging in, and what administers it."""

    cognito: CognitoIdentityProviderClient
    id: str
    client_id: str

    @property
    def issuer(self) -> str:
        return f"https://cognito-idp.{REGION}.amazonaws.com/{self.id}"

    def add(self, name: str, tenant: str, *groups: str, permanent: bool = True) -> None:
        """Make somebody, as an administrator does."""
        self.cognito.admin_create_user(
            UserPoolId=self.id,
            Username=name,
            TemporaryPassword=PASSWORD,
            UserAttributes=[{"Name": "custom:tenant", "Value": tenant}],
        )
        if permanent:
            self.cognito.admin_set_user_password(
                UserPoolId=self.id, Username=name, Password=PASSWORD, Permanent=True
            )
        for group in groups:
            self._make(group)
            self.cognito.admin_add_user_to_group(UserPoolId=self.id, Username=name, GroupName=group)

    def _make(self, group: str) -> None:
        known = self.cognito.list_groups(UserPoolId=self.id)["Groups"]
        if group not in [each["GroupName"] for each in known]:
            self.cognito.create_group(UserPoolId=self.id, GroupName=group)


def new_pool(cognito: CognitoIdentityProviderClient) -> UserPool:
    """A pool without anybody in it."""
    resources = read(ROOT / "infra" / "users.yaml")["Resources"]
    properties = resources["Pool"]["Properties"]
    client = dict(resources["Client"]["Properties"])
    del client["UserPoolId"]
    made: Any = cognito.create_user_pool(
        PoolName="people", **{name: properties[name] for name in POOL_PROPERTIES}
    )
    pool_id = made["UserPool"]["Id"]
    app = cognito.create_user_pool_client(UserPoolId=pool_id, **client)
    return UserPool(cognito, pool_id, app["UserPoolClient"]["ClientId"])
