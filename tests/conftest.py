"""Small tensors: threads that wait for each other cost more than they bring, the more so with tests side by side."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
LONGEST = ("tests/training/test_scripts.py", "tests/docs/test_tutorial.py")  # minutes each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
