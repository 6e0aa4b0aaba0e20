"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


def find_shared_data() -> Path | None:
    """The folder of pictures and weights to test on: $FINESCALE_DATA, or `shared/data` beside the checkout."""
    named = os.environ.get("FINESCALE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = find_shared_data()
    if folder is None:
        pytest.skip(
            "the test pictures are not here: set FINESCALE_DATA to the folder that holds bench/, train/, weights/"
        )
    return folder
