"""The Lambda functions: thin entry points over the library in the layer."""
