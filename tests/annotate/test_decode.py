"""Image files of every format, whole and broken."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from irstkit.annotate.decode import decode_bytes, read_header
from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import read_image, read_mask, read_mask_values

GRAY = (np.arange(15 * 20, dtype=np.uint32) * 7 % 256).astype(np.uint8).reshape(15, 20)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    position, out = 8, []
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        out.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return out


def rebuild(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG whose checksums are right, whatever its parts say."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def with_idat(change) -> bytes:
    return rebuild(
        [(k, change(b) if k == b"IDAT" else b) for k, b in chunks(encode(Image.fromarray(GRAY), "PNG"))]
    )


def palette(colours: list[int], **options) -> bytes:
    image = Image.fromarray((GRAY > 99).astype(np.uint8), "L")
    image = image.convert("P")
    image.putdata((GRAY > 99).astype(np.uint8).ravel().tolist())
    image.putpalette(colours + [0] * (768 - len(colours)))
    return encode(image, "PNG", **options)


BINARY = np.where(GRAY > 99, 255, 0).astype(np.uint8)
WIDE = GRAY.astype(np.uint16) * 200
STAMP = [(b"tEXt", b"a\0b"), (b"gAMA", b"\0\0\0\0"), (b"iCCP", b"nonsense"), (b"tRNS", b"\0\0")]


@pytest.mark.parametrize(
    ("data", "expected", "channels", "reason"),
    [
        (encode(Image.fromarray(GRAY), "PNG"), GRAY, 1, "8-bit gray"),
        (encode(Image.fromarray(WIDE), "PNG"), WIDE, 1, "16 bits keep their values"),
        (encode(Image.fromarray(GRAY > 99), "PNG"), BINARY, 1, "1 bit becomes 0 and 255"),
        (encode(Image.merge("LA", [Image.fromarray(GRAY)] * 2), "PNG"), GRAY, 2, "gray with alpha"),
        (encode(Image.merge("RGB", [Image.fromarray(GRAY)] * 3), "PNG"), GRAY, 3, "colour of equal channels"),
        (encode(Image.merge("RGBA", [Image.fromarray(GRAY)] * 4), "PNG"), GRAY, 4, "alpha is dropped"),
        (palette([0, 0, 0, 255, 255, 255]), BINARY, 3, "palette"),
        (palette([0, 0, 0, 255, 255, 255], bits=1), BINARY, 3, "1-bit palette"),
        (palette([0, 0, 0, 255, 255, 255], transparency=0), BINARY, 3, "palette with transparency"),
        (with_idat(lambda b: b)[:33] + rebuild(STAMP)[8:] + with_idat(lambda b: b)[33:], GRAY, 1,
         "odd ancillary parts change nothing and print nothing"),
        (encode(Image.fromarray(GRAY), "BMP"), GRAY, 1, "BMP"),
        (encode(Image.merge("RGB", [Image.fromarray(GRAY)] * 3), "BMP"), GRAY, 3, "BMP in colour"),
        (encode(Image.fromarray(GRAY > 99), "BMP"), BINARY, 1, "1-bit BMP"),
        (encode(Image.fromarray(GRAY), "TIFF"), GRAY, 1, "TIFF"),
        (encode(Image.fromarray(WIDE), "TIFF", compression="tiff_adobe_deflate"), WIDE, 1, "deflated 16-bit TIFF"),
        (encode(Image.fromarray(GRAY), "TIFF", compression="tiff_lzw"), GRAY, 1, "LZW TIFF"),
        (encode(Image.fromarray(GRAY > 99), "TIFF"), BINARY, 1, "1-bit TIFF"),
        (encode(Image.fromarray(GRAY > 99), "TIFF", tiffinfo={262: 0}), BINARY, 1, "1-bit TIFF, white is zero"),
        (b"P5 # note\n20 15\n4095\n" + (GRAY.astype(np.uint16) * 16).astype(">u2").tobytes(), GRAY.astype(np.uint16) * 16, 1,
         "12-bit PGM keeps its values"),
        (b"P5\n20 15\n1\n" + (GRAY > 99).tobytes(), (GRAY > 99).astype(np.uint8), 1, "PGM of 0 and 1"),
        (b"P2\n20 15\n255\n" + b" ".join(b"%d" % v for v in GRAY.ravel()), GRAY, 1, "PGM as text"),
    ],
)  # fmt: skip
def test_whole_files(data, expected, channels, reason, capfd):
    decoded = decode_bytes(data, "x")
    assert decoded.gray.dtype == expected.dtype
    np.testing.assert_array_equal(decoded.gray, expected)
    assert (decoded.channels, decoded.gray_equal) == (channels, True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("filters", [(0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4), (1, 0)])
@pytest.mark.parametrize("interlace", [0, 1])
def test_every_png_filter(filters, interlace):
    """Files whose rows use each filter decode to what Pillow makes of them."""
    rng = np.random.default_rng(len(filters) + interlace)
    if interlace:
        passes = [((20 - x + dx - 1) // dx, (15 - y + dy - 1) // dy) for x, y, dx, dy in
                  ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))]  # fmt: skip
    else:
        passes = [(20, 15)]
    raw = b"".join(
        bytes([filters[k % len(filters)]]) + rng.integers(0, 256, w, dtype=np.uint8).tobytes()
        for w, h in passes
        for k in range(h)
    )
    header = struct.pack(">IIBBBBB", 20, 15, 8, 0, 0, 0, interlace)
    data = rebuild([(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")])
    np.testing.assert_array_equal(decode_bytes(data, "x").gray, np.asarray(Image.open(io.BytesIO(data))))


def test_jpeg_equals_opencv():
    colour = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
    for pixels in (GRAY, colour):
        data = cv2.imencode(".jpg", pixels)[1].tobytes()
        plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        expected = plain if plain.ndim == 2 else cv2.cvtColor(plain, cv2.COLOR_BGR2GRAY)
        decoded = decode_bytes(data, "x")
        assert np.abs(decoded.gray.astype(int) - expected).max() <= 1
        assert decoded.gray_equal == (pixels.ndim == 2)


PNG = encode(Image.fromarray(GRAY), "PNG")
BMP = encode(Image.fromarray(GRAY), "BMP")
TIFF = encode(Image.fromarray(GRAY), "TIFF", compression="tiff_adobe_deflate")
JPEG = encode(Image.fromarray(GRAY), "JPEG")


@pytest.mark.parametrize(
    ("data", "says", "reason"),
    [
        (b"", "empty", "no byte"),
        (b"1 2 3 4\n", "not an image", "text named .png"),
        (PNG[:-20], "truncated", "PNG cut before its end"),
        (PNG[:40], "truncated", "PNG cut in its data"),
        (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "checksum", "a flipped bit in a PNG"),
        (with_idat(lambda b: b[: len(b) // 2]), "less pixel data", "checksum right, stream cut"),
        (with_idat(lambda b: b"abc" * 9), "inflated", "checksum right, not a zlib stream"),
        (with_idat(lambda b: b[:-1] + bytes([b[-1] ^ 1])), "inflated", "checksum right, zlib's own wrong"),
        (with_idat(lambda b: zlib.compress(zlib.decompress(b)[:-30])), "less pixel data", "rows missing"),
        (with_idat(lambda b: zlib.compress(zlib.decompress(b) + b"\0" * 40)), "more pixel data", "rows too many"),
        (with_idat(lambda b: zlib.compress(b"\x09" + zlib.decompress(b)[1:])), "filter", "unknown row filter"),
        (with_idat(lambda b: b"")[:33] + rebuild([(b"IEND", b"")])[8:], "less pixel data", "no data at all"),
        (rebuild([(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)), (b"IEND", b"")]), "accepted",
         "a header that promises 3.6 gigapixels"),
        (rebuild([(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 0, 0, 0, 0)), (b"IEND", b"")]), "without pixels", "0 wide"),
        (rebuild([(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 3, 0, 0, 0)), (b"IEND", b"")]), "palette", "no palette"),
        (rebuild([(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 7, 0, 0, 0, 0)), (b"IEND", b"")]), "header", "7 bits"),
        (rebuild([(b"IDAT", b"")]), "begin with its header", "no header"),
        (BMP[: len(BMP) // 2], "truncated BMP", "BMP cut in half"),
        (BMP[:20], "truncated BMP", "BMP cut in its header"),
        (JPEG[: len(JPEG) // 2], "truncated JPEG", "JPEG cut in half"),
        (JPEG[:2] + b"\xff\xd9", "damaged JPEG", "a JPEG of markers only"),
        (TIFF[: len(TIFF) // 2], "TIFF", "TIFF cut in half"),
        (TIFF[:12] + b"\x13" * 30 + TIFF[42:], "TIFF", "a deflated strip overwritten"),
        (encode(Image.fromarray(GRAY.astype(np.float32)), "TIFF"), "float32", "floating point"),
        (encode(Image.fromarray(GRAY), "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)]), "2 images", "pages"),
        (b"P5\n20 15\n255\n" + bytes(200), "truncated PGM", "PGM cut"),
        (b"P5\n20 15\n255\n" + bytes(400), "damaged PGM", "PGM too long"),
        (b"P5\n20 x\n255\n" + bytes(300), "damaged PGM", "PGM with a word for a number"),
        (b"P2\n2 2\n255\n1 2 3 300", "0..255", "PGM value beyond its largest"),
        (b"P2\n2 2\n255\n1 2 3 -1", "0..255", "PGM value below zero"),
        (b"P5\n2", "truncated PGM", "PGM header cut"),
    ],
)  # fmt: skip
def test_broken_files(data, says, reason, tmp_path, capfd):
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(IrstkitError, match=says) as caught:
        read_image(path)
    assert caught.value.path == path
    assert capfd.readouterr() == ("", "")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([PNG, BMP, TIFF, JPEG, b"P5\n20 15\n255\n" + GRAY.tobytes()]),
    st.integers(0, 2000),
    st.binary(max_size=6),
    st.booleans(),
)
def test_damage_never_crashes(data, at, what, cut):
    """Overwriting or cutting any file gives an image of positive size or one error."""
    at %= len(data)
    data = data[:at] + what + (b"" if cut else data[at + len(what) :])
    with contextlib.suppress(IrstkitError):
        assert decode_bytes(data, "x").gray.size > 0


def test_png_damage_is_always_found():
    """No single flipped byte of a PNG gives another picture."""
    for at in range(len(PNG)):
        damaged = PNG[:at] + bytes([PNG[at] ^ 0x10]) + PNG[at + 1 :]
        with pytest.raises(IrstkitError):
            decode_bytes(damaged, "x")


def test_headers(tmp_path):
    cases = {
        "a.png": (GRAY, (15, 20, 8, 1)), "b.png": (WIDE, (15, 20, 16, 1)), "c.bmp": (np.dstack([GRAY] * 3), (15, 20, 8, 3)),
        "d.tif": (WIDE, (15, 20, 16, 1)), "e.jpg": (GRAY, (15, 20, 8, 1)), "f.pgm": (GRAY, (15, 20, 8, 1)),
    }  # fmt: skip
    for name, (pixels, expected) in cases.items():
        cv2.imwrite(str(tmp_path / name), pixels)
        header = read_header(tmp_path / name)
        assert (header.height, header.width, header.bit_depth, header.channels) == expected, name
    (tmp_path / "g.png").write_bytes(PNG[:20])
    (tmp_path / "h.png").write_text("words")
    (tmp_path / "i.png").write_bytes(b"")
    for name in ("g.png", "h.png", "i.png", "missing.png"):
        with pytest.raises(IrstkitError):
            read_header(tmp_path / name)


def test_mask_rules(tmp_path):
    def write(name, values):
        (tmp_path / name).write_bytes(encode(Image.fromarray(np.asarray(values)), "PNG"))
        return tmp_path / name

    one = write("one.png", np.array([[0, 1]], np.uint8))
    assert read_mask(one).tolist() == [[False, True]], "0 and 1 mean 0 and 255"
    gray = write("gray.png", np.array([[0, 64, 127, 128, 255]], np.uint8))
    assert read_mask(gray).tolist() == [[False, False, False, True, True]]
    assert read_mask(gray, threshold=0).tolist() == [[False, True, True, True, True]]
    wide = write("wide.png", np.array([[0, 32767, 65535]], np.uint16))
    assert read_mask_values(wide).tolist() == [[0, 127, 255]]
    colour = tmp_path / "colour.png"
    colour.write_bytes(palette([0, 0, 0, 128, 0, 0]))
    with pytest.raises(IrstkitError, match="colour"):
        read_mask(colour)
