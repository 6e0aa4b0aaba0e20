"""Norms, attention and their local windows."""

import copy

import pytest
import torch
from torch import Tensor, nn

from finescale.errors import UsageError
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.norm import InstanceNorm, normalised
from finescale.layers.spectral import normalise, spectral_norm
from finescale.layers.statistics import StatisticsLayer, localise, sharing
from finescale.networks.catalogue import build


def test_instance_norm_equals_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = InstanceNorm(5), nn.InstanceNorm2d(5, affine=True)
    weights = {"weight": torch.randn(5), "bias": torch.randn(5)}
    ours.load_state_dict(weights)
    theirs.load_state_dict(weights)
    x = 3 * torch.randn(2, 5, 9, 7) + 10
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_instance_norm_of_one_position_is_its_shift() -> None:
    norm = InstanceNorm(3)
    norm.bias.data.fill_(2.0)
    assert norm(torch.randn(1, 3, 1, 1)).flatten().tolist() == [2, 2, 2]


def test_local_instance_norm_normalises_every_region_by_itself() -> None:
    torch.manual_seed(0)
    norm = InstanceNorm(1)
    norm.window = 16
    x = torch.randn(1, 1, 32, 128)
    x[..., 64:] = 20 * x[..., 64:] - 100  # another brightness and contrast on the right
    with torch.no_grad():
        y = norm(x)
    for region in (y[..., 8:40], y[..., 88:120]):  # clear of the step
        assert abs(region.mean()) < 0.1
        assert abs(region.std() - 1) < 0.1


def test_local_instance_norm_survives_a_flat_region() -> None:
    norm = InstanceNorm(1)
    norm.window = 8
    y = norm(torch.full((1, 1, 20, 20), 1000.0))
    assert y.isfinite().all()
    assert y.abs().max() < 0.05  # rounding of the mean, enlarged by at most 1 / sqrt(eps)


def test_local_instance_norm_of_small_differences_between_large_values() -> None:
    torch.manual_seed(0)
    norm, x = InstanceNorm(2), torch.randn(1, 2, 64, 64, dtype=torch.float64) + 3000
    norm.window = 24
    assert (norm(x.float()) - norm((x - 3000).float())).abs().max() < 1e-2


@pytest.mark.parametrize(("norm", "layers"), [("batch", 2), ("instance", 2), ("spectral", 1), ("none", 1)])
def test_norms_by_name(norm: str, layers: int) -> None:
    torch.manual_seed(0)
    made = normalised(nn.Conv2d(3, 6, 3, padding=1), norm)  # type: ignore[arg-type]
    assert len(made) == layers
    assert nn.Sequential(*made)(torch.randn(2, 3, 8, 8)).shape == (2, 6, 8, 8)


def test_unknown_norm() -> None:
    with pytest.raises(UsageError, match="did you mean 'instance'"):
        normalised(nn.Conv2d(3, 6, 3), "instanc")  # type: ignore[arg-type]


def test_spectral_norm_bounds_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 16, 3)
    convolution.weight.data.mul_(50)
    (constrained,) = normalised(convolution, "spectral")
    for _ in range(200):  # each look in training mode is one power iteration
        _ = constrained.weight
    weight = constrained.eval().weight
    assert isinstance(weight, Tensor)
    largest = torch.linalg.svdvals(weight.detach().flatten(1).double())[0]
    assert abs(largest - 1) < 1e-3


def test_spectral_norm_is_that_of_pytorch() -> None:
    """The same start, iterations, weights and gradients; and the same for many layers at once."""
    ours, theirs = ([nn.Conv2d(8, 16, 3) for _ in range(3)] for _ in range(2))
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
        torch.manual_seed(0)
        spectral_norm(mine)
        torch.manual_seed(0)
        nn.utils.parametrizations.spectral_norm(other)
        assert mine.state_dict().keys() == other.state_dict().keys()
    for together in (False, True):
        if together:
            chains = [mine.get_submodule("parametrizations.weight") for mine in ours]
            norms = [chain.get_submodule("0") for chain in chains]
            mine_now = normalise(norms, [chain.get_parameter("original") for chain in chains])  # type: ignore[arg-type]
        else:
            mine_now = [mine.weight for mine in ours]
        expected = [other.weight for other in theirs]
        torch.testing.assert_close(mine_now, expected)
        for weights in (mine_now, expected):
            torch.stack([(weight.square() * torch.arange(9.0).view(3, 3)).sum() for weight in weights]).sum().backward()
        for mine, other in zip(ours, theirs, strict=True):
            name = "parametrizations.weight.original"
            torch.testing.assert_close(mine.get_parameter(name).grad, other.get_parameter(name).grad)
            torch.testing.assert_close(mine.state_dict(), other.state_dict())


def test_self_attention_is_the_same_in_training() -> None:
    """There query, key and value are one convolution, filled up to whole eights of channels."""
    torch.manual_seed(0)
    for reductions in ((16, 16), (4, 2)):
        layer = SelfAttention(64, reduction=reductions[0], value_reduction=reductions[1], norm="none")
        layer.gamma.data.fill_(0.7)
        for window in (None, 12):
            layer.window = window
            x = torch.randn(2, 64, 24, 20, requires_grad=True)
            results = []
            for training in (True, False):
                y = layer.train(training)(x)
                results.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
            for mine, other in zip(*results, strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5 * float(results[1][1].abs().max()))


def test_self_attention_trains_with_what_a_program_put_into_it() -> None:
    class Scaled(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(8, 4, 1)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * super().forward(x)

    x = torch.randn(1, 8, 6, 6)
    for exchanged in (nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(8, 4, 3, padding=1), Scaled()):
        layer = SelfAttention(8, reduction=2, pool=1, norm="none")
        layer.gamma.data.fill_(0.5)
        layer.query = exchanged
        y = layer.train()(x)
        torch.testing.assert_close(y, layer.eval()(x))
        fused = copy.deepcopy(layer)
        fused.fuse()  # which leaves it as it is
        torch.testing.assert_close(fused(x), y)
        y.sum().backward()
        assert all(p.grad is not None for p in layer.parameters())
    seen = []
    layer = SelfAttention(8)
    layer.key.register_forward_hook(lambda *_: seen.append(1))
    layer.train()(x)
    assert seen


def test_self_attention_starts_as_identity_and_equals_its_formula() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(8, reduction=4, value_reduction=2, pool=1).eval()
    x = torch.randn(2, 8, 5, 6)
    assert torch.equal(layer(x), x)
    layer.gamma.data.fill_(0.7)
    with torch.no_grad():
        q, k, v = (f(x).flatten(2) for f in (layer.query, layer.key, layer.value))
        shares = torch.softmax(torch.einsum("bcn,bcm->bnm", q, k), dim=2)
        expected = x + 0.7 * layer.output(torch.einsum("bnm,bcm->bcn", shares, v).unflatten(2, (5, 6)))
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("pool", "query_pool"), [(2, 1), (3, 1), (1, 4), (2, 2)])
def test_pooled_self_attention_equals_its_formula(pool: int, query_pool: int) -> None:
    """Queries are means, keys and values maxima; the last ones of a row over what is left of it."""

    def squares(x: Tensor, side: int) -> list[list[Tensor]]:
        rows, columns = (range(0, size, side) for size in x.shape[2:])
        return [[x[:, :, i : i + side, j : j + side].flatten(2) for j in columns] for i in rows]

    torch.manual_seed(0)
    layer = SelfAttention(8, reduction=4, value_reduction=2, pool=pool, query_pool=query_pool).eval()
    layer.gamma.data.fill_(0.7)
    x = 2 * torch.randn(2, 8, 9, 7)
    with torch.no_grad():
        source = torch.stack(
            [torch.stack([s.mean(2) for s in row], 2) for row in squares(x, query_pool)], 2
        )  # (B, C, rows, columns)
        q = layer.query(source).flatten(2)
        k, v = (
            torch.stack([s.amax(2) for row in squares(f(source), pool) for s in row], 2)
            for f in (layer.key, layer.value)
        )
        shares = torch.softmax(torch.einsum("bcn,bcm->bnm", q, k), dim=2)
        mixed = layer.output(torch.einsum("bnm,bcm->bcn", shares, v).unflatten(2, source.shape[2:]))
        if query_pool > 1:
            size = [query_pool * side for side in source.shape[2:]]
            mixed = nn.functional.interpolate(mixed, size=size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(layer(x), x + 0.7 * mixed[..., :9, :7], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("pool", "query_pool"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("window", [48, 96])
def test_a_window_of_twice_the_map_is_the_whole(pool: int, query_pool: int, window: int) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(8, pool=pool, query_pool=query_pool).eval()
    layer.gamma.data.fill_(1.0)
    x = torch.randn(1, 8, 24, 19)
    with torch.no_grad():
        whole = layer(x)
        layer.window = window
        torch.testing.assert_close(layer(x), whole, atol=1e-5, rtol=1e-5)
        layer.window = 12
        assert (layer(x) - whole).abs().max() > 1e-3


def test_channel_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    layer = ChannelAttention(8, reduction=4)
    x = torch.randn(2, 8, 5, 6)
    down, up = layer.conv_du[0], layer.conv_du[2]
    assert isinstance(down, nn.Conv2d)
    assert isinstance(up, nn.Conv2d)
    assert down.bias is not None
    assert up.bias is not None
    hidden = torch.relu(x.mean((2, 3)) @ down.weight.flatten(1).T + down.bias)
    gate = torch.sigmoid(hidden @ up.weight.flatten(1).T + up.bias)
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])


def layers() -> list[tuple[StatisticsLayer, int]]:
    """Layers and the window, in positions, that a network would give them."""
    attention = [(SelfAttention(8, pool=pool), window) for pool, window in ((2, 6), (2, 12), (2, 24), (4, 48), (1, 12))]
    for layer, _ in attention:
        layer.gamma.data.fill_(1.0)
    strided = SelfAttention(8, pool=1, query_pool=4)
    strided.gamma.data.fill_(1.0)
    others = [(ChannelAttention(8), 48), (ChannelAttention(8), 6), (InstanceNorm(8), 24), (InstanceNorm(8), 3)]
    return [*attention, (strided, 48), *others]


@pytest.mark.parametrize("index", range(len(layers())))
def test_an_aligned_tile_equals_the_whole_inside(index: int) -> None:
    torch.manual_seed(1)
    layer, window = layers()[index]
    layer.eval()
    layer.window = window
    x = torch.randn(1, 8, 4 * window, 5 * window)
    with torch.no_grad():
        whole = layer(x)
        tile = layer(x[..., window : 4 * window, window : 4 * window].contiguous())
    margin = 2 * window  # windows of up to twice the side that was asked for, on either side
    if margin >= tile.shape[2] // 2:
        margin = window
    torch.testing.assert_close(
        tile[..., margin:-margin, margin:-margin],
        whole[..., window + margin : 4 * window - margin, window + margin : 4 * window - margin],
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("index", range(len(layers())))
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (7, 2)])
def test_any_size_with_and_without_windows(index: int, size: tuple[int, int]) -> None:
    layer, window = layers()[index]
    x = torch.randn(2, 8, *size)
    before = x.clone()
    for chosen in (None, window):
        layer.window = chosen
        y = layer(x)
        assert y.shape == x.shape
        assert y.isfinite().all()
        assert layer.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
        layer.float()
    assert torch.equal(x, before)


def test_localise_follows_the_resolution_of_a_layer() -> None:
    fine, coarse, deepest = (InstanceNorm(1) for _ in range(3))
    coarse.stride, deepest.stride = 8, 64
    network = nn.ModuleList([fine, coarse, deepest])
    localise(network, 48)
    assert (fine.window, coarse.window, deepest.window) == (48, 6, 1)
    localise(network, None)
    assert fine.window is None


@pytest.mark.parametrize("window", [None, 48])
@pytest.mark.parametrize("pools", [(2, 1), (1, 4)])
def test_fused_and_shared_attention_is_the_same(window: int | None, pools: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layers = [SelfAttention(16, pool=pools[0], query_pool=pools[1]).eval().requires_grad_(False) for _ in range(2)]
    for layer in layers:
        layer.gamma.fill_(0.5)
        localise(layer, window)
    pictures = torch.randn(1, 16, 61, 50), torch.randn(2, 16, 61, 50), torch.randn(1, 16, 50, 61)
    plain = [layers[1](layers[0](x)) for x in pictures]
    for layer in layers:
        for name in ("query", "key", "value"):  # as `for_inference` folds them
            part = getattr(layer, name)
            folded = nn.Conv2d(part.in_channels, part.out_channels, 1).requires_grad_(False)
            folded.weight.copy_(part.weight)
            folded.bias.copy_(part.bias)  # type: ignore[union-attr]
            setattr(layer, name, folded)
        layer.fuse()
        assert layer.fused is not None
    with sharing():  # one table for pictures of several sizes
        for x, expected in zip(pictures, plain, strict=True):
            torch.testing.assert_close(layers[1](layers[0](x)), expected, atol=1e-5, rtol=1e-5)


def test_local_windows_compile_in_one_piece() -> None:
    torch.manual_seed(0)
    network = build("sa-rcan", scale=2, channels=16, groups=1, blocks=2).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.gamma.fill_(0.5)
    localise(network, 48)
    x = torch.rand(1, 3, 56, 68)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x))
