"""The plain parsers of text and XML labels: good lines exact, bad lines found with their number."""

from __future__ import annotations

import numpy as np
import pytest

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.formats.list_files import list_text, parse_centres, parse_irdst_names, parse_list
from irstkit.annotate.formats.numbers import number
from irstkit.annotate.formats.voc_files import parse_voc, voc_text
from irstkit.annotate.formats.yolo_files import parse_yolo, yolo_text


@pytest.fixture
def write(tmp_path):
    def put(text, name="a.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-1.5", -1.5), (".5", 0.5), ("1e-3", 0.001), ("nan", None), ("inf", None), ("1_0", None), ("0x1", None),
     ("١", None), ("", None), ("1e999", None), ("9" * 30, None), ("1,5", None)],
)  # fmt: skip
def test_numbers(text, value):
    assert number(text) == value


def kinds(findings):
    return [(f.kind, f.where) for f in findings]


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        ("0 0.5 0.5 0.1", "bad-line", "four fields"),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad-line", "six fields (a score?)"),
        ("0 0.5 nan 0.1 0.1", "bad-line", "not a number"),
        ("a 0.5 0.5 0.1 0.1", "bad-line", "class is a word"),
        ("0.5 0.5 0.5 0.1 0.1", "bad-line", "class is a fraction"),
        ("-1 0.5 0.5 0.1 0.1", "class-range", "negative class"),
        ("0 0.5 0.5 -0.1 0.1", "box-negative", "negative side"),
        ("0 0.5 0.5 0 0.1", "box-empty", "no width"),
        ("0 5 0.5 0.1 0.1", "box-outside", "beyond the image"),
        ("0 100 80 5 5", "box-outside", "pixels for fractions"),
        ("", "empty-line", "an empty line"),
    ],
)
def test_yolo_bad_lines(write, line, kind, reason):
    got = parse_yolo(write(f"0 0.5 0.5 0.2 0.2\n{line}\n1 0.25 0.5 0.5 0.5\n"))
    assert kinds(got.findings) == [(kind, "line 2")]
    assert got.lines.tolist() == [1, 3] and got.classes.tolist() == [0, 1]
    np.testing.assert_allclose(got.boxes((10, 20)), [[8, 4, 12, 6], [0, 2.5, 10, 7.5]], atol=1e-12)


def test_yolo_warnings_keep_the_box(write):
    got = parse_yolo(write("0 0.05 0.5 0.2 0.2\r\n0 0.05 0.5 0.2 0.2"))
    assert kinds(got.findings) == [
        ("box-leaves", "line 1"),
        ("box-leaves", "line 2"),
        ("box-duplicate", "line 2"),
    ]
    assert len(got.fractions) == 2
    assert len(parse_yolo(write("")).fractions) == 0
    with pytest.raises(IrstkitError, match="line 2: not UTF-8"):
        parse_yolo(write(b"0 1\n\xff\n"))


def test_yolo_digits():
    """10 digits give corners back to 1e-6 px in the widest frames, 6 (as published) to whole pixels."""
    boxes = np.array([[4095, 3000, 4096, 3001], [17.25, 0.5, 1000.125, 777.7]])
    for digits, limit in ((10, 1e-6), (6, 0.0065)):
        rows = [
            list(map(float, r.split()[1:]))
            for r in yolo_text(boxes, (4096, 4096), digits=digits).splitlines()
        ]
        centre, side = np.array(rows)[:, :2] * 4096, np.array(rows)[:, 2:] * 4096
        assert np.abs(np.concatenate([centre - side / 2, centre + side / 2], axis=1) - boxes).max() < limit


VOC = """<annotation><filename>a.png</filename><size><width>30</width><height>20</height></size>
<object><name>Target</name><bndbox><xmin>6</xmin><ymin>8</ymin><xmax>9</xmax><ymax>11</ymax></bndbox></object>
{}
</annotation>"""


def test_voc_styles(write):
    path = write(VOC.format("<object><name>Target</name></object>"), "a.xml")
    nominal, shifted = parse_voc(path), parse_voc(path, style="sirst-v2")
    assert nominal.boxes.tolist() == [[5, 7, 9, 11]] and shifted.boxes.tolist() == [[5, 7, 8, 10]]
    assert (nominal.size, nominal.filename, nominal.names, nominal.unboxed) == (
        (20, 30),
        "a.png",
        ("Target",),
        1,
    )
    assert kinds(nominal.findings) == [("object-without-box", "line 3")]
    with pytest.raises(ValueError, match="style"):
        parse_voc(path, style="other")


def box(a, b, c, d):
    return (
        f"<object><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
    )


@pytest.mark.parametrize(
    ("extra", "kind", "reason"),
    [
        (box(5, 5, 4, 9), "box-inverted", "no width"),
        (box(5, "x", 4, 9), "bad-line", "a word"),
        (box(5, "", 4, 9), "bad-line", "nothing"),
        (box(1, 1, "1e99", 9), "bad-line", "beyond all images"),
        (box(40, 5, 44, 9), "box-outside", "beyond this image"),
        (box(5, 5, 9, 9).replace("<ymax>9</ymax>", ""), "bad-line", "a corner is missing"),
        (box(5, 5, 9, 9).replace("</bndbox>", "</bndbox><bndbox/>"), "bad-line", "two boxes in an object"),
    ],
)
def test_voc_bad_objects(write, extra, kind, reason):
    got = parse_voc(write(VOC.format(extra), "a.xml"))
    assert kinds(got.findings) == [(kind, "line 3")] and len(got.boxes) == 1


@pytest.mark.parametrize(
    ("data", "says", "reason"),
    [
        (b"", "no element", "empty"),
        (b"<annotation><object></annotation>", "mismatched tag", "not closed"),
        (b"<other/>", "expected the root", "another root"),
        (
            b'<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
            "document type",
            "entities may explode",
        ),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type", "external files"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "XML", "an unknown encoding"),
        (b"<a>" * 200 + b"</a>" * 200, "nested", "very deep"),
        (b"\x89PNG\r\n", "not well-formed", "not XML"),
    ],
)
def test_voc_not_xml(write, data, says, reason):
    with pytest.raises(IrstkitError, match=says):
        parse_voc(write(data, "a.xml"))


@pytest.mark.parametrize("style", ["voc", "sirst-v2"])
def test_voc_round_trip(write, style):
    boxes = np.array([[0, 0, 1, 1], [3.25, 4, 30, 20]])
    text = voc_text("a&b<c>.png", (20, 30), boxes, ["one & two", "<t>"], style=style)
    got = parse_voc(write(text, "a.xml"), style=style)
    np.testing.assert_array_equal(got.boxes, boxes)
    assert (got.names, got.filename, got.size, list(got.findings)) == (
        ("one & two", "<t>"),
        "a&b<c>.png",
        (20, 30),
        [],
    )
    if style == "voc":
        assert "<xmin>1</xmin>" in text and "<xmax>1</xmax>" in text, "a one-pixel target is (1, 1)"


@pytest.mark.parametrize(
    ("line", "kind", "kept", "reason"),
    [
        ("/x/s/1.bmp 1,2,3,4", "bad-line", True, "four numbers"),
        ("/x/s/1.bmp 1,2,3,4,0,5", "bad-line", True, "six numbers"),
        ("/x/s/1.bmp 1,2,3,x,0", "bad-line", True, "a word"),
        ("/x/s/1.bmp 1,2,1,4,0", "box-empty", True, "no width"),
        ("/x/s/1.bmp 5,2,1,4,0", "box-inverted", True, "corners swapped"),
        ("/x/s/1.bmp 1,2,3,4,-1", "class-range", True, "negative class"),
        ("/x/s/1.bmp 1,2,3,4,0.5", "class-range", True, "half a class"),
        ("1,2,3,4,0", "bad-line", False, "no path"),
        ("", "empty-line", False, "an empty line"),
        ("/x/s/0.bmp 5,6,7,8,0", "duplicate-entry", False, "the frame of line 1 again"),
        ("/x/s/1.bmp", "frame-without-box", True, "no target (ITSDT has such lines)"),
        ("/x/s/1.bmp 250,2,260,4,0", "box-leaves", True, "over the border"),
        ("/x/s/1.bmp 256,2,260,4,0", "box-outside", True, "beyond the image"),
    ],
)
def test_list_lines(write, line, kind, kept, reason):
    got = parse_list(write(f"/x/s/0.bmp 1,2,3,4,0\n{line}\n/x/s/10.bmp 1,2,3,4,0 5,6,7,9,1"), size=(256, 256))
    assert kinds(got.findings) == [(kind, "line 2")]
    assert [e.line for e in got.entries] == ([1, 2, 3] if kept else [1, 3])
    assert got.entries[-1].boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 9]] and got.entries[
        -1
    ].classes.tolist() == [0, 1]


def test_list_order_and_names(write):
    got = parse_list(write("/h/D/images/train/s/10.bmp 1,2,3,4,0\n/h/D/images/train/s/2.bmp 1,2,3,4,0\n"))
    assert kinds(got.findings) == [("order", "line 2")]
    assert [e.frame for e in got.sequences()["s"]] == [2, 10], "numeric order"
    assert got.entries[0].relative() == "train/s/10.bmp" and got.entries[0].sequence == "s"
    assert kinds(parse_list(write("")).findings) == [("no-images", None)]


def test_list_round_trip(write):
    rows = [
        ("a b/1.bmp", np.array([[1, 2, 3, 4], [0.125, 1 / 3, 7, 9]]), [0, 2]),
        ("c/2.png", np.zeros((0, 4)), []),
    ]
    got = parse_list(write(list_text(rows)))
    for entry, (path, boxes, classes) in zip(got.entries, rows, strict=True):
        assert entry.path == path and entry.classes.tolist() == classes
        np.testing.assert_array_equal(entry.boxes, boxes)


def test_irdst_names(write):
    entries, findings = parse_irdst_names(write("/41/1(297)\n/131/401\n1(3)\n\n/../1\n/41/1(297)\n"))
    assert [(e.name, e.sequence, e.frame) for e in entries] == [
        ("41/1(297)", "41", 297),
        ("131/401", "131", 401),
        ("1(3)", "1", 3),
    ]
    assert kinds(findings) == [
        ("empty-line", "line 4"),
        ("bad-line", "line 5"),
        ("duplicate-entry", "line 6"),
    ]


def test_centres(write):
    pairs = parse_centres(write("10 20\n11,21, 30,40\nx 1\n"))
    assert pairs.frames == ("0", "1") and kinds(pairs.findings) == [("bad-line", "line 3")]
    assert pairs.boxes(8)[1].tolist() == [[7, 17, 15, 25], [26, 36, 34, 44]]
    assert pairs.boxes(24, (256, 256))[0].tolist() == [[0, 8, 22, 32]], "clipped at the border"
    named = parse_centres(write("5 10 20\n5 11 21\n7\t1\t2\n"))
    assert named.frames == ("5", "7") and kinds(named.findings) == [("duplicate-entry", "line 2")]
    tracked = parse_centres(write("5 1 10 20\n5 2 11 21\n"), columns="frame,id,x,y")
    assert tracked.frames == ("5",) and tracked.points[0].tolist() == [[10, 20], [11, 21]]
    with pytest.raises(ValueError, match="positive"):
        pairs.boxes(0)
