"""Where caches and data lie."""

import os
from pathlib import Path

import pytest

from finescale.cache import cache_folder
from finescale.data.download import datasets_folder


@pytest.mark.parametrize("named", ["", "relative", "./here", "/elsewhere"])
def test_relative_folders_are_ignored(named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, named)
    kept = Path(named).is_absolute()
    assert cache_folder("weights").parents[1] == (Path(named) if kept else tmp_path / ".cache")
    assert datasets_folder().parents[1] == (Path(named) if kept else tmp_path / ".local" / "share")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("weights") == tmp_path / ".cache" / "finescale" / "weights"


def test_who_has_no_home_lives_at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder("weights") == Path(os.sep, ".cache", "finescale", "weights")
    assert datasets_folder() == Path(os.sep, ".local", "share", "finescale", "datasets")
