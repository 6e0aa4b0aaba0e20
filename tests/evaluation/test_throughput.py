"""`finescale benchmark`: what is measured, and as a person types it."""

import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from tests.conftest import Terminal

from finescale.cli.main import main
from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import speed, tables, throughput
from finescale.evaluation.speed import Speed
from finescale.evaluation.throughput import WAYS, chosen_ways, draw, measure
from finescale.networks.catalogue import build
from finescale.training.measure import slow_bfloat16
from finescale.weights import store

pytestmark = pytest.mark.usefixtures("_here")


def test_ways_are_chosen_by_engine_and_precision() -> None:
    assert chosen_ways([], []) == list(WAYS)
    assert chosen_ways(["torch"], []) == [("torch", "float32"), ("torch", "bfloat16")]
    assert chosen_ways([], ["int8"]) == [("openvino", "int8")]


def test_what_no_engine_computes_is_refused() -> None:
    with pytest.raises(UsageError, match="'bicubic' is no network"):
        measure(["bicubic"], 2)


@pytest.mark.slow
def test_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """Really measured, each way in a process of its own; a long picture, so that more than starting is timed."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("matplotlib")
    options = ["--size", "120x80", "--repeats", "1", "--precisions", "float32", "--engines", "torch,onnx"]
    assert main(["benchmark", "--scale", "2", *options, "--json", "a.json", "--plot", "a.svg"]) == 0
    said = capsys.readouterr()
    found = json.loads(Path("a.json").read_text())
    assert [(line["engine"], line["precision"]) for line in found["lines"]] == [
        ("torch", "float32"),
        ("onnx", "float32"),
    ]
    for line in found["lines"]:
        assert line["missing"] is None
        assert 0 < line["seconds"] < 600
        assert 0 < line["share"] < 1
        assert line["memory"] is None or 50 < line["memory"] < 5000
    assert found["peaks"]["float32"] > 1e8
    assert "sa-rcan-light x2" in said.out
    assert "s per megapixel" in said.out
    assert not said.err
    assert Path("a.svg").read_text().startswith("<?xml")
    assert sorted(path.name for path in Path().iterdir()) == ["a.json", "a.svg"]


def quick(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Replaces the clock, not the arithmetic: each precision takes the seconds that are given."""

    def apart(name: str, scale: int, settings: dict[str, Any], size: tuple[int, int], *, repeats: int) -> Speed:
        assert (settings["engine"], settings["precision"]) in WAYS
        assert settings["tile"] == max(size)  # as a whole
        if settings["precision"] not in seconds:
            raise FinescaleError(f"{name}: could not be timed (killed)")
        return Speed(seconds[settings["precision"]], 100.0)

    monkeypatch.setattr(speed, "measure_apart", apart)
    monkeypatch.setattr(throughput, "slow_bfloat16", lambda device, precision: None)
    monkeypatch.setattr(
        throughput, "measured_peak", lambda device, precision: 2e12 if precision == "bfloat16" else 1e12
    )


def test_what_is_measured_is_told_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with tables.status() as tell:
        tell("a[/b] in [int8]")
    seen = cast(Terminal, sys.stderr).getvalue()
    assert "a[/b] in [int8]" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1, "the cursor is back"


def test_figures_follow_from_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch, {"float32": 0.5, "bfloat16": 0.25})
    found = measure(["sa-rcan-light"], 2, engines=["torch", "openvino"], size=(100, 50), device="cpu")
    by = {(line.engine, line.precision): line for line in found.lines}
    one, two = by["torch", "float32"], by["torch", "bfloat16"]
    assert one.seconds == pytest.approx(0.5 / 0.02)  # 200 x 100 pixels
    assert one.share is not None
    assert two.share is not None
    assert two.share == pytest.approx(one.share)  # twice as fast, and so is the peak
    assert one.memory == 100
    missing = by["openvino", "int8"].missing
    assert missing is not None
    assert "could not be timed" in missing or "pip install" in missing


def test_bfloat16_that_is_slow_here_is_measured_only_if_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch, {"float32": 0.5, "bfloat16": 250})
    monkeypatch.setattr(throughput, "slow_bfloat16", slow_bfloat16)
    monkeypatch.setattr("finescale.training.measure.fast_bfloat16", lambda device: False)
    for named, measured in (([], [True, False]), (["float32", "bfloat16"], [True, True])):
        found = measure(["sa-rcan-light"], 2, engines=["torch"], precisions=named, device="cpu").lines
        assert [line.seconds is not None for line in found] == measured
        reason = "bfloat16 is much slower than float32 on this machine; --precisions bfloat16 measures it all the same"
        assert found[1].missing == (None if named else reason)


def test_where_nothing_can_be_measured_that_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(monkeypatch, {})
    assert main(["benchmark", "--scale", "2", "--engines", "torch", "--device", "cpu", "--json", "-"]) == 1
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert lines
    assert all("could not be timed" in line["missing"] for line in lines)


def test_share_of_peak_counts_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network without attention or gates: its multiplications are those of its convolutions alone."""
    quick(monkeypatch, {"float32": 1.0})
    srcnn = build("srcnn", scale=2)
    monkeypatch.setattr(store, "load", lambda name, scale: srcnn)
    convolutions = sum(p.numel() for p in srcnn.parameters() if p.ndim == 4)
    (line,) = measure(["srcnn"], 2, engines=["torch"], precisions=["float32"], size=(100, 50), device="cpu").lines
    assert line.share == pytest.approx(2 * convolutions * 4 * 5000 / 1e12)  # SRCNN works at the large size


def test_a_plot_has_a_bar_for_each_way_that_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    quick(monkeypatch, {"float32": 0.5})
    found = measure(["sa-rcan-light"], 2, engines=["torch"], size=(100, 50), device="cpu")
    draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(FinescaleError, match="exists"):
        draw(found, tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"an \.svg, \.png or \.pdf file"):
        draw(found, tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--engines", "openvin"], 2, "did you mean 'openvino'"),
        (["--engines", "onnx", "--precisions", "int8"], 2, "no such engine computes in int8"),
        (["--size", "0x5"], 2, "a size is WIDTHxHEIGHT"),
        (["--plot", "a.txt"], 2, "an .svg, .png or .pdf file"),
        (["--device", "nowhere"], 2, "there is no device 'nowhere' here"),
        (["sa-rcan-ligth"], 2, "did you mean 'sa-rcan-light'"),
        (["rcan"], 1, "no trained weights for rcan"),
        (["--json", "there.json"], 1, "exists"),
    ],
)
def test_impossible_requests(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.json").write_text("mine")
    assert main(["benchmark", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert Path("there.json").read_text() == "mine"
