"""Scenes and libraries that are not part of the project."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("HSUNMIX_SHARED_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not there")
