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

ECS_FEE = 1.12
"""On the price of an instance under ECS Managed Instances, whose pools are `gpu-ecs` and `neuron`.

Source: the pricing page of ECS, 2026-09: $0.037 an hour for c6a.2xlarge, which costs $0.306. E: the
same share for machines with accelerators, of which nothing is published.
"""

LAMBDA_FEE = 1.15
"""On the price of an instance under Lambda, the pool `gpu`. Source: Lambda pricing, 2026-09."""

USD_LAMBDA_GB_S = 0.0000133334
USD_LAMBDA_REQUEST = 0.20e-6
USD_PROVISIONED_GB_S = 0.0000033334
"""Of an environment that is provisioned, used or not."""

USD_PROVISIONED_RUN_GB_S = 0.0000077778
"""Of a run in one. Source of these four: the pricing page of Lambda (arm64, as the template has it,
and as the machine has whose speed is taken for that of a function; x86 is a quarter dearer)."""

USD_API_REQUEST = 3.50e-6
USD_SQS_REQUEST = 0.40e-6
USD_DYNAMO_WRITE = 0.625e-6
"""Of a write of 1 KiB; in a transaction, of half of one."""

USD_DYNAMO_READ = 0.125e-6
"""Of a consistent read of 4 KiB."""

USD_S3_PUT = 5.00e-6
USD_S3_GET = 0.40e-6
USD_EXPRESS_REQUEST = 1.00e-6
USD_EXPRESS_GB_S = 0.0000166667
"""Sources: the pricing pages of API Gateway (REST), SQS, DynamoDB, S3 and Step Functions, 2026."""

USD_ALARM_MONTH = 0.10
USD_DASHBOARD_MONTH = 3.00
USD_METRIC_MONTH = 0.30
"""Of CloudWatch; metrics are billed by the hour in which they are written."""
