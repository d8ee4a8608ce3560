"""What is prepared for one kind of accelerator before a model is served on it."""
