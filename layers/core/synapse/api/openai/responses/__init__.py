"""POST /v1/responses: a conversation sent whole and answered by items; nothing of it is kept."""
