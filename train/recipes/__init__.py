"""Training recipes (YAML): a paper's settings a file."""
