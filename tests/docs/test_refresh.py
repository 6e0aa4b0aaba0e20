"""What the documentation says of the shipped weights is what their files say: nothing is stale."""

import json
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from finescale.atomic import sha256
from finescale.cli.main import parser
from finescale.weights.header import read_header
from finescale.weights.places import INDEX
from tests.conftest import SHIPPED_WEIGHTS as SHIPPED
from tests.conftest import tracked

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted({path.parent for path in SHIPPED}, reverse=True)
INDICES = [json.loads((folder / INDEX).read_text("utf-8")) for folder in FOLDERS]
LISTED = {name: entry for index in INDICES for name, entry in index.items()}


@pytest.fixture(scope="module")
def script() -> Mapping[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "refresh.py"))


@pytest.fixture(scope="module")
def weights(script: Mapping[str, Any]) -> Sequence[Any]:
    found: Sequence[Any] = script["shipped"]()
    return found


def test_the_readme_gives_every_measured_figure(script: Mapping[str, Any], weights: Sequence[Any]) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    block = text.partition("<!-- figures -->\n")[2].partition("<!-- /figures -->")[0]
    write: Callable[..., str] = script["block"]
    assert block.strip() == write(weights).strip(), "stale: run python docs/refresh.py tables"
    for table in block.split("\n**x")[1:]:
        assert "| bicubic (" in table  # of every scale, something to compare with
    for path in SHIPPED:
        line = next(line for line in block.splitlines() if f"`{sha256(path)[:16]}`" in line)
        header = read_header(path)
        assert f"**{header.name}**" in line
        for figures in LISTED[path.name]["figures"].values():
            assert f"{figures['psnr']:.2f} / {figures['ssim']:.4f}" in line


def test_the_index_says_what_the_files_say() -> None:
    for folder, index in zip(FOLDERS, INDICES):
        files = [path.name for path in tracked(str(folder)) if path.suffix == ".safetensors"]
        assert sorted(index) == sorted(files)
    for path in SHIPPED:
        notes = read_header(path).notes
        told = {key: notes[key] for key in ("licence", "pictures", "minutes", "figures")}
        assert LISTED[path.name] == {"sha256": sha256(path), "size": path.stat().st_size, **told}


def test_the_gallery_is_of_the_shipped_weights(script: Mapping[str, Any]) -> None:
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    for path in SHIPPED:
        if read_header(path).scale == 4:
            assert sha256(path) in page, "stale: run python docs/refresh.py gallery"
    for photograph in script["GALLERY"]:
        assert photograph.source in page
        assert (ROOT / "docs" / "images" / photograph.file).is_file()
    pictures = [path for path in tracked("docs/images") if path.suffix in (".png", ".jpg", ".webp")]
    assert 1e6 < sum(path.stat().st_size for path in pictures) < 5e6


def test_results_are_of_the_shipped_weights(script: Mapping[str, Any]) -> None:
    folder = ROOT / "docs" / "results"
    write: Callable[[], str] = script["contents"]
    assert (folder / "README.md").read_text("utf-8") == write(), "stale: run python docs/refresh.py tables"
    hashes = {path.name: sha256(path) for path in SHIPPED}
    for file in folder.glob("x*/results-x*.json"):
        for network in json.loads(file.read_text("utf-8"))["networks"]:
            if name := network.get("weights"):
                assert network["sha256"] == hashes[name], (
                    f"{file.parent.name}: stale: run python docs/refresh.py results"
                )


def test_the_results_contents_name_every_run(script: Mapping[str, Any], tmp_path: Path) -> None:
    write: Callable[[Path], str] = script["contents"]
    for where, psnr in (("x4", 31.254), ("x4-ensemble", 31.301)):
        (tmp_path / where).mkdir()
        network = {"name": "some-net", "sha256": "ab" * 32, "sets": {"Set5": {"psnr": psnr}}}
        run = {"scale": 4, "networks": [{"name": "bicubic", "sets": {"Set5": {"psnr": 28.43}}}, network]}
        (tmp_path / where / "results-x4.json").write_text(json.dumps(run))
    (tmp_path / "training.md").write_text("# How they were trained\n\nSlowly.\n")
    page = write(tmp_path)
    assert "| [x4](x4/results-x4.md) | some-net | Set5 31.25 | local" in page
    assert "| [x4-ensemble](x4-ensemble/results-x4.md) | some-net | Set5 31.30 | averaged" in page
    assert "- [How they were trained](training.md)" in page
    assert "bicubic" not in page


def test_the_benchmark_commands_are_commands(
    script: Mapping[str, Any], weights: Sequence[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    run: Callable[..., None] = script["results"]
    monkeypatch.setitem(run.__globals__, "finescale", lambda *arguments: asked.append(arguments))
    run(weights, ["Set5", "B100"])
    scales = {file.header.scale for file in weights}
    read = [parser().parse_args(arguments) for arguments in asked]
    assert {(args.scale, args.report.name) for args in read} == {
        (scale, f"x{scale}{variant.suffix}") for scale in scales for variant in script["VARIANTS"]
    }
    for args in read:
        suffix = args.report.name.removeprefix(f"x{args.scale}")
        variant = next(variant for variant in script["VARIANTS"] if variant.suffix == suffix)
        wanted = variant.networks or script["names"](weights, args.scale)
        assert set(args.networks) - {"bicubic", "bicubic-y"} == set(wanted) - {"bicubic"}
        assert args.sets == [name for name in ("Set5", "B100") if name in variant.sets]
        assert args.overwrite


def test_only_the_block_of_the_readme_is_replaced(script: Mapping[str, Any]) -> None:
    pattern: re.Pattern[str] = script["BLOCK"]
    text = "a\n<!-- figures -->\nold\n<!-- /figures -->\nb\n"
    assert pattern.sub(r"\1new\n\2", text) == "a\n<!-- figures -->\nnew\n<!-- /figures -->\nb\n"
