"""The verbs as people type them: exit code, what they print and leave behind; one in a process of its own."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finescale.cli.main import main
from finescale.evaluation import benchmark
from finescale.evaluation.contenders import Contender
from finescale.evaluation.scoring import Score
from finescale.layers.attention import ChannelAttention
from finescale.networks.catalogue import build
from finescale.weights.files import save


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Originals, enlarged pictures and a weight file."""
    folder = tmp_path_factory.mktemp("place")
    generator = np.random.default_rng(0)
    for name in ("hr", "sr"):
        (folder / name).mkdir()
    for name in ("one", "two"):
        high = generator.integers(0, 256, (50, 66, 3)).astype(np.uint8)
        Image.fromarray(high).save(folder / "hr" / f"{name}.png")
        near = np.clip(high[:48, :64].astype(int) + generator.integers(-9, 10, (48, 64, 3)), 0, 255)
        Image.fromarray(near.astype(np.uint8)).save(folder / "sr" / f"{name}_x4.png")
    torch.manual_seed(0)
    network = build("rcan", scale=4, channels=4, groups=1, blocks=1, reduction=2, tail="direct")
    body = network.get_submodule("body")
    (attention,) = (layer for layer in body.modules() if isinstance(layer, ChannelAttention))
    with torch.no_grad():  # so that it matters how much of the picture is looked at
        attention.conv_du.get_parameter("2.weight").normal_(std=10)
        attention.conv_du.get_parameter("2.bias").zero_()
        body.get_parameter("1.weight").mul_(20)
    save(network, folder / "tiny.safetensors")
    return folder


HIDDEN = ("FINESCALE_DATA", "FINESCALE_WEIGHTS", "FINESCALE_WEIGHTS_URL")


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def finescale(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command line in this process, in the folder `place`."""
    for name in HIDDEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(place / "cache"))
    monkeypatch.chdir(place)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["finescale", *arguments])
        try:
            code = main(arguments)
        except SystemExit as leaving:  # argparse
            code = int(leaving.code or 0)
        printed = capfd.readouterr()
        return Done(code, printed.out, printed.err)

    return run


def test_score(finescale: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    done = finescale("score", "--hr", "hr", "--sr", "sr", "--scale", "4", "--json", str(file), "--perceptual")
    assert done.returncode == 0, done.stderr
    assert "mean of 2" in done.stdout
    assert "missing" in done.stdout
    assert "lpips_v0.1_squeeze.pth" in done.stdout.replace("\n", "")
    found = json.loads(file.read_text())
    assert [row["name"] for row in found["pictures"]] == ["one", "two"]
    assert 30 < found["psnr"] < 40
    assert f"{found['psnr']:.3f}" in done.stdout
    assert json.loads(finescale("score", "--hr", "hr", "--sr", "sr", "--scale", "4", "--json", "-").stdout) == {
        key: value for key, value in found.items() if key != "lpips_missing"
    }
    again = finescale("score", "--hr", "hr", "--sr", "sr", "--scale", "4", "--json", str(file))
    assert again.returncode == 1
    assert "already exists" in again.stderr


def test_results_that_could_not_be_written_are_refused_before_the_work(
    finescale: Callable[..., Done], place: Path
) -> None:
    report = place / "r"
    report.mkdir()
    score = ["score", "--hr", "hr", "--sr", "sr", "--scale", "4", "--json"]
    bench = ["bench", "--networks", "bicubic", "--sets", "hr", "--no-timing"]
    drawn = ["figure", "hr/one.png", "--networks", "bicubic", "--auto", "1", "-o", "nowhere/x.png"]
    for code, words, said in (
        (1, [*score, "nowhere/x.json"], "nowhere/x.json: cannot be written (there is no folder nowhere)"),
        (1, [*bench, "--csv", "nowhere/x.csv"], "there is no folder nowhere"),
        (2, [*bench, "--csv", "x.txt", "--json", "x.txt"], "x.txt: two results cannot have one file"),
        (2, [*bench, "--csv", "-", "--json", "-"], "-: two results cannot have one file"),
        (2, [*bench, "--report", str(report), "--json", "r/results-x4.json"], "two results cannot have one file"),
        (1, drawn, "no folder nowhere"),
    ):
        done = finescale(*words)
        assert done.returncode == code
        assert said in done.stderr
        assert not done.stdout


def test_a_picture_too_small_to_score_ends_bench_before_it_computes(
    finescale: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.evaluation.benchmark.score_picture", lambda *_: pytest.fail("computed"))
    (tmp_path / "set").mkdir()
    for name, size in (("a", (64, 48)), ("z", (16, 48))):
        Image.new("RGB", size).save(tmp_path / "set" / f"{name}.png")
    done = finescale("bench", "--networks", "bicubic", "--sets", str(tmp_path / "set"), "--scale", "4", "--no-timing")
    assert done.returncode == 1
    assert "z.png: a picture of 16 x 48 is too small to score at x4" in done.stderr


def test_transparency_left_out_of_scores_is_told(
    finescale: Callable[..., Done], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("hr", "sr"):
        (tmp_path / folder).mkdir()
        Image.new("RGBA", (64, 48), (10, 20, 30, 128)).save(tmp_path / folder / "a.png")
    assert (
        finescale("score", "--hr", str(tmp_path / "hr"), "--sr", str(tmp_path / "sr"), "--scale", "4").returncode == 0
    )
    assert "hr/a.png: its transparency is left out" in caplog.text


def test_brackets_are_no_markup(finescale: Callable[..., Done], tmp_path: Path) -> None:
    for folder in ("hr", "sr"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 48)).save(tmp_path / folder / "a[bold].png")
    done = finescale("score", "--hr", str(tmp_path / "hr"), "--sr", str(tmp_path / "sr"), "--scale", "4")
    assert "a[bold] " in done.stdout


def test_a_process_of_its_own(place: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in HIDDEN} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finescale", "score", "--scale", "4", "--hr", "hr", "--sr"]
    good, bad = (
        subprocess.run([*command, sr], capture_output=True, text=True, cwd=place, env=environment, check=False)
        for sr in ("sr", "nowhere")
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert "mean of 2" in good.stdout
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "finescale: nowhere: there is no such file or folder\n"


def test_score_lists_what_has_no_partner(finescale: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "sr").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "sr" / "one.png")
    done = finescale("score", "--hr", "hr", "--sr", str(tmp_path / "sr"), "--scale", "4")
    assert done.returncode == 1
    assert done.stderr.startswith("finescale: the pictures do not pair up; without a partner in ")
    assert done.stderr.endswith(": two.png\n")
    assert done.stdout == ""


def test_bench(finescale: Callable[..., Done], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "b.json"
    networks = "bicubic,bicubic-y,tiny.safetensors,rcan"
    options = ("--sets", "hr", "--scale", "4", "--no-timing", "--json", str(file), "--report", str(tmp_path / "r"))
    done = finescale("bench", "--networks", networks, *options, "--device", "cpu", "--engine", "torch", "--tile", "64")
    assert done.returncode == 1, "one network has no weights"
    assert "left out: there are no trained weights for rcan x4" in done.stdout
    found = json.loads(file.read_text())
    assert [row["name"] for row in found["networks"]] == ["bicubic", "bicubic-y", "tiny", "rcan"]
    assert found["command"].startswith("finescale bench --networks bicubic,")
    assert found["networks"][2]["macs"] > 0
    assert found["settings"] == {"device": "cpu", "engine": "torch", "tile": 64, "border": "replicate"}
    assert (tmp_path / "r" / "results-x4.md").is_file()
    figures = []
    for setting in ((), ("--ensemble",), ("--window", "8"), ("--border", "mirror"), ("--noise", "5"), ("--jpeg", "40")):
        one = ("bench", "--networks", "tiny.safetensors", "--sets", "hr", "--no-timing", "--csv", "-", *setting)
        table = csv.DictReader(io.StringIO(finescale(*one).stdout))
        figures.append(tuple(line["psnr"] for line in table))  # the commands differ anyway
    assert len(set(figures)) == 6
    lines = finescale("bench", "--networks", "bicubic", "--sets", "hr", "--no-timing", "--csv", "-").stdout.splitlines()
    assert {line.split(",")[0] for line in lines} == {"network", "bicubic"}
    shutil.copytree("hr", tmp_path / "Set5")
    few = finescale("bench", "--networks", "bicubic", *("--sets", str(tmp_path / "Set5"), "--no-timing", "--csv", "-"))
    assert [line.split(",")[2] for line in few.stdout.splitlines()[1:]] == ["Set5-2of5"] * 3
    assert caplog.text.count("published figures are of 5 pictures and here are 2") == 1


def test_a_run_that_is_stopped_writes_what_is_done(
    finescale: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = benchmark.score_picture

    def stopped(entrant: Contender, path: Path, *more: Any, **options: Any) -> Score:
        if entrant.name == "nearest":
            raise KeyboardInterrupt
        return score(entrant, path, *more, **options)

    monkeypatch.setattr(benchmark, "score_picture", stopped)
    options = ("--sets", "hr", "--no-timing", "--report", str(tmp_path))
    done = finescale("bench", "--networks", "bicubic,nearest,tiny.safetensors", *options)
    assert (done.returncode, "interrupted" in done.stderr) == (130, True)
    assert "bicubic" in done.stdout
    again = finescale("bench", "--networks", "bicubic,nearest", "--overwrite", *options)
    assert "already exists" in again.stderr, "a part does not replace what is there"
    assert [row["name"] for row in json.loads((tmp_path / "results-x4.json").read_text())["networks"]] == ["bicubic"]


def test_one_network_of_a_report_is_measured_again(finescale: Callable[..., Done], tmp_path: Path) -> None:
    options = ("--sets", "hr", "--no-timing", "--report", str(tmp_path))
    assert finescale("bench", "--networks", "bicubic,tiny.safetensors", *options).returncode == 0
    file = tmp_path / "results-x4.json"
    before = json.loads(file.read_text())
    before["date"] = "2026-01-01 00:00 UTC"
    before["networks"][1]["sets"]["hr"]["pictures"][0]["psnr"] = "Infinity"  # which no new run would give
    file.write_text(json.dumps(before))
    again = ("bench", "--networks", "bicubic,nearest", *options)
    assert finescale(*again).returncode == 1, "nothing is overwritten unasked"
    assert finescale(*again, "--keep").returncode == 0
    old, kept, new = json.loads(file.read_text())["networks"]
    assert [row["name"] for row in (old, kept, new)] == ["bicubic", "tiny", "nearest"]
    assert [row.get("date") for row in (old, kept, new)] == [None, before["date"], None]
    assert kept["sets"]["hr"]["pictures"] == before["networks"][1]["sets"]["hr"]["pictures"]
    assert kept["sha256"] == before["networks"][1]["sha256"]
    assert (
        "The row of tiny is of an earlier run of this kind, 2026-01-01 00:00 UTC."
        in (tmp_path / "results-x4.md").read_text()
    )
    written = file.read_bytes()
    for more in (("--border", "mirror"), ("--jpeg", "40"), ("--ensemble",)):
        refused = finescale(*again, "--keep", *more)
        assert refused.returncode == 1
        assert f"{file}: has other rows than these would be: settings {{'border': 'replicate'}}, now" in refused.stderr
    assert file.read_bytes() == written
    before["networks"][1]["sets"]["hr"]["pictures"][0]["name"] = "three"
    file.write_text(json.dumps(before))
    assert "was made with other pictures" in finescale(*again, "--keep").stderr
    file.write_text(json.dumps({**before, "networks": [{"name": "tiny", "sets": []}]}))
    assert "no report of which rows can be kept" in finescale(*again, "--keep").stderr
    before["networks"][1:] = [{"name": "rcan", "missing": "there are no trained weights for it", "sets": {}}]
    file.write_text(json.dumps(before))
    assert finescale(*again, "--keep").returncode == 0, "what failed before did not fail now"
    file.unlink()
    assert "there is no report to keep rows of" in finescale(*again, "--keep").stderr
    assert finescale(*again[:-2], "--keep").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("bench", "--networks", "bicubik", "--sets", "hr"),
            "'bicubik' is neither a network nor a weight file; did you",
        ),
        (("bench", "--networks", "bicubic", "--sets", "Set6"), "there is no set or folder 'Set6'"),
        (("bench", "--networks", "tiny.safetensors", "--sets", "hr", "--scale", "2"), "enlarges x4, not x2"),
        (("bench", "--networks", "bicubic", "--sets", "hr", "--engine", "ontx"), "invalid choice: 'ontx'"),
        (("bench", "--networks", "bicubic", "--sets", "hr", "--precision", "int7"), "invalid choice: 'int7'"),
        (("bench", "--networks", "bicubic", "--sets", "hr", "--scale", "5"), "invalid choice"),
        (("bench", "--networks", ",", "--sets", "hr"), "expected names separated by commas"),
        (("bench", "--networks", "bicubic", "--sets", "hr,hr/"), "two sets are called 'hr'"),
        (("bench", "--networks", "bicubic", "--sets", "hr,hr/", "--report", "r"), "two sets are called 'hr'"),
        (("bench", "--networks", "bicubic", "--sets", "hr", "--window", "0"), "expected a whole number above 0"),
        (("score", "--hr", "hr", "--sr", "sr", "--scale", "0"), "expected a whole number above 0, not '0'"),
        (("figure", "hr/one.png", "--networks", "bicubic", "-o", "f.png"), "say what to show"),
        (("figure", "hr/one.png", "--networks", "bicubic", "-o", "f.png", "--box", "1,2,3"), "expected X,Y,W,H"),
        (
            ("figure", "hr/one.png", "--networks", "bicubic", "-o", "f.png", "--auto", "1", "--size", "9"),
            "WIDTHxHEIGHT",
        ),
        (("figure", "hr/one.png", "--networks", "bicubic", "-o", "f.png", "--box", "60,0,20,20"), "is not inside"),
        (("figure", "hr/one.png", "--networks", "bicubic", "-o", "f.jpg", "--box", "0,0,20,20"), "are written as png"),
        (
            ("figure", "hr/one.png", "--networks", "bicubic", "-o", "f.png", "--box", "0,0,9,9", "--size", "9x9"),
            "--size is that of the boxes which --auto N chooses",
        ),
    ],
)
def test_requests_that_make_no_sense(
    finescale: Callable[..., Done], place: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = sorted(path.name for path in place.iterdir())
    done = finescale(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in place.iterdir()) == before


def test_figure(finescale: Callable[..., Done], tmp_path: Path) -> None:
    file = tmp_path / "f.png"
    done = finescale(
        "figure", "hr/one.png", "--networks", "bicubic,tiny.safetensors", "--auto", "2", "--size", "16x12",
        "--box", "0,0,20,20", "-o", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = done.stdout.split()
    assert shown[:2] == [str(file), "0,0,20,20"]
    assert len(shown) == 4
    with Image.open(file) as image:
        assert image.width > 1000
