import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finescale.errors import FinescaleError
from finescale.evaluation import plots, report
from finescale.evaluation.benchmark import Row, Run
from finescale.evaluation.scoring import Score, Unavailable
from finescale.evaluation.speed import Speed

LIGHT = Row(
    "sa-rcan-light",
    429_000,
    1_040_000_000,
    "sa-rcan-light-x4.safetensors",
    "ab" * 32,
    {"Set5": [Score("baby", 33.5, 0.91, 0.2, 0.1, 0.25), Score("bird", 35.5, 0.93, 0.1, 0.1, 0.75)]},
    Speed(0.51, 612.4),
)
BICUBIC = Row("bicubic", scores={"Set5": [Score("baby", 31.78, 0.8575), Score("bird", 30.18, 0.8730)]})
MISSING = Row("rcan", missing="there are no trained weights for rcan x4")


@pytest.fixture
def run() -> Run:
    return Run(
        scale=4,
        sets=["Set5"],
        rows=[BICUBIC, LIGHT, MISSING],
        metrics=[Unavailable("lpips", "LPIPS", "LPIPS needs its linear layers")],
        settings={"ensemble": True},
        command="finescale bench --networks bicubic,sa-rcan-light,rcan --sets Set5",
        machine={"device": "a processor", "threads": 2},
        timed_size=(320, 180),
        date="2026-01-01 00:00 UTC",
    )


def test_the_whole_report(run: Run, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    folder = tmp_path / "deep" / "results"
    report.check(folder, 4, ["Set5"])
    written = report.write(run, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    assert {path.name for path in written} == {
        "results-x4.md",
        "results-x4.csv",
        "results-x4.json",
        "pictures-x4.md",
        "psnr-parameters-x4-Set5.svg",
        "psnr-seconds-x4-Set5.svg",
    }
    page = (folder / "results-x4.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (folder / link).is_file(), link
    found = json.loads((folder / "results-x4.json").read_text())
    assert found["networks"][1]["sets"]["Set5"]["psnr"] == 34.5
    with pytest.raises(FinescaleError, match="already exists"):
        report.check(folder, 4, ["Set5"])
    report.check(folder, 4, ["Set5"], overwrite=True)
    before = (folder / "psnr-parameters-x4-Set5.svg").read_bytes()
    backend = matplotlib.get_backend()
    with matplotlib.rc_context({"text.usetex": True, "savefig.bbox": "tight", "axes.grid": True}):  # of its user
        report.write(run, folder, overwrite=True)
    assert (folder / "psnr-parameters-x4-Set5.svg").read_bytes() == before, "the same plot is the same file"
    assert matplotlib.get_backend() == backend
    assert b">sa-rcan-light</text>" in before  # not as outlines, which take two to three times the bytes
    report.write(replace(run, rows=[replace(LIGHT, speed=None)], timed_size=None), folder, overwrite=True)
    assert not (folder / "psnr-seconds-x4-Set5.svg").exists(), "a plot of an earlier run, in no page"


@pytest.mark.parametrize("memory", [612.4, None])  # which is not known on every system
def test_what_is_kept_is_what_was_written(run: Run, tmp_path: Path, memory: float | None) -> None:
    pytest.importorskip("matplotlib")
    known = replace(LIGHT, speed=Speed(0.51, memory))
    report.write(replace(run, rows=[known, MISSING]), tmp_path)
    found = report.kept(replace(run, rows=()), tmp_path, {"Set5": ["baby", "bird"]})
    assert found == [replace(row, date=run.date) for row in (known, MISSING)]


def test_rows_with_perceptual_figures_are_not_kept_beside_rows_without(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report.write(run, tmp_path)
    with pytest.raises(FinescaleError, match=r"other rows .*: lpips_missing LPIPS needs its linear layers, now None"):
        report.kept(replace(run, rows=(), metrics=[]), tmp_path, {"Set5": ["baby", "bird"]})


def test_a_plot_of_one_point_is_left_out(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ours = {"Drawn": LIGHT.scores["Set5"]}
    one, two = replace(LIGHT, scores=ours), replace(LIGHT, name="another", scores=ours)
    assert plots.draw(replace(run, sets=["Drawn"], rows=[one]), "Drawn", tmp_path) == []
    assert len(plots.draw(replace(run, sets=["Drawn"], rows=[one, two]), "Drawn", tmp_path)) == 2


def test_markdown_has_everything(run: Run) -> None:
    page = report.markdown(run)
    assert "| sa-rcan-light | 429 K | 1.04 G | 34.500 / 0.9200 | missing | 0.51 | 612 |" in page
    assert "| RCAN | 15.6 M | 32.63 / 0.9002 | DIV2K | [1] |" in page
    assert "Left out:\n\n- there are no trained weights for rcan x4" in page
    assert "LPIPS needs its linear layers" in page
    assert f"SHA-256 `{'ab' * 32}`" in page
    assert run.command in page
    assert "settings: ensemble True" in page
    assert "settings: window global" in report.markdown(replace(run, settings={"window": None}))
    for line in page.splitlines():  # every row of a table has as many cells as its heading
        if line.startswith("| network"):
            columns = line.count("|")
        if line.startswith("|"):
            assert line.count("|") == columns, line
    sources = {int(n) for n in re.findall(r"\| \[(\d+)\] \|", page)}
    assert sources == {int(n) for n in re.findall(r"^(\d+)\. ", page, re.MULTILINE)}


def test_csv_has_means_and_pictures(run: Run) -> None:
    lines = [line for line in csv.DictReader(io.StringIO(report.csv(run))) if not line["source"]]
    assert [(line["network"], line["picture"]) for line in lines] == [
        ("bicubic", "mean"),
        ("bicubic", "baby"),
        ("bicubic", "bird"),
        ("sa-rcan-light", "mean"),
        ("sa-rcan-light", "baby"),
        ("sa-rcan-light", "bird"),
    ]
    assert float(lines[3]["psnr"]) == 34.5
    assert lines[0]["parameters"] == ""
    assert lines[3]["sha256"] == "ab" * 32
    assert {line["command"] for line in lines} == {run.command}
    assert [line["picture_seconds"] for line in lines] == ["", "", "", "0.5", "0.25", "0.75"]
    assert [(line["timed_seconds"], line["memory_mib"]) for line in lines] == [("", "")] * 3 + [("0.51", "612.4")] * 3


def test_csv_and_json_have_the_published_figures(run: Run) -> None:
    lines = {line["network"]: line for line in csv.DictReader(io.StringIO(report.csv(run))) if line["source"]}
    rcan = lines["RCAN"]
    assert (rcan["scale"], rcan["set"], rcan["picture"]) == ("4", "Set5", "mean")
    assert (rcan["psnr"], rcan["ssim"], rcan["parameters"]) == ("32.63", "0.9002", "15600000")
    assert rcan["source"].startswith("Zhang et al., Image Super-Resolution Using Very Deep")
    assert rcan["timed_seconds"] == rcan["command"] == rcan["sha256"] == ""
    assert lines["IMDN"]["timed_seconds"] == "0.97"  # of those measured with their own weights, which come last
    written = json.loads(json.dumps(run.as_json()))["published"]
    assert {row["name"] for row in written} == set(lines)
    found = next(row for row in written if row["name"] == "RCAN")
    assert found["sets"] == {"Set5": {"psnr": 32.63, "ssim": 0.9002}}
    assert (found["source"], found["url"], found["training"]) == (
        rcan["source"],
        "https://arxiv.org/abs/1807.02758",
        "DIV2K",
    )


def test_every_picture(run: Run) -> None:
    assert "| bird | 30.180 / 0.8730 | 35.500 / 0.9300 |" in report.pictures(run)


def test_points_of_the_plots(run: Run) -> None:
    by_parameters = {point.name: point for point in plots.by_parameters(run, "Set5")}
    assert by_parameters["sa-rcan-light"] == plots.Point("sa-rcan-light", 429_000, 34.5, True)
    assert by_parameters["RCAN"] == plots.Point("RCAN", 15_600_000, 32.63, False)
    assert "bicubic" not in by_parameters
    by_seconds = {point.name: point for point in plots.by_seconds(run, "Set5")}
    assert by_seconds["sa-rcan-light"].x == 0.51
    assert by_seconds["IMDN"].x == 0.97
    assert "RCAN" not in by_seconds


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FinescaleError, match=r'pip install "finescale\[report\]"'):
        report.check(tmp_path / "r", 4, ["Set5"])
    assert not (tmp_path / "r").exists()
