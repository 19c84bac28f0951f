"""A FiftyOne of the tests' own: its database dies with the test process and never is the user's."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from irstkit.annotate.rle import encode_mask


@pytest.fixture(scope="session")
def fo(tmp_path_factory):
    """The ``fiftyone`` module on a database of its own; a skip that says what is missing."""
    if importlib.util.find_spec("fiftyone") is None:
        pytest.skip("needs the package fiftyone (pip install 'irstkit[fiftyone]')")
    from irstkit.datasets.database import find_database
    from irstkit.datasets.service import isolate

    database = find_database()
    if database is None or database.kind == "uri":
        pytest.skip("needs a mongod of its own (irstkit doctor --install-database)")
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # FiftyOne takes its home at import; the other tests keep theirs
        patch.setenv("HOME", os.environ.get("HOME", ""))
        isolate(tmp_path_factory.mktemp("fiftyone"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import fiftyone
    return fiftyone


@pytest.fixture
def make_own(tmp_path):
    """``make_own(count, folder=...)``: irstkit's layout with unknown keys, sequences, tracks, odd attributes."""

    def make(count: int = 6, *, folder: str = "own", box_only: bool = False, sequences: int = 0) -> Path:
        rng = np.random.default_rng(3)
        root = tmp_path / folder
        (root / "images").mkdir(parents=True)
        height, width = 40, 56
        coco: dict = {
            "info": {"about": "made for a test", "note": [1, 2]}, "licenses": [{"id": 7, "name": "none"}],
            "categories": [{"id": 1, "name": "target"}], "extra": {"kept": True}, "images": [], "annotations": [],
        }  # fmt: skip
        for k in range(count):
            image = rng.normal(100, 3, (height, width)) + np.linspace(0, 60, width)
            sequence = {"sequence": f"s{k % sequences}", "frame": k // sequences} if sequences else {}
            name = f"images/{k:06d}.png"
            entry = {"id": 10 + k, "file_name": name, "width": width, "height": height, "source": "synthetic",
                     "scene": "sea", "odd": {"a": k}, **sequence}  # fmt: skip
            coco["images"].append(entry)
            mask = np.zeros((height, width), bool)
            for n in range(1 + k % 2):
                y, x = 6 + 3 * n + (k * 5) % 20, 6 + 24 * n + (k * 3) % 12
                mask[:] = False
                mask[y : y + 3, x : x + 4] = True
                mask[y, x] = n == 0
                image[mask] += 60
                number = len(coco["annotations"]) + 5
                attributes = {
                    "kind": "point",
                    "scr_achieved": 5.25,
                    "x": x + 1.5,
                    "y": y + 1.0,
                    "odd key!": [1, {"b": 2}],
                }
                label = {"id": number, "image_id": 10 + k, "category_id": 1, "iscrowd": 0, "track_id": n,
                         "bbox": [x, y, 4, 3], "area": int(mask.sum()), "mine": None, "attributes": attributes}  # fmt: skip
                if box_only:
                    label |= {"bbox": [x + 0.25, y - 0.5, 3.5, 3.75], "area": 3.5 * 3.75, "segmentation_source": "box",
                              "segmentation": [[x + 0.25, y - 0.5, x + 3.75, y - 0.5, x + 3.75, y + 3.25, x + 0.25, y + 3.25]]}  # fmt: skip
                else:
                    label["segmentation"] = encode_mask(mask)
                coco["annotations"].append(label)
            cv2.imwrite(str(root / name), np.clip(image, 0, 255).astype(np.uint8))
        coco["annotations"].reverse()  # the file's order is not the images'
        (root / "annotations.json").write_text(json.dumps(coco))
        return root

    return make


@pytest.fixture
def pushed(fo):
    """``pushed(name, *folders)``: push and give the FiftyOne data set; deleted afterwards."""
    from irstkit.datasets.curation.push import finish, push
    from irstkit.datasets.curation.sources import open_sources
    from irstkit.datasets.curation.views import saved_views

    names = []

    def run(name: str, *folders: Path, views: bool = False):
        dataset, result, touched = push(open_sources(list(folders)), name)
        if touched and views:
            saved_views(dataset)
        finish(dataset)
        dataset.reload()
        names.append(name)
        return dataset, result

    yield run
    for name in set(names) & set(fo.list_datasets()):
        fo.delete_dataset(name)
