"""The files that join a set's parts: annotations.json, manifest.jsonl, split lists; written and read a line at a time.

So memory does not grow with the set: annotations wait in a file beside the parts until all images are written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from ..annotate.coco import CATEGORY
from ..annotate.errors import IrstkitError
from ..annotate.files import atomic_path

SCHEME = "synth"


class JoinedFiles:
    """Context manager: the files appear when it ends, the manifest last: its presence says that the set is whole."""

    def __init__(self, root: Path, splits: Iterable[str], info: dict[str, Any]) -> None:
        self.root, self.splits, self.info = root, list(splits), info
        self.images = self.annotations = 0

    def __enter__(self) -> JoinedFiles:
        self._waiting = self.root / "parts" / "annotations.txt"
        with ExitStack() as stack:

            def opened(path: Path) -> TextIO:
                there = stack.enter_context(atomic_path(path))
                return stack.enter_context(there.open("w", encoding="utf-8", newline="\n"))

            # they come to lie there last first
            self._manifest = opened(self.root / "manifest.jsonl")
            self._lists = {p: opened(self.root / "splits" / SCHEME / f"{p}.txt") for p in self.splits}
            self._coco = opened(self.root / "annotations.json")
            self._aside = stack.enter_context(self._waiting.open("w+", encoding="utf-8", newline="\n"))
            head = (
                f'{{"info": {dump(self.info)}, "licenses": [], "categories": [{dump(CATEGORY)}], "images": ['
            )
            self._coco.write(head)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is None:
            try:
                self._coco.write('],\n"annotations": [')
                self._aside.seek(0)
                shutil.copyfileobj(self._aside, self._coco)
                self._coco.write("]}\n")
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        handled = self._stack.__exit__(*error)
        self._waiting.unlink(missing_ok=True)
        return handled

    def image(self, image: dict[str, Any], annotations: list[dict[str, Any]], part: str) -> None:
        """Add an image, its targets, and its id to its part's list; ids are counted here."""
        self.images += 1
        self._coco.write(("" if self.images == 1 else ",") + "\n" + dump({"id": self.images, **image}))
        for annotation in annotations:
            self.annotations += 1
            text = dump({"id": self.annotations, "image_id": self.images, **annotation})
            self._aside.write(("" if self.annotations == 1 else ",") + "\n" + text)
        self._lists[part].write(image["file_name"].rpartition(".")[0] + "\n")

    def manifest(self, line: dict[str, Any]) -> None:
        """Add a line to manifest.jsonl."""
        self._manifest.write(dump(line) + "\n")


def dump(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def edited(root: Path) -> IrstkitError:
    """What is said of a finished set that cannot be continued."""
    return IrstkitError(
        "annotations.json and manifest.jsonl are not as they were written: not continued",
        path=root,
        hint="they were edited since; choose another --out",
    )


def read_joined(root: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Image after image of a finished set, without its id, and its annotations, without theirs.

    Raises
    ------
    IrstkitError
        When annotations.json is not as :class:`JoinedFiles` writes it.
    """
    path = root / "annotations.json"
    try:
        with path.open(encoding="utf-8") as images, path.open(encoding="utf-8") as annotations:
            next(images)
            while not next(annotations).startswith('"annotations": ['):
                pass
            pending = _object(next(annotations, ""))
            while (image := _object(next(images, ""))) is not None:
                number, own = image.pop("id"), []
                while pending is not None and pending["image_id"] == number:
                    own.append({k: v for k, v in pending.items() if k not in ("id", "image_id")})
                    pending = _object(next(annotations, ""))
                yield image, own
            if pending is not None:
                raise edited(root)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise edited(root) from error


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object at a line's beginning; None where there is none."""
    return _DECODER.raw_decode(line)[0] if line.startswith("{") else None


_DECODER = json.JSONDecoder()
