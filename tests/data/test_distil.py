"""A distilled store is its original, with large pictures mixed with the teacher's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finescale
from finescale.cli.main import main
from finescale.data.distil import distil
from finescale.data.store import Store
from finescale.errors import FinescaleError, UsageError
from finescale.training.recipe import parse_recipe
from finescale.training.run import train
from finescale.weights.header import read_header, sha256


@pytest.fixture(scope="module")
def teacher(tiny_weights: Path) -> Path:
    return next(tiny_weights.glob("*-x2.safetensors"))


@pytest.fixture(scope="module")
def distilled(tiny_store: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilled") / "store"
    assert main(["data", "distil", str(tiny_store), str(teacher), "-o", str(folder), "--share", "0.6"]) == 0
    return folder


def test_large_pictures_are_mixed_and_small_ones_are_the_same(tiny_store: Path, distilled: Path, teacher: Path) -> None:
    before, after = Store(tiny_store), Store(distilled)
    assert after.items == before.items
    assert (after.scales, after.licence) == ([2], before.licence)
    for i in range(len(before.items)):
        small = before.picture(i, 2).permute(1, 2, 0).numpy()
        assert np.array_equal(after.picture(i, 2).permute(1, 2, 0), small)
        taught = finescale.upscale(small, 2, teacher, ensemble=True)
        wanted = 0.4 * before.picture(i).permute(1, 2, 0).double().numpy() + 0.6 * taught
        assert np.abs(after.picture(i).permute(1, 2, 0).numpy() - wanted).max() < 2


def test_takes_every_other_picture(tiny_store: Path, distilled: Path, teacher: Path, tmp_path: Path) -> None:
    list(distil(Store(tiny_store), teacher, tmp_path / "s", share=0.6, every=2))
    half, whole = Store(tmp_path / "s"), Store(distilled)
    assert [item.name for item in half.items] == [item.name for item in whole.items[::2]]
    for scale in (1, 2):
        assert torch.equal(half.picture(1, scale), whole.picture(2, scale))


def test_weights_that_are_trained_on_it_name_the_teacher(distilled: Path, teacher: Path, tmp_path: Path) -> None:
    recipe: Mapping[str, Any] = {
        "network": "sa-rcan-light",
        "scale": 2,
        "arguments": {"groups": 1, "blocks": 1, "channels": 16},
        "budget": "1",
        "data": {"train": str(distilled), "batch": 1, "patch": 16},
    }
    train(parse_recipe(recipe, "test"), tmp_path / "run", device="cpu", screen=False, board=False)
    notes = read_header(next((tmp_path / "run").glob("sa-rcan-light*.safetensors"))).notes
    assert notes["data"]["teacher"] == {
        "network": read_header(teacher).name,
        "sha256": sha256(teacher),
        "ensemble": True,
        "share": 0.6,
    }


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, float("nan")])
def test_refuses_a_share_that_is_none(tiny_store: Path, teacher: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        distil(Store(tiny_store), teacher, tmp_path / "s", share=share)


def test_refuses_what_cannot_be_distilled(
    tiny_store: Path, distilled: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="not 0"):
        distil(Store(tiny_store), teacher, tmp_path / "s", every=0)
    with pytest.raises(UsageError, match="distilled already"):
        distil(Store(distilled), teacher, tmp_path / "s")
    with pytest.raises(UsageError, match="already there"):
        distil(Store(tiny_store), teacher, distilled)
    four = next(teacher.parent.glob("*-x4.safetensors"))
    with pytest.raises(FinescaleError, match="no pictures for x4"):
        distil(_only(tiny_store, [2]), four, tmp_path / "s")
    assert main(["data", "distil", str(tiny_store), "bicubic", "-o", str(tmp_path / "s")]) == 2
    assert "bicubic has no weights" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_leaves_nothing_of_a_store_that_was_not_finished(tiny_store: Path, teacher: Path, tmp_path: Path) -> None:
    mixing = distil(Store(tiny_store), teacher, tmp_path / "s")
    next(mixing)
    mixing.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def _only(folder: Path, scales: list[int]) -> Store:
    store = Store(folder)
    store.scales = scales
    return store
