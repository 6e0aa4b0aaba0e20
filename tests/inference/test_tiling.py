"""Tiles: the same picture as in one piece, at any size, and what happens when memory runs out."""

import math
import warnings

import numpy as np
import pytest
import torch
from tests.conftest import tiny_network
from torch import nn

from finescale.errors import FinescaleError
from finescale.inference import tiling
from finescale.inference.engines.pytorch import TorchEngine
from finescale.inference.prepare import bytes_per_pixel, for_inference
from finescale.inference.tiling import Array, Tile, enlarge, plan
from finescale.inference.upscale import Upscaler
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.statistics import StatisticsLayer
from finescale.networks.base import Network
from finescale.networks.catalogue import build

NARROW = {"encoder": "plain", "widths": (32, 16, 16, 8, 8), "blocks": (1, 2, 1, 1), "head": 8, "input_skip": 4}
CPU = torch.device("cpu")


def picture(height: int, width: int, kind: type = np.uint8) -> Array:
    """Smooth colours, edges and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 20.0
    plain = np.stack([np.sin(a * x + b * y) for a, b in rng.uniform(-2, 2, (3, 2))], -1) * 0.3 + 0.5
    plain += 0.2 * ((x.astype(int) + y.astype(int)) % 2)[..., None] + rng.normal(0, 0.05, plain.shape)
    plain = plain.clip(0, 1)
    return plain.astype(np.float32) if kind is np.float32 else (plain * np.iinfo(kind).max).astype(kind)


def engine(network: Network, window: int | None = 48) -> TorchEngine:
    return TorchEngine(for_inference(network, window), CPU, "float32")


@pytest.mark.parametrize(
    ("height", "width", "tile"), [(1, 1, 64), (97, 301, 64), (48, 96, 48), (250, 49, 100), (5, 500, 200)]
)
def test_plan_covers_every_pixel_once_on_the_grid(height: int, width: int, tile: int) -> None:
    seen = np.zeros((height, width), int)
    for t in plan(Tile(0, 0, height, width), (tile, tile)):
        seen[t.top : t.bottom, t.left : t.right] += 1
        assert t.top % tiling.GRID == t.left % tiling.GRID == 0
        assert max(t.bottom - t.top, t.right - t.left) <= max(tiling.GRID, tile)
    assert (seen == 1).all()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("tile", [64, 96])
def test_tiled_equals_whole(scale: int, tile: int) -> None:
    x = picture(131, 187)
    run = engine(tiny_network(scale))
    whole = enlarge(x, run, tile=10**6, margin=0).astype(int)
    tiled = enlarge(x, run, tile=tile, margin=48).astype(int)
    assert whole.std() > 20
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(131, 187), (96, 150)])
def test_tiles_of_the_self_ensemble_are_those_of_the_turned_pictures(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, run = picture(height, width, np.float32), engine(tiny_network(2))
    turns = [(k, flip) for k in range(4) for flip in (False, True)]
    wanted = np.zeros((2 * height, 2 * width, 3), np.float32)
    for k, flip in turns:
        turned = np.rot90(x[:, ::-1] if flip else x, k)
        back = np.rot90(enlarge(turned, run, tile=10**6, margin=0), -k)
        wanted += (back[:, ::-1] if flip else back) / 8
    seen: list[float] = []
    monkeypatch.setattr(tiling, "_PAUSE", 0)
    whole = enlarge(x, run, tile=10**6, margin=0, ensemble=True, progress=seen.append)
    np.testing.assert_allclose(whole, wanted, atol=2e-6)
    assert seen == sorted(seen)
    assert {k / 8 for k in range(8)} < set(seen)  # and more within each
    assert seen[-1] == 1
    assert np.abs(enlarge(x, run, tile=64, margin=48, ensemble=True) - whole).max() < 1 / 510
    part = enlarge(x[:144], run, tile=64, margin=48, rows=(0, 48), below=max(0, height - 144), ensemble=True)
    assert np.abs(part - whole[:96]).max() < 1 / 510


def test_without_local_windows_tiles_leave_seams() -> None:
    """The reason for local windows, and that the test above can fail."""
    x = picture(131, 187)
    x[:, :90] //= 5  # other statistics on the left
    run = engine(tiny_network(2), window=None)
    whole = enlarge(x, run, tile=10**6, margin=0).astype(int)
    assert np.abs(enlarge(x, run, tile=64, margin=48).astype(int) - whole).max() > 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "scale", "options"),
    [
        ("sa-rcan-light", 2, {}),
        ("sa-rcan-light", 4, {}),
        ("sa-rcan", 2, {"groups": 2, "blocks": 3}),
        ("sa-rcan-group", 3, {"blocks": 3}),
        ("rcan", 2, {}),  # the deepest
        ("srcnn", 3, {}),
        ("edsr-baseline", 2, {}),
        ("edsr", 2, {"channels": 64}),
        ("rrdbnet", 4, {"channels": 16, "growth": 8}),
        ("rrdbnet", 2, {"channels": 16, "growth": 8, "blocks": 6, "unshuffle": 2}),
        ("srvgg", 4, {}),
        ("unet", 2, {}),
        ("unet-2", 2, NARROW),
        ("unet-5", 4, {}),
        ("unet-8", 3, {}),
        ("unet-9", 2, {}),
        ("unet-11", 2, {}),
    ],
)
def test_tiled_equals_whole_for_networks_of_the_catalogue(name: str, scale: int, options: dict[str, object]) -> None:
    """A narrow strip: wide enough for the margins of every network, and small."""
    torch.manual_seed(0)
    network = build(name, scale=scale, **options).eval()
    for key, value in network.named_parameters():
        if key.endswith("gamma"):
            value.data.fill_(0.5)
    x = picture(40, 2 * network.context + 96, np.float32)
    gates = [[math.inf] for module in network.modules() if isinstance(module, ChannelAttention)]  # to find them is slow
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it would say that tiles have seams
        run = TorchEngine(for_inference(network, gates=gates), CPU, "float32")
    whole = enlarge(x, run, tile=10**6, margin=0)
    tiled = enlarge(x, run, tile=x.shape[1] // 2, margin=network.context)
    low, high = np.quantile(whole, (0.01, 0.99))  # random weights give pictures of any contrast
    assert np.abs(tiled - whole).max() / (high - low) * 255 <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 500), (2, 49)])
def test_odd_sizes(height: int, width: int) -> None:
    y = enlarge(picture(height, width), engine(tiny_network(3)), tile=96, margin=48)
    assert y.shape == (3 * height, 3 * width, 3)


class Scarce(TorchEngine):
    """An engine on a device with little memory."""

    def __init__(self, network: Network, pixels: int, error: Exception) -> None:
        super().__init__(for_inference(network), CPU, "float32")
        self.pixels, self.error, self.refused = pixels, error, 0

    def run(self, x: Array, tick: tiling.Progress | None = None) -> Array:
        if x.shape[2] * x.shape[3] > self.pixels:
            self.refused += 1
            raise self.error
        return super().run(x, tick)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("bad allocation"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        Exception(
            "[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 4398046511104"
        ),
    ],
)
def test_out_of_memory_halves_the_tile(error: Exception) -> None:
    x = picture(200, 230)
    run = Scarce(tiny_network(2), 150 * 150, error)
    tiled = enlarge(x, run, tile=192, margin=48)
    whole = enlarge(x, engine(tiny_network(2)), tile=10**6, margin=0)
    assert 1 <= run.refused <= 2  # learned once, not tile by tile
    assert np.abs(tiled.astype(int) - whole.astype(int)).max() <= 1


def test_no_memory_at_all_is_said() -> None:
    with pytest.raises(FinescaleError, match="out of memory"):
        enlarge(picture(60, 60), Scarce(tiny_network(2), 100, MemoryError()), tile=64, margin=48)


def test_statistics_of_the_whole_are_not_taken_of_tiles_where_memory_runs_out() -> None:
    upscaler = Upscaler(tiny_network(2), window=None, engine="torch")
    upscaler.engine = Scarce(tiny_network(2), 150 * 150, MemoryError())
    with pytest.raises(FinescaleError, match="not enough memory for this picture in one piece"):
        upscaler.pixels(picture(200, 230))
    assert upscaler.pixels(picture(60, 60)).shape == (120, 120, 3)


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        enlarge(picture(9, 9), Scarce(tiny_network(2), 0, RuntimeError("shape mismatch")), tile=64, margin=48)


class Overflowing(TorchEngine):
    """Loses some values, as float16 does; its float32 twin does not, or does too."""

    def __init__(self, network: Network, exact: TorchEngine | None) -> None:
        super().__init__(for_inference(network), CPU, "float32")
        self.twin = exact

    def run(self, x: Array, tick: tiling.Progress | None = None) -> Array:
        y = super().run(x, tick).copy()
        y[..., 0, 0] = np.inf
        return y

    def exact(self) -> TorchEngine | None:
        return self.twin


def test_values_that_are_not_finite_are_computed_again() -> None:
    x, network = picture(50, 60), tiny_network(2)
    np.testing.assert_array_equal(
        enlarge(x, Overflowing(network, engine(network)), tile=64, margin=48),
        enlarge(x, engine(network), tile=64, margin=48),
    )
    with pytest.raises(FinescaleError, match="not finite"):
        enlarge(x, Overflowing(network, None), tile=64, margin=48)


def test_progress_rises_to_one_and_can_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "_PAUSE", math.inf)  # of slow machines
    seen: list[float] = []
    enlarge(picture(120, 100), engine(tiny_network(2)), tile=48, margin=48, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) == 9

    def stop(done: float) -> None:
        raise tiling.Cancelled

    with pytest.raises(tiling.Cancelled):
        enlarge(picture(120, 100), engine(tiny_network(2)), tile=48, margin=48, progress=stop)


class Telling(TorchEngine):
    """Tells a hundred shares in a second of each tile, by a clock of its own; none of them where nobody asks."""

    def __init__(self, network: Network, shares: list[float], short: int = 0) -> None:
        super().__init__(for_inference(network), CPU, "float32")
        self.shares, self.short, self.now = shares, short, 0.0

    def perf_counter(self) -> float:
        return self.now

    def run(self, x: Array, tick: tiling.Progress | None = None) -> Array:
        for share in self.shares if tick else []:
            self.now += 0.01
            assert tick is not None
            tick(share)
        if self.short:
            self.short -= 1
            raise MemoryError
        return super().run(x)


@pytest.mark.parametrize(
    "shares",
    [[i / 100 for i in range(100)], [0.5] * 100, [i / 30 for i in range(100)], [1 - i / 100 for i in range(100)]],
    ids=["even", "unknown", "more than all", "falling"],
)
@pytest.mark.parametrize("short", [0, 1])
def test_within_a_tile_progress_is_told_now_and_then(
    shares: list[float], short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never falls, whatever an engine tells, and where a tile is computed again."""
    run = Telling(tiny_network(2), shares, short)
    monkeypatch.setattr(tiling, "time", run)
    seen: list[float] = []
    x = picture(96, 60)
    enlarge(x, run, tile=96, margin=48, progress=seen.append)
    assert seen == sorted(seen)
    assert [share for share in seen if share == 1] == [1]
    tiles = 1 + 4 * short
    assert 16 * tiles <= len(seen) <= 22 * tiles
    before = run.now
    enlarge(x, run, tile=96, margin=48)
    assert run.now == before


def test_preparing_leaves_the_network_alone() -> None:
    network = tiny_network(2)
    names = list(network.state_dict())
    x = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        wanted = network(x)
        prepared = for_inference(network, None)
        torch.testing.assert_close(prepared(x), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(network(x), wanted, atol=1e-6, rtol=0)
        for_inference(network)  # a second copy: folding must not spoil the shared class
    assert list(network.state_dict()) == names
    assert all(module.window is None for module in network.modules() if isinstance(module, StatisticsLayer))


class Chain(nn.Sequential):
    multiple = 1


def test_memory_estimate_counts_what_is_alive_at_once() -> None:
    chain = Chain(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1))
    assert bytes_per_pixel(chain) == 4 * (3 + 8 + 16)  # type: ignore[arg-type]  # the picture, and two maps
    branch = Chain(nn.ReLU(), nn.PixelShuffle(1), nn.Flatten(2), nn.Unflatten(2, (48, 48)))  # views are free
    assert bytes_per_pixel(branch) == pytest.approx(4 * (3 + 3 + 3))  # type: ignore[arg-type]
    direct, classic = tiny_network(4), tiny_network(4, tail="classic")
    assert bytes_per_pixel(classic) > max(4 * 16 * 16, bytes_per_pixel(direct))  # 16 channels at 16 times the pixels


@pytest.mark.parametrize("size", [(50, 250), (96, 96), (1, 300)])
def test_what_fits_is_one_tile(size: tuple[int, int]) -> None:
    whole = Tile(0, 0, *size)
    assert plan(whole, size) == [whole]
    assert len(plan(whole, (48, 48))) == -(-size[0] // 48) * -(-size[1] // 48)


@pytest.mark.parametrize(
    ("arguments", "window", "step"),
    [
        ({}, 48, None),
        ({"attention_pool": 3, "attention_query_pool": 1}, 48, None),
        ({"attention_query_pool": 5}, 48, 20),
        ({"attention_pool": 5, "attention_query_pool": 1}, 48, 20),
        ({}, 64, 32),
    ],
)
def test_seams_are_told(arguments: dict[str, int], window: int, step: int | None) -> None:
    network = tiny_network(2, **arguments)
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.data.fill_(2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = engine(network, window)
    x = picture(150, 110, np.float32)
    tiled, whole = (enlarge(x, run, tile=side, margin=96) for side in (48, 200))
    if step is None:
        assert not said
        assert np.abs(tiled - whole).max() < 1e-5
    else:
        assert [f"steps of {step} pixels, which do not divide 48" in str(one.message) for one in said] == [True]
        assert np.abs(tiled - whole).max() > 0.01


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.AdaptiveAvgPool2d(1), True),
        (nn.GroupNorm(1, 3), True),
        (nn.InstanceNorm2d(3), True),
        (nn.InstanceNorm2d(3, track_running_stats=True), False),
    ],
    ids=str,
)
def test_layers_that_look_at_whole_tiles_are_told(layer: nn.Module, told: bool) -> None:
    network = tiny_network(2)
    network.add_module("own", layer)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for_inference(network)
        for_inference(network, None)  # it is not cut into tiles
    words = f"this network has {type(layer).__name__}, which look at all of a tile"
    assert [words in str(one.message) for one in said] == told * [True]


@pytest.mark.parametrize(
    ("window", "context", "margin"), [(96, 48, 96), (96, 20, 48), (48, 50, 96), (None, 50, 96)], ids=str
)
def test_margins_are_as_large_as_windows_need(window: int | None, context: int, margin: int) -> None:
    x = picture(60, 700)
    x[:, :300] //= 5  # other statistics on the left
    network = tiny_network(2)
    network.context = context
    cut, uncut = (
        Upscaler(network, engine="torch", precision="float32", window=window, tile=side) for side in (48, 10**6)
    )
    tiled, whole = cut.pixels(x).astype(int), uncut.pixels(x)
    assert cut.engine.margin == margin
    if window:
        assert np.abs(tiled - whole).max() <= 1
