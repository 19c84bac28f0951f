"""Folders of labels and of images: what belongs to what, by the path below each without its suffix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import IrstkitError
from ..files import IMAGE_SUFFIXES, list_images, natural_key, read_header
from ..labels import ReadOptions


def tree(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files of those suffixes below ``folder`` in natural order, nothing hidden."""
    wanted = tuple(suffixes)
    found = (f for f in folder.rglob("*") if f.suffix.lower() in wanted and f.is_file())
    files = [f for f in found if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
    return sorted(files, key=lambda f: natural_key(f.relative_to(folder).as_posix()))


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
        self.keys: dict[str, Path] = {}
        if options.images is None:
            return
        for image in images_below(options.images):
            key = key_of(image, options.images)
            if key in self.keys:
                other = self.keys[key].name
                raise IrstkitError(f"two images of one name: {other}, {image.name}", path=options.images)
            self.keys[key] = image

    def find(self, key: str) -> str | None:
        """The key of the labels' image: the same, or without ``_pixels0`` (SIRST's masks)."""
        for candidate in (key, key.removesuffix("_pixels0")):
            if candidate in self.keys:
                return candidate
        return None

    def name(self, key: str) -> str:
        """The image's file name below the folder."""
        assert self.folder is not None
        return self.keys[key].relative_to(self.folder).as_posix()

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
        header = read_header(self.keys[found])
        return self.name(found), (header.height, header.width)

    def without(self, seen: set[str]) -> list[Path]:
        """The images that no label was found for."""
        return [self.keys[k] for k in sorted(set(self.keys) - seen, key=natural_key)]


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and its sub-folders.

    Raises
    ------
    IrstkitError
        As :func:`irstkit.annotate.files.list_images`.
    """
    files = tree(folder, IMAGE_SUFFIXES) if folder.is_dir() else []
    return files or list_images(folder)  # which says what is wrong
