"""What AWS charges: us-east-1, on demand, in USD, looked up 2026-11; the sources stand beside it.

Free tiers, taxes, data transfer and logs are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

USD_HOUR: Mapping[str, float] = {
    "c7g.xlarge": 0.145,
    "g4dn.xlarge": 0.526,
    "g6.xlarge": 0.8048,
    "g5.xlarge": 1.006,
    "inf2.xlarge": 0.7582,
}
"""Source: the AWS price list of 2026-07-20, as Karpenter publishes it.

SageMaker's ml.g5.xlarge is told to cost $1.41 an hour (zircon.tech, 2025-10), 40 % more than the
same machine on EC2; what is said here of an endpoint that is always on is by EC2's price.
"""

MANAGED_INSTANCE_FEE = 1.15
"""On the price of an instance under Lambda. Source: Lambda pricing, 2026-09."""

USD_LAMBDA_GB_S = 0.0000166667
USD_LAMBDA_REQUEST = 0.20e-6
USD_PROVISIONED_GB_S = 0.0000041667
"""Of an environment that is provisioned, used or not."""

USD_PROVISIONED_RUN_GB_S = 0.0000097222
"""Of a run in one. Source of these four: the pricing page of Lambda (x86)."""

USD_API_REQUEST = 3.50e-6
USD_SQS_REQUEST = 0.40e-6
USD_DYNAMO_WRITE = 0.625e-6
USD_DYNAMO_READ = 0.125e-6
USD_EXPRESS_REQUEST = 1.00e-6
USD_EXPRESS_GB_S = 0.0000166667
"""Sources: the pricing pages of API Gateway (REST), SQS, DynamoDB and Step Functions, 2026."""
