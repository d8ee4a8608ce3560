"""Synapse beside the systems one would take instead, over the same engines and models."""
