"""One small application for each peer, as its documentation says; run in its own process."""
