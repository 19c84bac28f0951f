"""One module a published layout; ``open_dataset`` finds which one a folder is."""
