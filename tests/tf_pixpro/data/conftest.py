"""A folder of ten small images of two classes."""

import pytest
from image_sources import jpeg, write


@pytest.fixture
def files():
    return {f"train/{'cat' if i % 2 else 'dog'}/{i:02d}.jpg": jpeg(i) for i in range(10)}


@pytest.fixture
def folder(tmp_path, files):
    return write(tmp_path / "images", files)
