"""Lambda function: authorize."""
