"""Folders of labels and of images: what belongs to what, by the path below each without its suffix."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import IrstkitError
from ..files import IMAGE_SUFFIXES, decode_image, list_images, natural_key, read_header
from ..findings import Findings
from ..labels import ReadOptions


def tree(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of those suffixes below ``folder`` in natural order, nothing hidden."""
    return [folder / name for name in tree_names(folder, suffixes)]


def tree_names(folder: Path, suffixes: Iterable[str]) -> list[str]:
    """As :func:`tree`, posix names relative to ``folder``."""
    wanted = tuple(suffixes)
    names: list[str] = []  # text, not paths: a hundred thousand of them are listed and sorted in a second
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{below}{entry.name}/")
                elif entry.name.lower().endswith(wanted) and entry.is_file():
                    names.append(below + entry.name)
    names.sort(key=natural_key)
    return names


def files_below(path: Path, suffix: str, what: str) -> list[Path]:
    """The one file given, or the files of a folder and its sub-folders.

    Raises
    ------
    IrstkitError
        When there is none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise IrstkitError("no such file or folder", path=path)
    files = tree(path, (suffix,))
    if not files:
        raise IrstkitError(f"no {what} (*{suffix}) in this folder", path=path)
    return files


def key_of(file: Path, root: Path) -> str:
    """The path of a file below ``root`` without its suffix; its stem when ``root`` is the file."""
    return file.stem if root == file or root.is_file() else file.relative_to(root).with_suffix("").as_posix()


class Images:
    """The images of labels, with the size from the file or the one size given for all."""

    def __init__(self, options: ReadOptions) -> None:
        self.size = options.size
        self.folder = options.images
        self.keys: dict[str, str] = {}  # names as text: there may be a hundred thousand
        if options.images is None:
            return
        for name in images_below(options.images):
            key = stem_of(name)
            if key in self.keys:
                raise IrstkitError(f"two images of one name: {self.keys[key]}, {name}", path=options.images)
            self.keys[key] = name

    def find(self, key: str) -> str | None:
        """The key of the labels' image: the same, or without ``_pixels0`` (SIRST's masks)."""
        for candidate in (key, key.removesuffix("_pixels0")):
            if candidate in self.keys:
                return candidate
        return None

    def name(self, key: str) -> str:
        """The image's file name below the folder."""
        return self.keys[key]

    def path(self, key: str) -> Path:
        """The image's file."""
        assert self.folder is not None
        return self.folder / self.keys[key]

    def name_and_size(self, key: str, label: Path) -> tuple[str, tuple[int, int] | None]:
        """File name and (height, width) for a label file's key.

        Raises
        ------
        IrstkitError
            When a folder was given and has no such image.
        """
        if self.folder is None:
            return f"{key}.png", self.size
        found = self.find(key)
        if found is None:
            raise IrstkitError(f"no image of these labels in {self.folder}", path=label)
        header = read_header(self.path(found))
        return self.name(found), (header.height, header.width)

    def examine(self, key: str, findings: Findings) -> tuple[int, int] | None:
        """(height, width) of an image after decoding all of it; findings when it is damaged or in colour."""
        return examine_image(self.path(key), findings)

    def without(self, seen: set[str]) -> list[Path]:
        """The images that no label was found for."""
        return [self.path(k) for k in sorted(set(self.keys) - seen, key=natural_key)]


def examine_image(path: Path, findings: Findings) -> tuple[int, int] | None:
    """(height, width) of an image file after decoding all of it; findings when it is damaged or in colour."""
    try:
        decoded = decode_image(path)
    except IrstkitError as error:
        findings.note("image-damaged", error.message, path=path)
        return None
    if not decoded.gray_equal:
        findings.note("image-colour", f"{decoded.channels} channels that differ", path=path)
    height, width = decoded.gray.shape
    return height, width


def stem_of(name: str) -> str:
    """A posix path without its suffix, folders kept."""
    head, slash, last = name.rpartition("/")
    stem, dot, _ = last.rpartition(".")
    return head + slash + (stem if dot and stem else last)


def images_below(folder: Path) -> list[str]:
    """The images of a folder and its sub-folders, posix names relative to it, in natural order.

    Raises
    ------
    IrstkitError
        As :func:`irstkit.annotate.files.list_images`.
    """
    names = tree_names(folder, IMAGE_SUFFIXES) if folder.is_dir() else []
    return names or [f.name for f in list_images(folder)]  # which says what is wrong
