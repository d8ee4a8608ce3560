"""A discrete-event model of the AWS target that runs the real domain policies."""
