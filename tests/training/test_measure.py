"""What a dry run and the screen tell."""

import pytest
import torch
from torch import Tensor, nn

from finescale.networks.base import Network
from finescale.networks.complexity import count
from finescale.training.loop import Progress
from finescale.training.measure import activation_bytes, step_flops
from finescale.training.recipe import parse_recipe
from finescale.training.report import Speed, clock


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
