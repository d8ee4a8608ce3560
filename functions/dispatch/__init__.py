"""Lambda function: dispatch."""
