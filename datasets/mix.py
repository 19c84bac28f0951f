"""Real fraction F of total N: which real and which synthetic images one run trains on."""

from __future__ import annotations

from collections.abc import Sequence

from ..annotate.errors import IrstkitError
from .records import Record
from .splits import hash_order


def mix(
    real: Sequence[Record],
    synthetic: Sequence[Record],
    fraction: float | str,
    total: int | None = None,
    seed: int = 0,
) -> list[Record]:
    """Draw round(F N) real and N - round(F N) synthetic images without replacement.

    For one seed the draws are nested: the real images of a smaller fraction (or total) are among those of a
    larger one, and likewise the synthetic ones. The draw goes by a hash of the ids, so that it does not
    depend on the order of the records.

    Parameters
    ----------
    real, synthetic
        The training lists to draw from.
    fraction
        F in 0..1, or ``"real"``: all real images and no synthetic one (``total`` is not used then).
    total
        N, the number of images to train on.
    seed
        Of both draws.

    Returns
    -------
    The real images, then the synthetic ones, each in hash order.

    Raises
    ------
    IrstkitError
        When there are fewer images than the fraction asks for, naming both numbers.
    """
    if fraction == "real":
        if not real:
            raise IrstkitError("a run on all real images, but there is none")
        return [real[k] for k in hash_order([r.id for r in real], seed)]
    try:
        share = float(fraction)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise IrstkitError(f"a real fraction lies between 0 and 1 or is 'real', got {fraction!r}")
    if total is None or total < 1:
        raise IrstkitError(f"the total number of images is at least 1, got {total}")
    wanted = round(share * total)
    chosen: list[Record] = []
    for kind, records, count in (("real", real, wanted), ("synthetic", synthetic, total - wanted)):
        if count > len(records):
            raise IrstkitError(
                f"real fraction {share:g} of {total} needs {count} {kind} images, there are {len(records)}",
                hint="a smaller total, another fraction or more images",
            )
        chosen += [records[k] for k in hash_order([r.id for r in records], seed)[:count]]
    return chosen
