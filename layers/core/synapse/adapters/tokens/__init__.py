"""Signed tokens: keys of issuers, and whether a token is good."""
