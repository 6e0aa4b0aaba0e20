from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import figure
from finescale.evaluation.arrays import Damage, downscale
from finescale.evaluation.contenders import Contender, contender
from finescale.evaluation.figure import Box, Scene
from finescale.evaluation.metrics import Pixels, luma, psnr, ssim
from finescale.networks.catalogue import build

pytest.importorskip("matplotlib", reason="figures need matplotlib")

REFERENCES = [contender("nearest", 4), contender("bicubic", 4)]
# scenes of the published figures, a box of each: the tunnel's panels, the baboon's whiskers, the partridge's stripes
SCENES = {
    "Set14/baboon": Box(120, 330, 110, 80),
    "Urban20/img_078": Box(640, 90, 160, 120),
    "B100/8023": Box(170, 150, 110, 80),
}


@pytest.fixture
def tiny() -> Contender:
    torch.manual_seed(0)
    network = build("rcan", scale=4, channels=4, groups=1, blocks=1, reduction=2, tail="direct").eval()

    @torch.inference_mode()
    def enlarge(low: torch.Tensor) -> torch.Tensor:
        return (network(low[None] / 255)[0] * 255).round().clamp(0, 255).to(torch.uint8)

    return Contender("tiny", enlarge)


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", SCENES)
def test_the_scenes_of_the_published_figures(shared_data: Path, tmp_path: Path, tiny: Contender, name: str) -> None:
    made = figure.scene(shared_data / "bench" / "HR" / f"{name}.webp", [*REFERENCES, tiny], 4)
    box = SCENES[name]
    tiles = made.tiles(box)
    assert [tile.name for tile in tiles] == ["nearest", "bicubic", "tiny"]
    nearest, bicubic = tiles[0].psnr, tiles[1].psnr
    assert nearest is not None
    assert bicubic is not None
    assert bicubic > nearest > 10
    for tile in tiles:
        assert tile.pixels.shape == (box.height, box.width, 3)
        assert tile.psnr == psnr(luma(tile.pixels), luma(box.of(made.high)))
        assert tile.ssim == ssim(luma(tile.pixels), luma(box.of(made.high)))
    file = tmp_path / "figure.png"
    figure.draw(made, [box], file)
    with Image.open(file) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    k = round(340 / box.width)
    assert contains(pixels, box.of(made.high).repeat(k, 0).repeat(k, 1))
    assert contains(pixels, tiles[1].pixels.repeat(k, 0).repeat(k, 1))


def contains(page: Pixels, part: Pixels) -> bool:
    """Whether the inner half of `part` stands somewhere on the page, pixel for pixel."""
    height, width = part.shape[:2]
    part = part[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4]
    corner = (page[: 1 - part.shape[0], : 1 - part.shape[1]] == part[0, 0]).all(2)
    spots = np.argwhere(corner)
    return any(np.array_equal(page[y : y + part.shape[0], x : x + part.shape[1]], part) for y, x in spots)


def apart(boxes: list[Box], high: Pixels) -> bool:
    """No pixel is in two of the boxes."""
    covered = np.zeros(high.shape[:2], int)
    for box in boxes:
        box.of(covered)[...] += 1
    return bool(covered.max() == 1)


def test_boxes_where_the_networks_differ() -> None:
    high = np.full((100, 120, 3), 128, np.uint8)
    one, other = high.copy(), high.copy()
    one[60:70, 80:95] += 40
    other[10:14, 10:14] += 20
    made = Scene("s", 2, high, {"a": one, "b": other, "bicubic": picture(100, 120)})
    first, second = figure.most_different_boxes(made, 2, (20, 16))
    assert first.left <= 80
    assert first.left + first.width >= 95
    assert first.top <= 60
    assert first.top + first.height >= 70
    assert second.left <= 10
    assert second.left + second.width >= 14
    assert apart([first, second], high)


@pytest.mark.parametrize("networks", [0, 1, 3])
def test_chosen_boxes_lie_inside_and_apart(networks: int) -> None:
    high = picture(64, 90)
    made = Scene("s", 2, high, {str(i): picture(64, 90, i + 1) for i in range(networks)})
    boxes = figure.most_different_boxes(made, 50, (30, 20))
    assert 4 <= len(boxes) <= 9
    for box in boxes:
        figure.check_box(box, high)
    assert apart(boxes, high)
    assert figure.most_different_boxes(made, 1)[0].height == 24
    with pytest.raises(UsageError, match="do not fit"):
        figure.most_different_boxes(made, 1, (91, 5))


def test_a_low_resolution_picture_with_its_original(tmp_path: Path) -> None:
    high = picture(50, 61)
    Image.fromarray(high).save(tmp_path / "high.png")
    low = downscale(high[:48, :60], 4).permute(1, 2, 0).numpy()
    Image.fromarray(low).save(tmp_path / "low.png")
    both = figure.scene(tmp_path / "low.png", REFERENCES, 4, high=tmp_path / "high.png")
    alone = figure.scene(tmp_path / "high.png", REFERENCES, 4)
    assert both.name == alone.name == "high"
    assert np.array_equal(both.enlarged["bicubic"], alone.enlarged["bicubic"])
    old = figure.scene(tmp_path / "high.png", REFERENCES, 4, damage=Damage(jpeg=30)).enlarged["nearest"]
    assert np.array_equal(old[::4, ::4], downscale(high[:48, :60], 4, damage=Damage(jpeg=30)).permute(1, 2, 0).numpy())
    with pytest.raises(FinescaleError, match=r"high\.png: it is 60 x 50, not 2 times .*low\.png, which is 15 x 12"):
        figure.scene(tmp_path / "low.png", [], 2, high=tmp_path / "high.png")


def test_a_real_photograph_has_no_original(tmp_path: Path) -> None:
    Image.fromarray(picture(20, 30)).save(tmp_path / "photo.png")
    made = figure.scene(tmp_path / "photo.png", REFERENCES, 4, real=True)
    assert made.high.shape == (80, 120, 3)
    box = Box(8, 8, 40, 32)
    assert [(tile.name, tile.psnr, tile.ssim) for tile in made.tiles(box)] == [
        ("nearest", None, None),
        ("bicubic", None, None),
    ]
    figure.draw(made, [box], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert contains(pixels, box.of(made.enlarged["nearest"]).repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize("extension", ["png", "pdf", "svg", "webp"])
def test_every_format_and_never_over_a_file(tmp_path: Path, extension: str) -> None:
    made = Scene("a long name of a picture that is small", 2, picture(40, 60), {"net": picture(40, 60, 1)})
    file = tmp_path / f"f.{extension}"
    boxes = [Box(0, 0, 20, 10), Box(30, 20, 8, 20)]
    figure.draw(made, boxes, file)
    head = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "webp": b"RIFF"}[extension]
    content = file.read_bytes()
    assert content.startswith(head)
    with pytest.raises(FinescaleError, match="already exists"):
        figure.draw(made, boxes, file)
    figure.draw(made, boxes, file, overwrite=True)
    assert file.read_bytes() == content, "the same figure is the same file"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_small_boxes_have_no_ssim() -> None:
    made = Scene("s", 2, picture(40, 60), {"net": picture(40, 60, 1)})
    assert made.tiles(Box(0, 0, 10, 20))[0].ssim is None
    assert made.tiles(Box(0, 0, 11, 11))[0].ssim is not None


@pytest.mark.parametrize("box", [Box(55, 0, 10, 10), Box(0, 31, 10, 10), Box(0, 0, 0, 5)])
def test_boxes_outside_are_refused(tmp_path: Path, box: Box) -> None:
    made = Scene("s", 2, picture(40, 60), {"net": picture(40, 60, 1)})
    with pytest.raises(UsageError, match="is not inside the picture of 60 x 40"):
        figure.draw(made, [box], tmp_path / "f.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_figure_too_large_for_webp_is_one_sentence(tmp_path: Path) -> None:
    made = Scene("s", 2, picture(40, 60), {"net": picture(40, 60, 1)})
    with pytest.raises(FinescaleError, match=r"f\.webp: WEBP holds at most 16383 pixels per side, not \d+"):
        figure.draw(made, [Box(0, 0, 20, 20)] * 50, tmp_path / "f.webp")
    assert not list(tmp_path.iterdir())


def test_unknown_formats_and_colourless_rows(tmp_path: Path) -> None:
    made = Scene("s", 2, picture(40, 60), {})
    with pytest.raises(UsageError, match="written as png, pdf, svg, webp"):
        figure.draw(made, [Box(0, 0, 9, 9)], tmp_path / "f.gif")
    with pytest.raises(UsageError, match="use 'bicubic'"):
        figure.scene(tmp_path / "f.png", [contender("bicubic-y", 2)], 2)


def test_the_picture_itself_is_perfect() -> None:
    high = picture(40, 60)
    assert Scene("s", 2, high, {"oracle": high}).tiles(Box(0, 0, 20, 20))[0].psnr == float("inf")
