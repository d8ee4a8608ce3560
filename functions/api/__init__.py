"""Lambda function: api."""
