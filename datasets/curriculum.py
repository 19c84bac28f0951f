"""A curriculum by SCR: training begins with the images whose faintest target stands out most.

Stage after stage the admitted SCR falls, until every image is admitted. Which images a batch may hold is a function
of its number, so that a run that resumes sees the batches of one that never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..annotate.errors import IrstkitError
from ..annotate.masks import mask_to_instances
from ..annotate.scr import measure_contrast
from .records import Record

if TYPE_CHECKING:
    from .batches import Pixels

STAGES = 8
START = 0.25  # share of the images that the first stage admits


def faintest(record: Record, image: NDArray, mask: NDArray) -> float:
    """The smallest SCR among an image's targets: infinite without targets, 0 where one is undefined.

    From the attributes ``scr_achieved`` where every target has one, else measured (ring 10, 8-connected
    components of the mask).
    """
    known = [t.get("scr_achieved", "") for t in record.attributes.get("targets", ())]
    if known and all(isinstance(v, (int, float)) for v in known):
        return float(min(known))
    instances = mask_to_instances(mask.astype(bool))
    found = measure_contrast(image, instances, mask=mask.astype(bool))
    return min((abs(c.scr) if c.scr is not None else 0.0 for c in found), default=float("inf"))


@dataclass(frozen=True)
class Curriculum:
    """Which images the first ``batches`` batches may hold.

    Parameters
    ----------
    scores
        (N,) smallest SCR of each image (:func:`faintest`).
    batches
        Length in batches; afterwards every image is admitted.
    start
        Share of the images with the largest scores that the first of :data:`STAGES` equal stages admits; the
        share rises evenly to 1, which is reached when the curriculum ends.
    """

    scores: NDArray[np.float64]
    batches: int
    start: float = START
    order: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        if self.batches < 1 or not 0 < self.start <= 1:
            raise IrstkitError(
                f"a curriculum has at least 1 batch and a start above 0, up to 1: {self.batches}, {self.start}"
            )
        # most first, equal ones in the order of the records; images without targets evenly among them
        rank = np.zeros(len(self.scores))
        for group in (np.isfinite(self.scores), ~np.isfinite(self.scores)):
            members = np.flatnonzero(group)
            members = members[np.argsort(-self.scores[members], kind="stable")]
            rank[members] = (np.arange(len(members)) + 0.5) / max(len(members), 1)
        object.__setattr__(self, "order", np.argsort(rank, kind="stable"))

    def stage(self, batch: int) -> tuple[int, int, int] | None:
        """Number of the stage of a batch, its first batch, and how many images it admits; None at the end."""
        if batch >= self.batches:
            return None
        number = batch * STAGES // self.batches
        first = -(-number * self.batches // STAGES)
        share = self.start + (1 - self.start) * number / STAGES
        return number, first, max(1, round(share * len(self.scores)))

    def threshold(self, batch: int) -> float:
        """The smallest SCR that is admitted; infinite while no image with targets is."""
        found = self.stage(batch)
        return float(self.scores[self.order[: found[2] if found else None]].min())


def curriculum_of(records: Sequence[Record], pixels: Pixels, batches: int) -> Curriculum:
    """The curriculum of a training set, over its first ``batches`` batches."""
    scores = [faintest(r, pixels.image(k), pixels.mask(k)) for k, r in enumerate(records)]
    return Curriculum(np.array(scores), batches)
