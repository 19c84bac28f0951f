"""Synthetic sequences: targets on tracks before a background that moves as a camera's view does."""
