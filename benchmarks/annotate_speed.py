"""Masks to COCO, side by side: irstkit, scikit-image, scipy.ndimage, pycocotools, FiftyOne, supervision.

    python benchmarks/annotate_speed.py MASKS_DIR [MASKS_DIR ...] [--repeats 7] [--out FILE]

Everyone gets the same mask files and writes one COCO file (an RLE, pixel area and box a target, where the
library can). One process, one thread. The runs are interleaved, so that a busy machine slows all of them; the
figure is the smallest processor time of a run (wall time is reported too), and its ratio to decoding the same
files with ``cv2.imread`` alone. Before anything is timed, results are compared target by target: boxes, areas
and pixels. Libraries that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
warnings.filterwarnings("ignore")

Job = Callable[[list[Path], Path], None]


def decode_only(files: list[Path], out: Path) -> None:
    for file in files:
        cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


def decode_strictly(files: list[Path], out: Path) -> None:
    from irstkit.annotate.files import read_mask

    for file in files:
        read_mask(file)


def ours(files: list[Path], out: Path) -> None:
    from irstkit.annotate.convert import convert
    from irstkit.annotate.labels import WriteOptions

    convert(files[0].parent, out, to="coco", source_format="masks", write=WriteOptions(overwrite=True))


def ours_polygons(files: list[Path], out: Path) -> None:
    from irstkit.annotate.convert import convert
    from irstkit.annotate.labels import WriteOptions

    options = WriteOptions(overwrite=True, polygons=True)
    convert(files[0].parent, out, to="coco", source_format="masks", write=options)


def read(file: Path) -> np.ndarray:
    """What a careful user of the other libraries would write: no check for damaged files."""
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED) > 127


def coco(
    files: list[Path], out: Path, targets: Callable[[np.ndarray], list[tuple[list[int], int, dict]]]
) -> None:
    """A COCO file of ``targets(mask)`` = [(bbox, area, RLE)]."""
    document: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    for image_id, file in enumerate(files, 1):
        mask = read(file)
        size = {"height": mask.shape[0], "width": mask.shape[1]}
        document["images"].append({"id": image_id, "file_name": file.name, **size})
        for box, area, rle in targets(mask):
            rle = {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode()}
            row = {
                "id": len(document["annotations"]) + 1,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
            }
            document["annotations"].append({**row, "bbox": box, "area": area, "segmentation": rle})
    out.write_text(json.dumps(document))


def full(labels: np.ndarray, number: int) -> dict:
    return coco_mask.encode(np.asfortranarray(labels == number, dtype=np.uint8))


def skimage_targets(mask: np.ndarray) -> list[tuple[list[int], int, dict]]:
    from skimage.measure import label, regionprops

    labels = label(mask, connectivity=2)
    out = []
    for region in regionprops(labels):
        y1, x1, y2, x2 = region.bbox
        box = [int(x1), int(y1), int(x2 - x1), int(y2 - y1)]
        out.append((box, int(region.area), full(labels, region.label)))
    return out


def scipy_targets(mask: np.ndarray) -> list[tuple[list[int], int, dict]]:
    from scipy import ndimage

    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    out = []
    for number, (y, x) in enumerate(ndimage.find_objects(labels), 1):
        area = int((labels[y, x] == number).sum())
        out.append(([x.start, y.start, x.stop - x.start, y.stop - y.start], area, full(labels, number)))
    return out


def pycocotools_targets(mask: np.ndarray) -> list[tuple[list[int], int, dict]]:
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    out = []
    for number in range(1, count):
        rle = full(labels, number)
        box = [int(v) for v in coco_mask.toBbox(rle)]
        out.append((box, int(coco_mask.area(rle)), rle))
    return out


def with_targets(targets: Callable[[np.ndarray], list[tuple[list[int], int, dict]]]) -> Job:
    return lambda files, out: coco(files, out, targets)


def instances(mask: np.ndarray) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """(xyxy, patch) by OpenCV, for the exporters, which do not find components themselves."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    boxes = [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in stats]
    return [(b, labels[b[1] : b[3], b[0] : b[2]] == k) for k, b in enumerate(boxes) if k]


def fiftyone_export(files: list[Path], out: Path) -> None:
    import fiftyone as fo
    import fiftyone.utils.coco as fouc

    exporter = fouc.COCODetectionDatasetExporter(labels_path=str(out), export_media=False)
    with exporter:
        for file in files:
            mask = read(file)
            h, w = mask.shape
            detections = [
                fo.Detection(
                    label="target",
                    bounding_box=[x1 / w, y1 / h, (x2 - x1) / w, (y2 - y1) / h],
                    mask=patch,
                    iscrowd=1,
                )  # iscrowd 1 makes it write RLE instead of contours
                for (x1, y1, x2, y2), patch in instances(mask)
            ]
            metadata = fo.ImageMetadata(width=w, height=h, num_channels=1)
            exporter.export_sample(str(file), fo.Detections(detections=detections), metadata=metadata)


def supervision_export(files: list[Path], out: Path) -> None:
    import supervision as sv

    annotations = {}
    for file in files:
        mask = read(file)
        found = instances(mask)
        pixels = np.zeros((len(found), *mask.shape), dtype=bool)
        for k, ((x1, y1, x2, y2), patch) in enumerate(found):
            pixels[k, y1:y2, x1:x2] = patch
        boxes = np.array([b for b, _ in found], dtype=np.float32).reshape(-1, 4)
        kinds = np.zeros(len(found), dtype=int)
        annotations[str(file)] = sv.Detections(xyxy=boxes, mask=pixels, class_id=kinds)
    sv.DetectionDataset(["target"], list(annotations), annotations).as_coco(annotations_path=str(out))


DECODERS: dict[str, Job] = {
    "decoding alone (cv2.imread)": decode_only,
    "decoding alone (irstkit's strict reader)": decode_strictly,
}
CONTESTANTS: dict[str, tuple[str, Job]] = {
    "irstkit": ("irstkit", ours),
    "irstkit, polygons": ("irstkit", ours_polygons),
    "pycocotools (with OpenCV's components)": ("pycocotools", with_targets(pycocotools_targets)),
    "scipy.ndimage label + find_objects": ("scipy", with_targets(scipy_targets)),
    "scikit-image label + regionprops": ("scikit-image", with_targets(skimage_targets)),
    "FiftyOne's COCO exporter": ("fiftyone", fiftyone_export),
    "supervision's COCO exporter": ("supervision", supervision_export),
}


def pixels_of(segmentation: object, size: tuple[int, int]) -> bytes:
    """The pixels of a segmentation as pycocotools paints them, as a compressed RLE."""
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, *size)["counts"]
        return segmentation["counts"].encode()
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))["counts"]


def content(path: Path) -> dict[str, list[tuple]]:
    """``{image: sorted [(bbox, area, pixels)]}`` of a COCO file."""
    document = json.loads(path.read_text())
    images = {i["id"]: (Path(i["file_name"]).name, (i["height"], i["width"])) for i in document["images"]}
    out: dict[str, list[tuple]] = {name: [] for name, _ in images.values()}
    for a in document["annotations"]:
        name, size = images[a["image_id"]]
        try:
            pixels = pixels_of(a["segmentation"], size)
        except Exception:  # a segmentation that pycocotools itself cannot read
            pixels = b"unreadable"
        out[name].append((tuple(round(float(v), 3) for v in a["bbox"]), round(float(a["area"]), 3), pixels))
    return {name: sorted(rows) for name, rows in out.items()}


def compare(mine: dict[str, list[tuple]], other: dict[str, list[tuple]]) -> dict[str, int]:
    """Targets, and those whose box, area or pixels differ from irstkit's."""
    result = {"targets": sum(map(len, other.values())), "boxes": 0, "areas": 0, "pixels": 0}
    for name, rows in mine.items():
        theirs = other.get(name, [])
        if len(theirs) != len(rows):
            result["boxes"] += abs(len(theirs) - len(rows))
            continue
        for a, b in zip(rows, theirs, strict=True):
            result["boxes"] += a[0] != b[0]
            result["areas"] += a[1] != b[1]
            result["pixels"] += a[2] != b[2]
    return result


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run(folder: Path, repeats: int, scratch: Path) -> dict:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".png", ".bmp"))
    names = [n for n, (package, _) in CONTESTANTS.items() if installed(package)]
    missing = [n for n, (package, _) in CONTESTANTS.items() if not installed(package)]
    results: dict[str, dict] = {}
    for name in names:  # also the warm-up
        CONTESTANTS[name][1](files, scratch / "out.json")
        results[name] = {"content": content(scratch / "out.json")}
    mine = results["irstkit"]["content"]
    for name in names:
        results[name] = compare(mine, results[name].pop("content"))
    times: dict[str, list[tuple[float, float]]] = {n: [] for n in (*DECODERS, *names)}
    for _ in range(repeats):
        for name, rows in times.items():
            job = CONTESTANTS[name][1] if name in CONTESTANTS else DECODERS[name]
            wall, used = time.perf_counter(), time.process_time()
            job(files, scratch / "out.json")
            rows.append((time.process_time() - used, time.perf_counter() - wall))
    base = min(t for t, _ in times["decoding alone (cv2.imread)"])
    table = [
        {
            "name": name,
            "processor_seconds": round(min(t for t, _ in rows), 4),
            "wall_seconds": round(min(w for _, w in rows), 4),
            "ratio_to_decoding": round(min(t for t, _ in rows) / base, 3),
            **({"differs": results[name]} if name in results else {}),
        }
        for name, rows in times.items()
    ]
    return {
        "set": f"{folder.parent.name}/{folder.name}",
        "files": len(files),
        "missing": missing,
        "table": table,
    }


def scale(folder: Path, count: int, workers: int, scratch: Path) -> dict:
    """Links to the masks over and over until there are ``count``; time and peak memory of one conversion."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".png")
    many = scratch / f"masks_{count}"
    if not many.exists():
        many.mkdir()
        for k in range(count):
            (many / f"{k:06d}.png").symlink_to(files[k % len(files)].resolve())
    out = scratch / f"{count}_{workers}.json"
    command = [sys.executable, "-c", PEAK, str(many), str(out), str(workers)]
    start = time.perf_counter()
    own, children = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()[:12]
    return {
        "masks": count,
        "workers": workers,
        "wall_seconds": round(time.perf_counter() - start, 2),
        "peak_memory_mib": round(own / 1024, 1),
        "largest_worker_mib": round(children / 1024, 1),
        "output_sha256": digest,
        "output_mib": round(out.stat().st_size / 2**20, 1),
    }


PEAK = """
import json, resource, sys
if __name__ == "__main__":
    from irstkit.annotate.convert import convert
    from irstkit.annotate.labels import ReadOptions
    convert(sys.argv[1], sys.argv[2], to="coco", source_format="masks", read=ReadOptions(workers=int(sys.argv[3])))
    lines = open("/proc/self/status").read().splitlines()  # getrusage counts what the parent used, too
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps([own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--scale", type=int, nargs="*", default=[], help="also so many masks, with 1 and 2 workers"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    report = {
        "command": "python benchmarks/annotate_speed.py MASKS_DIR ... --repeats " + str(args.repeats),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "versions": {
            p: installed(p) for p in sorted({p for p, _ in CONTESTANTS.values()} | {"opencv-python-headless"})
        },
        "cores": os.cpu_count(),
        "runs": [],
        "scale": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for folder in args.folders:
            result = run(folder, args.repeats, Path(scratch))
            report["runs"].append(result)
            print(f"\n{result['set']}: {result['files']} masks", file=sys.stderr)
            for row in result["table"]:
                differs = row.get("differs", {})
                note = ", ".join(f"{v} {k} differ" for k, v in differs.items() if k != "targets" and v)
                line = f"  {row['name']:42} {row['processor_seconds']:8.3f} s  {row['ratio_to_decoding']:6.2f} x decoding"
                print(f"{line}  {note}", file=sys.stderr)
        for count in args.scale:
            for workers in (1, 2):
                row = scale(args.folders[0], count, workers, Path(scratch))
                report["scale"].append(row)
                print(f"  {row}", file=sys.stderr)
    text = json.dumps(report, indent=2) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
