"""Random crops are aligned, equally likely everywhere, and the same on any number of processes."""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image

from finescale.data import store
from finescale.data.crops import Crops
from finescale.data.degradations import Degradation
from finescale.errors import FinescaleError
from finescale.images.folders import find_pictures

CPU = torch.device("cpu")


def crops(folder: Path, *, scale: int = 2, patch: int = 8, seed: int = 0, share: tuple[int, int] = (0, 1)) -> Crops:
    return Crops(store.Store(folder), scale=scale, patch=patch, device=CPU, seed=seed, share=share)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_crop_is_a_piece_of_a_picture_and_aligned_with_its_partner(tiny_store: Path, scale: int) -> None:
    packed = store.Store(tiny_store)
    low, high = crops(tiny_store, scale=scale).batch(24)
    assert low.shape == (24, 3, 8, 8)
    assert high.shape == (24, 3, 8 * scale, 8 * scale)
    found = set()
    for a, b in zip((low * 255).round().byte(), (high * 255).round().byte()):
        places = []
        for turn in range(8):
            x, y = _turned(a, turn), _turned(b, turn)
            for i in range(len(packed.items)):
                picture, large = packed.picture(i, scale), packed.picture(i)
                windows = picture.unfold(1, 8, 1).unfold(2, 8, 1)
                for top, left in (windows == x[:, None, None]).all(dim=(0, 3, 4)).nonzero().tolist():
                    piece = large[:, top * scale : (top + 8) * scale, left * scale : (left + 8) * scale]
                    places += [turn] if torch.equal(piece, y) else []
        assert places
        found.update(places)
    assert len(found) == 8  # all flips and turns occur


def _turned(x: torch.Tensor, turn: int) -> torch.Tensor:
    x = x.transpose(1, 2) if turn & 4 else x
    x = x.flip(2) if turn & 1 else x
    return x.flip(1) if turn & 2 else x


def test_every_position_is_equally_likely(tiny_store: Path) -> None:
    # with crops as high as the smallest picture, the others are drawn in proportion to their positions
    source = crops(tiny_store, patch=30)
    sizes = [(item.height // 2, item.width // 2) for item in store.Store(tiny_store).items]
    positions = torch.tensor([(h - 29) * (w - 29) for h, w in sizes], dtype=torch.float64)
    drawn = torch.diff(source.places, prepend=torch.zeros(1, dtype=torch.float64))
    assert torch.equal(drawn, positions)


def test_crops_reach_every_border_equally_often(tmp_path: Path) -> None:
    Image.effect_noise((24, 24), 90).convert("RGB").save(tmp_path / "a.png")
    list(store.prepare([("a.png", tmp_path / "a.png")], tmp_path / "store", (2,), licence="CC0-1.0"))
    small = store.Store(tmp_path / "store").picture(0, 2)
    low, _ = crops(tmp_path / "store", patch=11).batch(400)
    places = {}
    for top, left in itertools.product(range(2), repeat=2):
        piece = small[:, top : top + 11, left : left + 11]
        turned = [_turned(piece, turn).float() / 255 for turn in range(8)]
        places[top, left] = sum(bool((crop == one).all()) for crop in low for one in turned)
    assert sum(places.values()) == 400
    assert all(60 < count < 140 for count in places.values()), places


def test_the_parts_of_several_processes_are_the_batch_of_one(tiny_store: Path) -> None:
    whole = crops(tiny_store)
    parts = [crops(tiny_store, share=(i, 3)) for i in range(3)]
    for _ in range(2):
        low, high = whole.batch(6)
        batches = [part.batch(6) for part in parts]
        assert torch.equal(low, torch.cat([batch[0] for batch in batches]))
        assert torch.equal(high, torch.cat([batch[1] for batch in batches]))


def test_goes_on_where_it_was(tiny_store: Path) -> None:
    first, second = crops(tiny_store), crops(tiny_store, seed=1)
    first.batch(4)
    second.generator.set_state(first.generator.get_state())
    assert torch.equal(first.batch(4)[1], second.batch(4)[1])


def test_degraded_crops_are_those_of_clean_runs_beside_clean_originals(tiny_store: Path) -> None:
    low, high = crops(tiny_store, patch=16).batch(1)
    made = crops(tiny_store, patch=16)
    made.degradation = Degradation(jpeg=(30, 30))
    worse, same = made.batch(1)
    assert torch.equal(high, same)
    assert 0 < (worse - low).abs().mean() < 0.2
    parts = [crops(tiny_store, patch=16, share=(i, 2)) for i in range(2)]
    for part in (made, *parts):
        part.generator.manual_seed(1)
        part.degradation = Degradation(0.8, noise=(0, 20), jpeg=(20, 90))
    for whole, halves in zip(made.batch(6), zip(*(part.batch(6) for part in parts))):
        torch.testing.assert_close(whole, torch.cat(halves))


def test_noise_is_every_crop_s_own_and_comes_again_with_it(tmp_path: Path) -> None:
    Image.new("RGB", (96, 96), (128, 128, 128)).save(tmp_path / "grey.png")
    list(store.prepare(find_pictures([tmp_path]), tmp_path / "store", (2,), licence="none"))
    source = crops(tmp_path / "store", patch=16)
    source.degradation = Degradation(noise=(9, 9))
    start = source.generator.get_state()
    noise = torch.cat([source.batch(4)[0] for _ in range(2)])
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(noise, 2))
    source.generator.set_state(start)
    assert torch.equal(source.batch(4)[0], noise[:4])


def test_too_large_a_crop(tiny_store: Path) -> None:
    source = crops(tiny_store)
    source.set_patch(40)  # only some pictures hold one
    assert source.batch(4)[0].shape == (4, 3, 40, 40)
    with pytest.raises(FinescaleError, match="80 x 80"):
        source.set_patch(80)
