"""Lambda function: announce."""
