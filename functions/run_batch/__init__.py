"""Lambda function: run_batch."""
