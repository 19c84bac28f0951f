"""A FiftyOne of the tests' own: its database dies with the test process and never is the user's."""

from __future__ import annotations

import importlib.util
import os
import warnings

import pytest


@pytest.fixture(scope="session")
def fo(tmp_path_factory):
    """The ``fiftyone`` module on a database of its own; a skip that says what is missing."""
    if importlib.util.find_spec("fiftyone") is None:
        pytest.skip("needs the package fiftyone (pip install 'irstkit[fiftyone]')")
    from irstkit.datasets.database import find_database
    from irstkit.datasets.service import isolate

    database = find_database()
    if database is None or database.kind == "uri":
        pytest.skip("needs a mongod of its own (irstkit doctor --install-database)")
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # FiftyOne takes its home at import; the other tests keep theirs
        patch.setenv("HOME", os.environ.get("HOME", ""))
        isolate(tmp_path_factory.mktemp("fiftyone"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import fiftyone
    return fiftyone
