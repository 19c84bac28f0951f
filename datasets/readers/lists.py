"""Split lists as they are found on disk: names a line, in several customary places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ...annotate.errors import IrstkitError
from ...annotate.files import IMAGE_SUFFIXES, read_bytes
from .probe import Builder, Probe

PARTS = ("train", "val", "valid", "test", "trainval", "trainvaltest")
NOT_SCHEMES = ("images", "masks", "labels", "annotations", "parts")

Splits = dict[str, dict[str, str]]
"""``{id: {scheme: part}}``."""


def find_lists(probe: Probe) -> dict[str, dict[str, Path]]:
    """``{scheme: {part: file}}`` of the lists in a data set's folder.

    ``splits/SCHEME/PART.txt`` (irstkit), ``SCHEME/PART.txt`` (DNA-Net), ``splits/PART_SCHEME.txt``
    (SIRST-V2), ``img_idx/PART_NAME.txt`` (BasicIRSTD) and ``PART.txt`` beside the images.
    """
    found: dict[str, dict[str, Path]] = {}

    def note(scheme: str, part: str, path: Path) -> None:
        found.setdefault(scheme, {})["val" if part == "valid" else part] = path

    root = probe.root
    for name in probe.entries():
        if name.endswith(".txt") and name[:-4] in PARTS:
            note("lists", name[:-4], root / name)
        elif name not in (*NOT_SCHEMES, "splits") and (root / name).is_dir():
            for file in probe.entries(name):
                stem = file[:-4]
                if file.endswith(".txt") and stem in PARTS:
                    note(name, stem, root / name / file)
                elif file.endswith(".txt") and name == "img_idx" and stem.split("_")[0] in PARTS:
                    note(name, stem.split("_")[0], root / name / file)
    for name in probe.entries("splits"):
        if (root / "splits" / name).is_dir():
            for file in probe.entries(f"splits/{name}"):
                if file.endswith(".txt"):
                    note(name, file[:-4], root / "splits" / name / file)
        elif name.endswith(".txt"):
            part, _, scheme = name[:-4].partition("_")
            if part in PARTS:
                note(scheme or "splits", part, root / "splits" / name)
    return {scheme: found[scheme] for scheme in sorted(found)}


def read_list(path: Path) -> list[str]:
    """The entries of a list: one a line, blank lines and line ends of either kind aside."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IrstkitError(f"not UTF-8 text (byte {error.start})", path=path) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def entry_ids(entry: str) -> list[str]:
    """The ids that a list entry may mean, the likeliest first: as it is, without suffix, without images/."""
    text = entry.replace("\\", "/").lstrip("/")  # IRDST's entries start with a slash
    text = text.removeprefix("./")
    path = PurePosixPath(text)
    out = [text]
    if path.suffix.lower() in IMAGE_SUFFIXES:
        out.append(str(path.with_suffix("")))
    for known in tuple(out):
        if known.startswith("images/"):
            out.append(known.removeprefix("images/"))
        else:
            out.append("images/" + known)
    return out


def assign_splits(
    builder: Builder,
    lists: Mapping[str, Mapping[str, Path]],
    ids: Mapping[str, object],
    aliases: Mapping[str, str] | None = None,
) -> tuple[Splits, dict[str, tuple[str, ...]]]:
    """Read the lists; entries without an image, overlaps and unreadable lists become findings.

    ``aliases`` maps further spellings of an entry to ids.

    Returns
    -------
    splits
        ``{id: {scheme: part}}``, each id in one part of a scheme.
    unions
        ``{"SCHEME/PART": parts}`` for lists that only join others (``trainval``) or repeat one.
    """
    splits: Splits = {}
    unions: dict[str, tuple[str, ...]] = {}
    for scheme, files in lists.items():
        members: dict[str, set[str]] = {}
        for part, path in files.items():
            members[part] = _read_part(builder, path, f"{scheme}/{part}", ids, aliases or {})
        both = members.get("trainval", set())
        if "train" not in members and members.get("val", both) < both:  # SIRST-V2 leaves it out
            members["train"] = both - members["val"]
        joined = _unions(members)
        for part, parts in joined.items():
            unions[f"{scheme}/{part}"] = parts
            if len(parts) == 1:
                text = f"{scheme}/{part} lists the same images as {scheme}/{parts[0]}"
                builder.find("warning", "list-repeated", text, files.get(part), split=f"{scheme}/{part}")
        atoms = [p for p in members if p not in joined]
        for part in atoms:
            for id in members[part]:
                other = splits.setdefault(id, {}).setdefault(scheme, part)
                if other != part:
                    text = f"{id} is in {scheme}/{other} and in {scheme}/{part}"
                    for name in (other, part):
                        builder.find("error", "list-overlap", text, files.get(part), split=f"{scheme}/{name}")
    return splits, unions


def _read_part(
    builder: Builder, path: Path, split: str, ids: Mapping[str, object], aliases: Mapping[str, str]
) -> set[str]:
    try:
        entries = read_list(path)
    except IrstkitError as error:
        builder.find("error", "list-unreadable", error.message, path, split=split)
        return set()
    found: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        id = next((i for i in (aliases.get(e, e) for e in entry_ids(entry)) if i in ids), None)
        where = f"line {number}"
        if id is None:
            builder.find("error", "list-entry", f"no image {entry!r}", path, where=where, split=split)
        elif id in found:
            builder.find(
                "warning", "list-twice", f"{entry!r} is listed twice", path, where=where, split=split
            )
        else:
            found.add(id)
    if not entries:
        builder.find("warning", "list-empty", "the list is empty", path, split=split)
    return found


def _unions(members: Mapping[str, set[str]]) -> dict[str, tuple[str, ...]]:
    """Parts that are the union of other parts, in terms of those that are not."""
    out: dict[str, tuple[str, ...]] = {}
    for part in sorted(members, key=lambda p: (len(members[p]), PARTS.index(p) if p in PARTS else 99)):
        below = {p: m for p, m in members.items() if p != part and p not in out and m and m <= members[part]}
        same = [p for p, m in below.items() if m == members[part]]
        if same:
            if (
                PARTS.index(part) < PARTS.index(same[0])
                if part in PARTS and same[0] in PARTS
                else part < same[0]
            ):
                continue  # the other one becomes the repetition
            out[part] = (same[0],)
        elif below and set().union(*below.values()) == members[part]:
            out[part] = tuple(sorted(below, key=lambda p: PARTS.index(p) if p in PARTS else 99))
    return out
