"""irstkit: infrared small-target detection, from backgrounds to trusted numbers.

The rooms are sub-packages: :mod:`irstkit.annotate` (masks, boxes, label formats),
:mod:`irstkit.datasets` (records, readers, splits, audits), :mod:`irstkit.synth` (synthetic images) and
:mod:`irstkit.train` (models, losses, metrics, training). Nothing is imported here, so that
``import irstkit`` costs nothing and needs none of the extras.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("irstkit")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
