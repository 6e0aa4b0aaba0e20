"""Where caches and data lie."""

import os
from pathlib import Path

import pytest

from finescale import doctor
from finescale.backbones import catalogue as backbones
from finescale.backbones import metric_files
from finescale.cache import cache_folder
from finescale.data.download import datasets_folder
from finescale.weights import places


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


@pytest.mark.skipif(os.name != "posix", reason="names as POSIX systems have them")
def test_where_the_system_does_not_let_look_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the home of another user: `Path.is_dir` and `is_file` raise there, and at a name that is too long."""
    monkeypatch.setenv("XDG_CACHE_HOME", f"/{'x' * 300}")
    monkeypatch.delenv("TORCH_HOME", raising=False)
    with pytest.raises(OSError, match="too long"):
        Path(os.environ["XDG_CACHE_HOME"]).is_dir()
    assert places.candidates()[0] in places.folders()
    assert metric_files.find("nothing.pt") is None
    assert backbones.find("resnet34") is None
    problems: list[str] = []
    assert doctor._cache(problems)["writable"] is False or os.access("/", os.W_OK)
    assert doctor._weights(problems)["searched"][-1]["exists"] is False
