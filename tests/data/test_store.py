"""The packed store holds exactly the pictures and their exact-bicubic small versions, or is not there."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finescale.data import store
from finescale.data.store import Store
from finescale.errors import FinescaleError, UsageError
from finescale.images.files import write
from finescale.images.folders import find_pictures
from finescale.images.picture import Picture
from finescale.images.resize import resize


def test_holds_the_pixels_of_every_picture(pictures: Path, tiny_store: Path) -> None:
    packed = Store(tiny_store)
    assert packed.pairs == []
    assert "pairs" not in json.loads((tiny_store / "index.json").read_text())  # as in stores of before
    assert [item.name for item in packed.items] == ["0.png", "1.png", "2.png", "3.png"]
    for i, item in enumerate(packed.items):
        original = np.asarray(Image.open(pictures / item.name))
        cropped = original[: item.height, : item.width]
        assert (item.height, item.width) == tuple(n // 12 * 12 for n in original.shape[:2])
        assert np.array_equal(packed.picture(i).permute(1, 2, 0).numpy(), cropped)
        for scale in (2, 3, 4):
            low = resize(torch.tensor(cropped).permute(2, 0, 1), scale=1 / scale)
            assert torch.equal(packed.picture(i, scale), low)


@pytest.mark.slow
def test_the_same_store_from_several_processes(pictures: Path, tiny_store: Path, tmp_path: Path) -> None:
    list(store.prepare(find_pictures([pictures]), tmp_path / "s", (4, 2, 3), workers=2, licence="CC0-1.0"))
    for name in ("hr.bin", "x2.bin", "x3.bin", "x4.bin", "index.json"):
        assert (tmp_path / "s" / name).read_bytes() == (tiny_store / name).read_bytes()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_small_pictures_of_ones_own(pictures: Path, tmp_path: Path, workers: int) -> None:
    """By name, whatever the order and the sizes; cropped as the large ones are."""
    small = tmp_path / "small"
    small.mkdir()
    # 0 and 1 are wholly divided by 2 (120 x 96, 84 x 108), 2 is not (97 x 150): both ways of rounding are in use
    sizes = {"0.png": (60, 48), "1.png": (42, 54), "2.png": (49, 75), "3.png": (36, 36)}
    chance = np.random.default_rng(0)
    lows = {name: chance.integers(0, 256, (h, w, 3), dtype=np.uint8) for name, (w, h) in sizes.items()}
    for name, low in lows.items():
        Image.fromarray(low).save(small / name)
    found = find_pictures([pictures])
    packing = store.prepare(found, tmp_path / "s", (2, 3), small={2: small}, workers=workers)
    assert not [packed for packed in packing if packed.problem]
    packed = Store(tmp_path / "s")
    assert (packed.scales, packed.pairs) == ([2, 3], [2])
    for i, item in enumerate(packed.items):
        expected = lows[item.name][: item.height // 2, : item.width // 2]
        assert np.array_equal(packed.picture(i, 2).permute(1, 2, 0).numpy(), expected)
        assert torch.equal(packed.picture(i, 3), resize(packed.picture(i), scale=1 / 3))

    Image.fromarray(lows["2.png"][:-1]).save(small / "2.png")
    Image.fromarray(lows["2.png"][:-1, :-1]).save(small / "0.png")
    (small / "1.png").unlink()
    results = list(store.prepare(found, tmp_path / "t", (), small={2: small}, workers=workers))
    problems = {packed.name: packed.problem for packed in results}
    assert problems == {
        "0.png": f"{small / '0.png'}: 48 x 74 is not the size of {pictures / '0.png'}, 120 x 96, divided by 2",
        "1.png": f"{pictures / '1.png'}: has no x2 picture ({small / '1.png'}: no such file or directory)",
        "2.png": f"{small / '2.png'}: 49 x 74 is not the size of {pictures / '2.png'}, 97 x 150, divided by 2",
        "3.png": None,
    }


def test_a_bad_file_is_reported_and_the_rest_packed(pictures: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(pictures, mixed)
    (mixed / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:200])
    Image.new("RGB", (8, 80)).save(mixed / "small.png")
    results = list(store.prepare(find_pictures([mixed]), tmp_path / "s", (2,)))
    problems = {packed.name: packed.problem for packed in results if packed.problem}
    assert set(problems) == {"broken.png", "small.png"}
    assert "too small" in str(problems["small.png"])
    assert len(Store(tmp_path / "s").items) == 4


def test_nothing_is_left_of_a_store_that_was_not_finished(pictures: Path, tmp_path: Path) -> None:
    packing = store.prepare(find_pictures([pictures]), tmp_path / "s", (2,))
    next(packing)
    assert not (tmp_path / "s").exists()
    packing.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_is_not_replaced_without_being_told(pictures: Path, tmp_path: Path) -> None:
    found = find_pictures([pictures])
    list(store.prepare(found, tmp_path / "s", (2,), licence="mine"))
    with pytest.raises(UsageError, match="already there"):
        store.prepare(found, tmp_path / "s", (2,))
    list(store.prepare(found, tmp_path / "s", (3,), overwrite=True))
    assert Store(tmp_path / "s").scales == [3]
    (tmp_path / "other").mkdir()
    for _ in range(2):
        with pytest.raises(UsageError, match="not a packed store"):
            store.prepare(found, tmp_path / "other", (3,), overwrite=True)
        (tmp_path / "other" / "index.json").write_text("{}")  # of weights, or of a gallery


def test_what_appears_while_it_is_packed_is_not_replaced(pictures: Path, tmp_path: Path) -> None:
    found = find_pictures([pictures])
    for overwrite, said in ((False, "already there"), (True, "not a packed store")):
        packing = store.prepare(found, tmp_path / f"{overwrite}", (2,), overwrite=overwrite)
        next(packing)
        next(store.prepare(found, tmp_path / f"{overwrite}", (2,), overwrite=overwrite))  # beside another's files
        (tmp_path / f"{overwrite}").mkdir()
        (tmp_path / f"{overwrite}" / "thesis").touch()
        with pytest.raises(UsageError, match=said):
            list(packing)
        assert (tmp_path / f"{overwrite}" / "thesis").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["False", "True"]


def test_what_a_link_leads_to_is_replaced(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_pictures([pictures.resolve()])
    list(store.prepare(found, tmp_path / "s", (2,)))
    (tmp_path / "link").symlink_to(tmp_path / "s")
    list(store.prepare(found, tmp_path / "link", (3,), overwrite=True))
    assert Store(tmp_path / "s").scales == [3]
    monkeypatch.chdir(tmp_path / "s")
    list(store.prepare(found, Path(), (4,), overwrite=True))
    assert Store(tmp_path / "s").scales == [4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "s"]


def test_a_store_that_cannot_be_put_in_place_leaves_the_old_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_pictures([pictures])
    list(store.prepare(found, tmp_path / "s", (2,)))
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith(".part"):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FinescaleError, match="could not be written"):
        list(store.prepare(found, tmp_path / "s", (3,), overwrite=True))
    assert Store(tmp_path / "s").scales == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_folders_within_one_another_are_packed_once(pictures: Path, tmp_path: Path) -> None:
    deep = tmp_path / "all" / "deep"
    shutil.copytree(pictures, deep)
    assert len(find_pictures([tmp_path / "all", deep])) == len(find_pictures([deep]))


@pytest.mark.skipif(os.name != "posix", reason="makes a link to itself")
def test_a_link_to_itself_is_reported_and_the_rest_packed(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "in")
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    results = list(store.prepare(find_pictures([tmp_path / "in"]), tmp_path / "s", (2,)))
    assert {packed.name for packed in results if packed.problem} == {"loop.png"}
    assert len(Store(tmp_path / "s").items) == 4


def test_processes_are_not_far_ahead_of_what_is_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []

    class Pool:
        def __init__(self, *words: object, **options: object) -> None: ...

        def submit(self, work: Callable[..., Any], path: Path, *words: object) -> Future[Any]:
            given.append(path)
            future: Future[Any] = Future()
            future.set_result(work(path, *words))
            return future

        def shutdown(self, *, cancel_futures: bool) -> None:
            given.append(Path("shut"))

    monkeypatch.setattr(store, "ProcessPoolExecutor", Pool)
    packing = store.prepare(find_pictures([pictures]) * 10, tmp_path / "s", (2,), workers=2)
    for taken in range(1, 4):
        next(packing)
        assert len(given) == taken + 4
    packing.close()  # type: ignore[attr-defined]
    assert given[-1] == Path("shut")


@pytest.mark.parametrize(
    "change",
    [
        {"scales": 4},
        {"scales": [5]},
        {"items": []},
        {"items": [{"name": "a", "height": "12", "width": 12, "offset": 0}]},
        {"items": [{"name": "a", "height": 12, "width": 12, "offset": 36}]},
        {"items": [{"name": "a", "height": -12, "width": -12, "offset": 0}]},
    ],
)
def test_an_index_of_something_else_is_refused(tiny_store: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    damaged = tmp_path / "s"
    shutil.copytree(tiny_store, damaged)
    index = json.loads((damaged / "index.json").read_text())
    (damaged / "index.json").write_text(json.dumps(index | change))
    with pytest.raises(FinescaleError, match=r"s: not a packed store \("):
        Store(damaged)


def test_damage_is_found_when_it_is_opened(tiny_store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "s"
    shutil.copytree(tiny_store, damaged)
    with open(damaged / "x3.bin", "r+b") as file:
        file.truncate(100)
    with pytest.raises(FinescaleError, match=r"x3\.bin: damaged store"):
        Store(damaged)
    (damaged / "index.json").write_text(json.dumps({"items": [{"name": "a"}], "scales": [2]}))
    with pytest.raises(FinescaleError, match="not a packed store"):
        Store(damaged)
    with pytest.raises(FinescaleError, match="finescale data prepare"):
        Store(tmp_path / "nothing")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere files have no holes, or memory no such bound")
def test_a_store_larger_than_the_memory(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    side = 12 * (1 << 16)  # 1.7 TiB, of which nothing lies on the disk
    index = {"scales": [2], "items": [{"name": "a.png", "height": side, "width": side, "offset": 0}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    for name, scale in (("hr.bin", 1), ("x2.bin", 2)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(3 * (side // scale) ** 2)
    large = Store(tmp_path)
    assert large.flat().shape == (3 * side**2,)
    assert not large.flat()[-5:].any()
    assert not recwarn.list


def test_a_scale_it_lacks(tiny_store: Path, pictures: Path, tmp_path: Path) -> None:
    list(store.prepare(find_pictures([pictures]), tmp_path / "s", (2,)))
    with pytest.raises(FinescaleError, match="no pictures for x4, only for x2"):
        Store(tmp_path / "s").flat(4)
    with pytest.raises(UsageError, match="2, 3 and 4"):
        store.prepare(find_pictures([pictures]), tmp_path / "t", (5,))


def test_hidden_colours_are_not_learned(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    alpha = np.zeros((48, 48), np.uint8)
    alpha[:24] = 255
    write(Picture(noise, alpha), tmp_path / "a.png")
    list(store.prepare(find_pictures([tmp_path]), tmp_path / "s", (2,)))
    seen = Store(tmp_path / "s").picture(0).permute(1, 2, 0).numpy()
    assert np.array_equal(seen[:24], noise[:24])
    assert (seen[24:] == 255).all()
