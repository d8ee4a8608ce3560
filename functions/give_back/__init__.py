"""Lambda function: give_back."""
