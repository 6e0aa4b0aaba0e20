"""`finescale networks`."""

import json
import re
from pathlib import Path

import pytest
from tests.conftest import SHIPPED_WEIGHTS

from finescale.cli import main as cli
from finescale.images.jpeg import STRONG
from finescale.inference.upscale import Networks
from finescale.networks.catalogue import ALIASES, NETWORKS, build
from finescale.networks.complexity import cost
from finescale.weights import overview as module
from finescale.weights import places
from finescale.weights.files import save
from finescale.weights.header import parameters, read_header

LICENCE = "for tests"
START = {"file": "rcan-x2.safetensors", "sha256": "0" * 64, "licence": "for research"}
FIGURES = {"Set5": {"psnr": 31.234, "ssim": 0.8765}}


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of few, quickly built networks, and weights for one of them."""
    chosen = {name: NETWORKS[name] for name in ("bicubic", "unet-2", "sa-rcan-light")}
    monkeypatch.setattr(module, "NETWORKS", chosen)
    monkeypatch.setattr("finescale.weights.store.NETWORKS", chosen)
    monkeypatch.setattr(places, "candidates", lambda: [tmp_path])
    for scale in (2, 3):
        save(
            build("sa-rcan-light", scale=scale),
            tmp_path / f"sa-rcan-light-x{scale}.safetensors",
            notes={"figures": FIGURES, "licence": LICENCE, "started_from": START},
        )


@pytest.mark.usefixtures("few")
def test_rows_tell_cost_weights_and_figures() -> None:
    bicubic, unet, light = module.overview(2)
    assert (bicubic.parameters, bicubic.macs, bicubic.scales, bicubic.figures) == (0, 0, [2, 3, 4], {})
    assert unet.aliases == ["sr-resunet"]
    assert unet.scales == []
    assert 38e6 < unet.parameters < 39e6
    assert {2, 3} <= set(light.scales)
    assert light.figures[2] == FIGURES


def test_shipped_networks_for_other_pictures_show_their_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("FINESCALE_WEIGHTS", raising=False)
    assert cli.main(["networks"]) == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if " sa-rcan-light-jpeg " in line)
    figures = read_header(places.candidates()[0] / "sa-rcan-light-jpeg-x2.safetensors").notes["figures"]["Set5-jpeg40"]
    assert f"x2 {figures['psnr']:.2f} / {figures['ssim']:.4f} (jpeg40)" in line
    figures = read_header(places.candidates()[0] / "sa-rcan-light-graphics-x4.safetensors").notes["figures"]["drawn"]
    assert f"x4 {figures['psnr']:.2f} / {figures['ssim']:.4f} (drawn)" in said


@pytest.mark.usefixtures("few")
def test_the_verb_prints_a_table_and_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    assert cli.main(["networks"]) == 0
    table = capsys.readouterr().out
    for part in ("sa-rcan-light", "sr-resunet", "38.08 M", "x2 31.23 / 0.8765"):
        assert part in table
    assert "rcan-x2" not in table  # what they started from, the JSON tells
    assert cli.main(["networks", "--json", "--scale", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["bicubic", "unet-2", "sa-rcan-light"]
    assert rows[2]["figures"]["2"]["Set5"]["psnr"] == 31.234
    assert rows[2]["notes"]["2"]["licence"] == LICENCE
    assert rows[2]["notes"]["2"]["started_from"] == START


@pytest.mark.usefixtures("few")
def test_files_of_ones_own_tell_their_parameters_and_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    small = build("sa-rcan-light", scale=2, channels=16, groups=1, blocks=1)
    notes: dict[str, object] = {"validation": {"set": "val", "psnr_y": 30.7267, "ssim_y": 0.84281}}
    save(small, tmp_path / "own-x2.safetensors", notes=notes)
    save(small, tmp_path / "odd-x2.safetensors", notes={"validation": ["by", "hand"]})
    row = next(row for row in module.overview(4) if row.name == "own")
    assert row.parameters == sum(parameter.numel() for parameter in small.parameters())
    assert cli.main(["networks"]) == 0
    said = capsys.readouterr().out
    (own,) = (line for line in said.splitlines() if line.lstrip().startswith("own "))
    assert f"{row.parameters / 1e6:.2f} M" in own
    assert " x2 30.73 / 0.8428 (validation: val) " in own
    assert "at x4 (your own: that or the first here)" in said


@pytest.mark.parametrize("path", SHIPPED_WEIGHTS, ids=lambda path: path.stem)
def test_parameters_are_counted_from_the_table_of_contents(path: Path) -> None:
    header = read_header(path)
    assert parameters(path) == cost(header.name, scale=header.scale).parameters


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("width", [40, 80, 110])
def test_a_narrow_terminal_keeps_names_whole_and_shows_first_what_can_be_used(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert cli.main(["networks"]) == 0
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    words = [line.replace(",", "").split() for line in lines]
    places = [next(i for i, line in enumerate(words) if line[:1] == [name]) for name in ("sa-rcan-light", "unet-2")]
    assert places == sorted(places)
    assert any(" x2 31.23 / 0.8765 " in line for line in lines)
    assert any("for photographs; small and fast, the" in line for line in lines)
    strong = NETWORKS["sa-rcan-light-jpeg"].summary
    assert f"below quality {STRONG}:" in strong  # where `upscale` begins to choose it


def test_aliases_name_networks() -> None:
    assert set(ALIASES.values()) <= set(NETWORKS)
    assert build("noise", scale=2).config == build("sa-rcan-light-noise", scale=2).config
    networks = Networks("noise")
    assert networks.name == "sa-rcan-light-noise"
    assert networks.restores  # its file is found without torch
