"""What a dry run and the screen tell."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from finescale.networks.base import Network
from finescale.networks.complexity import count
from finescale.training import run
from finescale.training.loop import Progress
from finescale.training.measure import activation_bytes, step_flops
from finescale.training.recipe import parse_recipe
from finescale.training.report import Screen, Speed, clock


class Two(Network):
    """Two convolutions with a ReLU between them."""

    def __init__(self) -> None:
        super().__init__(scale=2)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.PixelShuffle(2))

    def enlarge(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


def test_operations_and_memory_of_a_step() -> None:
    network = Two()
    macs = 10 * 10 * (8 * 3 * 9 + 12 * 8)
    assert count(network, (10, 10)).macs == macs
    assert step_flops(network, 10) == 6 * macs
    # the picture, which the first convolution keeps, and what the ReLU gives, which it and the second one keep
    assert activation_bytes(network, 4, 10) == 4 * (3 + 8) * 10 * 10 * 4
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_speed_in_words() -> None:
    values = {"network": "rcan", "scale": 2, "data": {"batch": 4, "patch": 12, "late_patch": 24, "late_from": 0.5}}
    speed = Speed(parse_recipe(values, "a test"), crop_flops=1e9, peak=4e11)
    progress = Progress()
    progress.per_second, progress.spent = 25, 0.25
    assert speed.text(progress) == "100 crops/s, 0.1 TFLOP/s (25% of peak)"
    progress.spent = 0.75
    assert speed.text(progress) == "100 crops/s, 0.4 TFLOP/s (100% of peak)"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(252, "0:04:12"), (59.6, "0:01:00"), (36_000, "10:00:00"), (float("inf"), "?")]
)
def test_times(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_device_reaches_something() -> None:
    from finescale.training.measure import measured_peak

    assert 1e8 < measured_peak(torch.device("cpu"), "float32") < 1e15


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_narrow_terminal_keeps_the_time_left(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    values = {"network": "sa-rcan-light", "scale": 4, "data": {"batch": 4, "patch": 12}}
    screen = Screen("sa-rcan-light-jpeg-x4", Speed(parse_recipe(values, "a test"), crop_flops=1e9, peak=4e11))
    progress = Progress()
    progress.spent, progress.step, progress.seconds, progress.per_second = 0.25, 1234, 100, 25
    screen.tick(progress)
    screen.close()
    shown = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).splitlines()[-1]
    assert len(shown) <= width
    assert f" {clock(progress.left)} left, 25.0%" in shown
    assert ("100 crops/s" in shown) == (width > 40)
    assert ("0.1 TFLOP/s (25% of peak)" in shown) == (width > 80)


def test_where_nothing_can_be_said_there_is_no_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe({"network": "rcan", "scale": 2}, "a test")
    monkeypatch.setattr(sys, "stderr", None)  # as in programs with windows
    assert run._observers(recipe, tmp_path, Speed(recipe, 1e9, 1e9), 0, screen=True, board=False) == []


class Stopped:
    """A training that is asked to stop."""

    stop_requested = False

    def request_stop(self) -> None:
        self.stop_requested = True


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX systems have them")
def test_signals_that_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a console of Windows is another; handlers from outside of Python cannot be given back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGURG, raising=False)
    known = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else known(number))
    training = Stopped()
    with run._stopped_by_signals(training):  # type: ignore[arg-type]
        assert signal.signal(signal.SIGTERM, before) is before
        handler = known(signal.SIGURG)
        assert callable(handler)
        handler(signal.SIGURG, None)  # a real one finds pytest's stack for signals too small once AMX was in use
    assert training.stop_requested
    assert known(signal.SIGURG) is signal.SIG_DFL


def test_one_process_needs_no_others() -> None:
    """Some builds of torch do not have them."""
    hidden = [f"torch.distributed.{name}" for name in ("fsdp", "tensor", "checkpoint")]
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden})); import finescale.training.parallel"
    subprocess.run([sys.executable, "-c", code], check=True)
