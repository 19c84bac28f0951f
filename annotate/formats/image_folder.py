"""Names and sizes of images for labels that do not carry them."""

from __future__ import annotations

from pathlib import Path

from ..errors import IrstkitError
from ..files import list_images, read_header
from ..labels import ReadOptions


class Images:
    """The image of a label, by its stem, with the size from the file or the one size given for all."""

    def __init__(self, options: ReadOptions) -> None:
        self.size = options.size
        self.folder = options.images
        self.stems: dict[str, Path] = {}
        if options.images is not None:
            for image in list_images(options.images):
                if image.stem in self.stems:
                    other = self.stems[image.stem].name
                    raise IrstkitError(f"two images of one name: {other}, {image.name}", path=options.images)
                self.stems[image.stem] = image

    def find(self, stem: str) -> Path | None:
        """The image of that stem, or of the stem without ``_pixels0`` (SIRST's masks)."""
        return self.stems.get(stem) or self.stems.get(stem.removesuffix("_pixels0"))

    def name_and_size(self, stem: str, label: Path) -> tuple[str, tuple[int, int] | None]:
        """File name and (height, width) for a label file's stem.

        Raises
        ------
        IrstkitError
            When a folder was given and has no such image.
        """
        if self.folder is None:
            return f"{stem}.png", self.size
        image = self.find(stem)
        if image is None:
            raise IrstkitError(f"no image of these labels in {self.folder}", path=label)
        header = read_header(image)
        return image.name, (header.height, header.width)
