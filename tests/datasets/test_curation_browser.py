"""The App in a headless Chromium: what people see and do, checked in the database and in the pulled file.

Skipped where Chromium or playwright is missing. CHROMIUM names the program where it is not on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest

from irstkit.annotate.rle import decode_rle, encode_mask
from irstkit.datasets.curation import store
from irstkit.datasets.curation.pull import pull

HEIGHT, WIDTH = 200, 256
TARGET = (16, 12)
WAIT = 60_000
FLAGS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]  # fmt: skip


def place(k: int) -> tuple[int, int]:
    return 40 + 4 * k, 80 + 2 * k


@pytest.fixture(scope="module")
def page(fo, tmp_path_factory):
    """A page on the App with two sequences of eight frames; the data set is ``page.dataset``."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium on the PATH (or CHROMIUM=/path/to/it)")
    from irstkit.datasets.curation import app
    from irstkit.datasets.curation.push import finish, push
    from irstkit.datasets.curation.sources import open_sources
    from irstkit.datasets.curation.views import saved_views

    root = tmp_path_factory.mktemp("browser") / "watched"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)), (0, 0), 12) * 900 + 110
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    for k in range(16):
        image, mask = base + rng.normal(0, 3, base.shape), np.zeros(base.shape, bool)
        x, y = place(k)
        mask[y : y + TARGET[1], x : x + TARGET[0]] = True
        image[mask] += 80
        name = f"images/{k:03d}.png"
        cv2.imwrite(str(root / name), image.clip(0, 255).astype(np.uint8))
        coco["images"].append({"id": k + 1, "file_name": name, "width": WIDTH, "height": HEIGHT,
                               "sequence": f"s{k // 8}", "frame": k % 8})  # fmt: skip
        coco["annotations"].append({"id": k + 1, "image_id": k + 1, "category_id": 1, "iscrowd": 0, "bbox": [x, y, *TARGET],
                                    "area": int(mask.sum()), "segmentation": encode_mask(mask)})  # fmt: skip
    (root / "annotations.json").write_text(json.dumps(coco))
    dataset, _, _ = push(open_sources([root]), "watched")
    saved_views(dataset)
    finish(dataset)
    session = app.launch(dataset, wait=False)
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(WAIT)
        page.dataset, page.root, page.coco = dataset, root, coco
        page.address = f"http://127.0.0.1:{session.server_port}/datasets/watched"
        page.goto(page.address)
        page.wait_for_selector("[data-cy=looker] canvas")
        page.get_by_text("Dismiss").click()
        yield page
        browser.close()
    session.close()
    fo.delete_dataset("watched")


def cyan(png: bytes) -> np.ndarray:
    """Where a screenshot is of the labels' colour (a blend with gray keeps the hue)."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    blue, green, red = image[..., 0], image[..., 1], image[..., 2]
    return (blue - red > 40) & (green - red > 40)


def open_first(page, view: str = "frames") -> None:
    page.goto(f"{page.address}?view={view}")
    page.wait_for_selector("[data-cy=looker] canvas")
    page.locator("[data-cy=looker]").first.click()
    page.wait_for_selector("[data-cy=modal]")


def run_operator(page, label: str) -> None:
    """Through the list of operators, as a user does it."""
    page.locator("[data-cy=modal] [data-cy=action-browse-operations]").click()
    box = page.get_by_placeholder(re.compile("search operations", re.IGNORECASE))
    box.fill(label)
    box.press("Enter")


def until(page, check, what: str):
    """Wait for the database, not for a time: the page goes on meanwhile."""
    for _ in range(600):
        found = check()
        if found:
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"never happened: {what}")


def stored(page, record: str) -> dict:
    return store.samples(page.dataset).find_one({"record_id": record})


def test_the_grid_shows_boxes_and_masks(page):
    tile = page.locator("[data-cy=looker]").first
    until(page, lambda: cyan(tile.screenshot()).any(), "labels in the grid")
    shot = tile.screenshot()
    found = cyan(shot)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    scale = found.shape[1] / WIDTH
    x, y = place(0)
    offset = (found.shape[0] - HEIGHT * scale) / 2
    drawn = np.array([columns[0], rows[0] - offset, columns[-1] + 1, rows[-1] + 1 - offset]) / scale
    assert drawn == pytest.approx([x, y, x + TARGET[0], y + TARGET[1]], abs=4)
    inside = found[rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1]
    assert inside.mean() > 0.9, "a box without its mask"


def test_a_sequence_plays(page):
    open_first(page, "sequences")
    assert page.locator("[data-cy=looker]").count() >= 2
    page.locator("[data-cy=action-display-options]").last.click()
    page.locator("[data-cy='tab-option-Video']").click()
    page.wait_for_selector("[data-cy=imavid-status-indicator]")
    status = page.locator("[data-cy=imavid-status-indicator]")
    # a click before the App knows of any frame ("-1 / 0") plays nothing
    until(page, lambda: not status.inner_text().rstrip().endswith("/ 0"), "the sequence has frames")
    before = status.inner_text()
    page.locator("[data-cy=imavid-playhead]").click()
    seen = {before}
    until(page, lambda: seen.add(status.inner_text()) or len(seen) > 3, f"frames go by, seen {seen}")


def test_an_operator_runs(page):
    open_first(page)
    first = page.dataset.first()["record_id"]
    assert stored(page, first)["reviewed"] is False
    run_operator(page, "irstkit: Mark reviewed")
    until(page, lambda: stored(page, first)["reviewed"], "the image is marked as reviewed")


def drag(page, view: str, frame: int) -> tuple[int, int]:
    """Move the box of the view's first image, which is frame number ``frame``; by how many whole pixels."""
    record = f"images/{frame:03d}"
    open_first(page, view)
    page.locator("[data-cy=annotate]").click()
    canvas = page.locator("[data-cy=lighter-sample-renderer-canvas]")
    until(page, lambda: cyan(canvas.screenshot()).any(), "the box in the canvas")
    area = canvas.bounding_box()
    scale = min(area["width"] / WIDTH, area["height"] / HEIGHT)
    x, y = place(frame)
    middle = (
        area["x"] + (area["width"] - scale * WIDTH) / 2 + (x + TARGET[0] / 2) * scale,
        area["y"] + (area["height"] - scale * HEIGHT) / 2 + (y + TARGET[1] / 2) * scale,
    )
    before = stored(page, record)["ground_truth"]["detections"][0]["bounding_box"]
    page.mouse.click(*middle)
    page.wait_for_timeout(300)
    page.mouse.move(*middle)
    page.mouse.down()
    for k in range(1, 11):
        page.mouse.move(middle[0] + 0.53 * k * scale, middle[1] + 0.31 * k * scale)
        page.wait_for_timeout(20)
    page.mouse.up()

    def saved() -> bool:  # the App saves x and y one after the other
        box = stored(page, record)["ground_truth"]["detections"][0]["bounding_box"]
        return box[0] != before[0] and box[1] != before[1]

    until(page, saved, "the move is saved")
    now = stored(page, record)["ground_truth"]["detections"][0]["bounding_box"]
    moved = (now[0] - before[0]) * WIDTH, (now[1] - before[1]) * HEIGHT
    assert moved == pytest.approx((5.3, 3.1), abs=0.7)
    dx, dy = (int(np.floor(v + 0.5)) for v in moved)
    return dx, dy


def test_a_box_moved_with_the_mouse_is_in_the_database_and_in_the_pulled_file(page):
    open_first(page)
    first = page.dataset.first()["record_id"]
    run_operator(page, "irstkit: Move box")
    until(
        page, lambda: "mask" not in stored(page, first)["ground_truth"]["detections"][0], "the mask set aside"
    )
    dx, dy = drag(page, "frames", 0)

    (one,) = pull("watched")[1]
    number = next(i["id"] for i in page.coco["images"] if i["file_name"].startswith(first))
    assert one.document["images"] == page.coco["images"]
    for was, is_now in zip(page.coco["annotations"], one.document["annotations"], strict=True):
        if was["image_id"] != number:
            assert is_now == was
            continue
        x, y, w, h = was["bbox"]
        assert is_now["bbox"] == [x + dx, y + dy, w, h]
        shifted = np.roll(decode_rle(was["segmentation"]), (dy, dx), (0, 1))
        assert (decode_rle(is_now["segmentation"]) == shifted).all()
        assert {k for k in was if was[k] != is_now[k]} == {"bbox", "segmentation"}
