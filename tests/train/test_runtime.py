"""What a run needs of its surroundings: memory that is kept between steps."""

import platform
import resource

import pytest
import torch

from irstkit.train.runtime import memory_kept

GLIBC = platform.libc_ver()[0] == "glibc"


@pytest.fixture
def no_settings_of_the_user(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)


def new_pages() -> int:
    """Pages that the system had to provide for a block of 48 MiB, made and freed again, once that has settled."""
    for _ in range(8):
        torch.empty(48 * 2**20, dtype=torch.uint8).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(48 * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_memory_is_kept_inside_and_given_back_outside(no_settings_of_the_user):
    outside = new_pages()
    with memory_kept() as kept:
        inside = new_pages()
    assert kept
    assert inside < outside / 5
    assert new_pages() > outside / 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000"), ("MALLOC_TOP_PAD_", "2000")],
)
def test_the_users_own_settings_are_left_alone(no_settings_of_the_user, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    outside = new_pages()
    with memory_kept() as kept:
        assert not kept
        assert not GLIBC or new_pages() > outside / 2


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_settings_of_something_else_do_not_count(no_settings_of_the_user, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    with memory_kept() as kept:
        assert kept


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with memory_kept() as kept:
        assert not kept
