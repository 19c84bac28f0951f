"""models, losses, metrics, the training loop, evaluation, prediction and benchmarks."""

if __name__ == "train":  # the bare folder on sys.path: somebody else's ``train`` may be meant
    raise ImportError("this folder is the room irstkit.train: import it as 'irstkit.train'")

import os

# Idle OpenMP threads sleep instead of spinning: on cores shared with another process (a second run, a cluster
# node) spinning made SD2Net's forward pass six times slower (measured on 2 cores). Read once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
