"""records and sequences, one reader per published data set, splits, audits, curation, batches."""

if __name__ == "datasets":  # the bare folder on sys.path: somebody else's ``datasets`` may be meant
    raise ImportError("this folder is the room irstkit.datasets: import it as 'irstkit.datasets'")
