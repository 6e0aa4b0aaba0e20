"""Pictures unlike any photograph: dithering, stripes and pixels, as in old games and scans."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import SHIPPED_WEIGHTS

from finescale.errors import FinescaleWarning, UsageError
from finescale.images.picture import Samples
from finescale.inference.engines.source import Source
from finescale.inference.photograph import samples
from finescale.inference.prepare import bytes_per_pixel, for_inference, gate_limits
from finescale.inference.upscale import check_settings
from finescale.layers.attention import ChannelAttention
from finescale.networks import DEFAULT, FOR_NOISE
from finescale.networks.base import Network
from finescale.networks.catalogue import build
from finescale.weights import files

# those beside the default network are for CI
SHIPPED = [
    pytest.param(file, id=file.stem, marks=() if file.stem == f"{DEFAULT}-x4" else pytest.mark.slow)
    for file in SHIPPED_WEIGHTS
]


def dithered() -> Samples:
    """Flat colours, and in their middle black and white in turn, pixel by pixel."""
    y, x = np.mgrid[:96, :96]
    pixels = np.full((96, 96, 3), (40, 60, 120), np.uint8)
    pixels[:24] = (200, 40, 30)
    inside = (abs(y - 48) < 16) & (abs(x - 48) < 16)
    pixels[inside] = ((x + y) % 2 * 255)[inside][:, None]
    return pixels


@pytest.mark.parametrize("file", SHIPPED)
def test_dithering_does_not_become_noise(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dithered()

    def error() -> float:
        """Of the result shrunk again, in grey levels."""
        network = for_inference(files.load(file))
        with torch.inference_mode():
            large = network(torch.from_numpy(small.astype(np.float32) / 255).permute(2, 0, 1)[None])[0]
        large = large.clamp(0, 1).permute(1, 2, 0) * 255
        scale = network.scale
        return float(abs(large.reshape(96, scale, 96, scale, 3).mean((1, 3)) - torch.from_numpy(small)).mean())

    limited = error()
    if file.stem.startswith(FOR_NOISE):  # smooths it, as is its task: 14 levels where all becomes grey
        assert limited < 18
        return
    # noise has 25 and more; what is to look sharp makes some texture of dithering, which it never saw
    assert limited < (24 if "perceptual" in file.stem else 15)
    monkeypatch.setattr("finescale.inference.prepare.HEADROOM", 1e9)
    free = error()
    # who was trained with dithering makes half of the default's noise at most, and hardly needs limits
    assert limited < 0.7 * free or limited - 0.1 < free < 6


def trained_like(scale: int = 2) -> Network:
    torch.manual_seed(0)
    network = build("rcan", scale=scale, channels=16, groups=1, blocks=2, reduction=4)
    for module in network.modules():
        if isinstance(module, ChannelAttention):
            last = module.conv_du[2]
            assert isinstance(last, torch.nn.Conv2d)
            torch.nn.init.normal_(last.weight, std=4)  # gates that depend on the picture
    return network


def test_photographs_are_not_touched() -> None:
    network = trained_like()
    part = torch.from_numpy(samples()[0])
    with torch.inference_mode():
        assert torch.equal(for_inference(network, None)(part), network.eval()(part))


def test_without_windows_a_network_is_as_it_was_trained() -> None:
    """As papers measure it, also where gates would be limited."""
    (file,) = (file for file in SHIPPED_WEIGHTS if file.stem == f"{DEFAULT}-x4")
    network = files.load(file)
    x = torch.from_numpy(dithered().astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        torch.testing.assert_close(for_inference(network, None)(x), network.eval()(x), atol=1e-3, rtol=0)


def test_a_gate_goes_no_further() -> None:
    prepared = for_inference(trained_like(), gates=[[0.25] * 16] * 2)
    assert gate_limits(prepared) == [[0.25] * 16] * 2
    for layer in prepared.modules():
        if isinstance(layer, ChannelAttention):
            assert layer.gates(10 * torch.randn(1, 16, 48, 48)).max() == 0.25
    assert not any("most" in name for name in prepared.state_dict())


def test_windows_larger_than_the_photograph() -> None:
    assert [part.shape for part in samples(128)] == [(1, 3, 128, 128)] * 4
    with pytest.warns(FinescaleWarning, match="by steps of 256 pixels"):
        prepared = for_inference(trained_like(), 2048)
    assert len(gate_limits(prepared)) == 2
    assert bytes_per_pixel(prepared) == pytest.approx(bytes_per_pixel(for_inference(trained_like())), rel=0.1)
    for refused in (lambda: for_inference(trained_like(), 5000), lambda: check_settings(window=5000)):
        with pytest.raises(UsageError, match="windows have at most 4096 pixels a side, not 5000"):
            refused()


def test_limits_are_found_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "rcan-x2.safetensors"
    files.save(trained_like(), file)
    first = gate_limits(Source(file, 48).prepared())
    monkeypatch.setattr("finescale.inference.photograph.PHOTOGRAPH", tmp_path / "gone.png")
    assert gate_limits(Source(file, 48).prepared()) == first
