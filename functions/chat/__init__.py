"""Lambda function: chat."""
