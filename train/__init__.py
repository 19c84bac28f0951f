"""models, losses, metrics, the training loop, evaluation, prediction and benchmarks."""

if __name__ == "train":  # the bare folder on sys.path: somebody else's ``train`` may be meant
    raise ImportError("this folder is the room irstkit.train: import it as 'irstkit.train'")
