"""What is remembered beside a pushed data set: what every image and label was when it was pushed, and edits.

Three collections in FiftyOne's own database, so that they live and die with it: ``irstkit.baseline.<id>`` (a
document an image) and ``irstkit.log.<id>`` (a document an edit of our operators, with its inverse), ``irstkit.aside.<id>`` (a mask a document).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ...annotate.errors import IrstkitError
from ..service import load
from .sources import Entry

INFO = "irstkit"
"""The key of the data set's ``info`` that holds the sources and whether the last push finished."""
FIELD = "ground_truth"


@contextmanager
def database_errors(doing: str) -> Iterator[None]:
    """A lost database becomes one clear error."""
    load()
    from pymongo.errors import BulkWriteError

    try:
        yield
    except IrstkitError:
        raise
    except BulkWriteError as error:
        first = (error.details or {}).get("writeErrors", [{}])[0].get("errmsg", error)
        raise IrstkitError(f"the database refused a write while {doing}: {str(first)[:300]}") from error
    except Exception as error:
        cause = _of_database(error)
        if cause is None:
            raise
        if not isinstance(cause, ConnectionError) and "onnect" not in f"{type(cause).__name__} {cause}":
            raise IrstkitError(f"the database failed while {doing}: {str(cause)[:300]}") from error
        raise IrstkitError(
            f"the database was lost while {doing}",
            hint="nothing is half-written: run the same command again, it goes on from here",
        ) from error


def _of_database(error: BaseException | None) -> BaseException | None:
    """The database's own error that an error is, or was made from (FiftyOne wraps some)."""
    from mongoengine.errors import OperationError
    from pymongo.errors import PyMongoError

    while error is not None and not isinstance(error, (PyMongoError, OperationError, ConnectionError)):
        error = error.__cause__ or error.__context__
    return error


def database() -> Any:
    """pymongo's handle of FiftyOne's database."""
    fo = load()
    return fo.core.odm.get_db_conn()


def key_of(dataset: Any) -> str:
    """The id under which a data set's collections are kept."""
    return str(dataset._doc.id)


def baseline(dataset: Any) -> Any:
    """The collection of what was pushed: ``_id`` is the entry's key."""
    return database()[f"irstkit.baseline.{key_of(dataset)}"]


def edit_log(dataset: Any) -> Any:
    """The collection of our operators' edits, in order."""
    return database()[f"irstkit.log.{key_of(dataset)}"]


def aside(dataset: Any) -> Any:
    """The collection of masks set aside so that boxes can be moved: ``_id`` is the label's."""
    return database()[f"irstkit.aside.{key_of(dataset)}"]


def masks_aside(dataset: Any) -> dict[Any, dict[str, Any]]:
    """``{label id: {mask, box}}`` of all masks set aside."""
    return {row["_id"]: row for row in aside(dataset).find()}


def samples(dataset: Any) -> Any:
    """The collection of a data set's samples, as stored."""
    return database()[dataset._sample_collection_name]


def sweep() -> int:
    """Drop what is remembered of data sets that were deleted since; how many collections."""
    known = {str(doc["_id"]) for doc in database()["datasets"].find({}, {"_id": 1})}
    gone = [
        name
        for name in database().list_collection_names(filter={"name": {"$regex": r"^irstkit\."}})
        if name.rpartition(".")[2] not in known
    ]
    for name in gone:
        database().drop_collection(name)
    return len(gone)


def open_curated(name: str) -> Any:
    """The pushed data set ``name``.

    Raises
    ------
    IrstkitError
        When there is none of this name, or it was not pushed by irstkit.
    """
    fo = load()
    with database_errors("looking for the data set"):
        names = fo.list_datasets()
        if name not in names:
            known = ", ".join(names) or "none"
            raise IrstkitError(f"no data set {name!r} in FiftyOne", hint=f"there are: {known}")
        dataset = fo.load_dataset(name)
        if INFO not in (dataset.info or {}):
            raise IrstkitError(
                f"the data set {name!r} was not pushed by irstkit",
                hint="irstkit data curate PATH --name NAME",
            )
    return dataset


# ------------------------------------------------------------------------------- states of labels


def pack(mask: np.ndarray | None) -> bytes | None:
    """A mask as the database keeps it."""
    if mask is None:
        return None
    from fiftyone.core.utils import serialize_numpy_array

    return bytes(serialize_numpy_array(np.ascontiguousarray(mask), ascii=False))


def unpack(stored: Any) -> np.ndarray | None:
    """A stored mask as a (h, w) boolean array (probabilities and brush grays count from one half)."""
    if stored is None:
        return None
    from fiftyone.core.utils import deserialize_numpy_array

    mask = np.asarray(deserialize_numpy_array(bytes(stored), ascii=False))
    if mask.dtype == bool:
        return mask
    return mask >= (0.5 if mask.dtype.kind == "f" else 128 if mask.max(initial=0) > 1 else 1)


def hash_bytes(stored: Any) -> str | None:
    """Of a stored mask."""
    return None if stored is None else hashlib.md5(bytes(stored)).hexdigest()


def hash_mask(mask: np.ndarray | None) -> str | None:
    """Of a mask's shape and pixels, however it is stored."""
    if mask is None:
        return None
    return hashlib.md5(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def detection_document(box: list[float], mask: bytes | None, values: dict[str, Any]) -> dict[str, Any]:
    """A label as FiftyOne stores it: ``box`` is x, y, w, h as fractions, ``mask`` is packed."""
    from bson import ObjectId

    document: dict[str, Any] = {"_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": []}
    document |= {"label": "target", "bounding_box": box}
    if mask is not None:
        document["mask"] = mask
    return {**document, **values}


def insert_samples(dataset: Any, documents: list[dict[str, Any]]) -> None:
    """Insert samples whose fields are declared, as they are stored.

    FiftyOne's own ``add_samples`` makes three objects of each label on the way (2 ms an image against 0.1);
    a test holds what is written here against what it writes.
    """
    from bson import ObjectId

    now = datetime.now(UTC).replace(tzinfo=None)
    for document in documents:
        draw = hashlib.md5(document["filepath"].encode()).digest()
        document |= {
            "_id": ObjectId(), "_media_type": "image", "_dataset_id": dataset._doc.id,
            "_rand": 0.999 + int.from_bytes(draw[:6], "little") / 2**48 * 0.001,
            "created_at": now, "last_modified_at": now,
        }  # fmt: skip
        for key in [key for key, value in document.items() if value is None]:
            del document[key]
    samples(dataset).insert_many(documents, ordered=True)


def put_all(collection: Any, documents: Iterable[dict[str, Any]]) -> None:
    """Insert or replace documents by their ``_id``."""
    from pymongo import ReplaceOne

    writes = [ReplaceOne({"_id": d["_id"]}, d, upsert=True) for d in documents]
    if writes:
        collection.bulk_write(writes, ordered=False)


def reposition(collection: Any, source: str, entries: Iterable[Entry]) -> None:
    """Bring up to date where images and annotations stand in a file whose other lines have changed."""
    known = {d["_id"]: d["at"] for d in collection.find({"set": source}, {"at": 1})}
    moved = {e.key: e for e in entries if e.key in known and known[e.key] != e.place()}
    documents = []
    for base in collection.find({"_id": {"$in": list(moved)}}):
        entry = moved[base["_id"]]
        if entry.positions:
            for label, place in zip(base["labels"], entry.positions, strict=True):
                label["pos"] = place
        documents.append({**base, "at": entry.place(), "order": entry.order})
    put_all(collection, documents)


def canonical(value: Any) -> str:
    """JSON with sorted keys, to compare values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
