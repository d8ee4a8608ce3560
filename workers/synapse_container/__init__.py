"""A worker in a container on AWS: an agent and its Triton, alone (ECS) or behind a runner."""
