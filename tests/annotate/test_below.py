"""Paths from annotation files: folders are followed once, and still nothing leaves the root."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irstkit.annotate.errors import IrstkitError
from irstkit.annotate.files import Below, inside

PARTS = (
    "",
    ".",
    "..",
    "in",
    "in.png",
    "deep",
    "out",
    "out.png",
    "home",
    "home.png",
    "loop",
    "gone",
    "a\0b",
    "/",
    "n" * 300,
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A root with folders, and links that stay, leave, loop and lead nowhere."""
    top = tmp_path_factory.mktemp("below")
    root, other = top / "root", top / "other"
    (root / "in" / "deep").mkdir(parents=True)
    (other / "in").mkdir(parents=True)
    for folder in (root, root / "in", root / "in" / "deep", other, other / "in"):
        (folder / "in.png").write_bytes(b"x")
    for folder in (root, root / "in"):
        (folder / "out").symlink_to(other)
        (folder / "out.png").symlink_to(other / "in.png")
        (folder / "home").symlink_to(root / "in" / "deep")
        (folder / "home.png").symlink_to(root / "in.png")
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "gone").symlink_to(folder / "nothing.png")
    return root


def outcome(check, relative: str):
    try:
        return check(relative)
    except IrstkitError as error:
        return error.message


@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_many_paths_are_judged_as_each_alone(tree, names):
    below = Below(tree)
    for name in ("/".join(parts) for parts in names):
        assert outcome(below, name) == outcome(lambda n: inside(tree, n), name), repr(name)


@pytest.mark.parametrize(
    "name", ["out.png", "in/out.png", "out/in.png", "in/out/in/in.png", "../other/in.png", "in/../../other/in.png", "/etc/a"]
)  # fmt: skip
def test_links_and_dots_that_leave_are_refused_also_when_the_folder_is_known(tree, name):
    below = Below(tree)
    assert below("in/in.png") == tree / "in/in.png"
    assert below("in.png") == tree / "in.png"
    with pytest.raises(IrstkitError, match="leaves the data set's folder"):
        below(name)
