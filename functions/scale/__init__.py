"""Lambda function: scale."""
