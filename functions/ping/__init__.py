"""Lambda function: ping."""
