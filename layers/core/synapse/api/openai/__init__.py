"""OpenAI's API: the routes under /v1 that its clients know."""
