"""Lambda function: deliver."""
