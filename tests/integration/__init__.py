"""A package, so that those within it are known by their full names."""
