"""records and sequences, one reader per published data set, splits, audits, curation, batches."""

from typing import TYPE_CHECKING, Any

if __name__ == "datasets":  # the bare folder on sys.path: somebody else's ``datasets`` may be meant
    raise ImportError("this folder is the room irstkit.datasets: import it as 'irstkit.datasets'")

if TYPE_CHECKING:
    from .readers import open_dataset
    from .records import Dataset, Finding, Record, split_hash

_HOMES = {
    "Dataset": "records",
    "Finding": "records",
    "Record": "records",
    "open_dataset": "readers",
    "split_hash": "records",
}
__all__ = ["Dataset", "Finding", "Record", "open_dataset", "split_hash"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
