"""A file a paper: the networks, by name."""
