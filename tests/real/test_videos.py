"""drone-ir: eight real infrared videos, read where they lie."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from irstkit.datasets.clips import Clips
from irstkit.datasets.readers import open_dataset


def test_drone_ir(shared_data):
    root = shared_data("drone-ir")
    data = open_dataset(root)
    assert (data.layout, len(data), data.findings) == ("drone-ir", 2482, ())
    assert data.schemes() == {"by_scene": {"train": 1537, "test": 945}}
    parts = Counter((r.sequence, r.splits["by_scene"]) for r in data)
    assert len(parts) == 8 and Counter(part for _, part in parts) == {"train": 5, "test": 3}
    rows = json.loads((root / "boxes_xywh_per_frame.json").read_text())
    box = np.array(rows["IR_DRONE_155"][312])
    record = next(r for r in data if r.id == "IR_DRONE_155/000312")
    np.testing.assert_allclose(record.read_boxes()[0], [*(box[:2] - 1), *(box[:2] - 1 + box[2:])])
    test = [r for r in data.part("test") if (r.frame or 0) < 3]
    clips = Clips(test, 5, 2, "target")
    assert clips.windows[3].tolist() == [3, 3, 3, 4, 5]
    assert all(image.shape == (256, 320) for image in clips.images)
