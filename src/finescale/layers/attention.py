"""Channel attention (RCAN) and self-attention over positions (SAGAN)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.layers.norm import Norm, normalised
from finescale.layers.spectral import bare
from finescale.layers.statistics import StatisticsLayer, cell_means, crop, shared, upsample_cells, window_means

_EIGHT = 8


class ChannelAttention(StatisticsLayer):
    """Scales every channel by a gate computed from its mean (RCAN, arXiv 1807.02758, section 3.3).

    (B, C, H, W) -> (B, C, H, W). Parameters are named as in the authors' files (`conv_du.0`, `conv_du.2`).

    Args:
        channels: C.
        reduction: the hidden layer has max(1, C // reduction) channels.

    Attributes:
        most: (1, C, 1, 1), the gates' upper limits; None: they go up to 1, as in training.
    """

    most: Tensor | None

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )
        self.register_buffer("most", None, persistent=False)

    def gates(self, x: Tensor) -> Tensor:
        """The gates (B, C, 1, 1), or with a window of every cell, see `window_means`."""
        if self.training and self.window is None and self.most is None:
            parts = list(self.conv_du)
            if [bare(part) for part in parts] == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.Sigmoid]:
                down, rectify, up, squash = parts
                layers = _as_made(down, up)
                if layers and not any(map(_watched, (self.conv_du, rectify, squash))):
                    # the same by products of matrices: a convolution of single pixels is several kernels for every one
                    y = rectify(_product(x.mean((2, 3)), layers[0]))
                    return squash(_product(y, layers[1]))[:, :, None, None]
        gates: Tensor = self.conv_du(
            x.mean((2, 3), keepdim=True) if self.window is None else window_means(x, self.window)
        )
        return gates if self.most is None else torch.minimum(gates, self.most.to(gates.dtype))

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None:
            return x * self.gates(x)
        return x * upsample_cells(self.gates(x), self.window, x.shape[2], x.shape[3])


class SelfAttention(StatisticsLayer):
    """Self-attention over positions with a learned gate (SAGAN, arXiv 1805.08318, section 3).

    (B, C, H, W) -> (B, C, H, W): x + gamma * output(softmax(q k^T) v), gamma from 0, so the layer starts as identity.

    With a `window`, every block of half a window's side (a third where only that has a margin of whole keys) attends to
    the window centred on it (its keys outside the picture are masked), so cost grows linearly with the picture and the
    field of view is finite. Tiles of a picture meet the same blocks as the whole if these divide 48, see `grid`.

    Args:
        channels: C.
        reduction: query and key have max(1, C // reduction) channels.
        value_reduction: the value has max(1, C // value_reduction) channels; 2 in the code of SAGAN's authors.
        pool: keys and values are max-pooled by this factor, as by 2 in that code.
        query_pool: queries are average-pooled by this factor and the result is enlarged bilinearly; 1 keeps every
            position a query. Keys are then pooled by `pool` after that.
        norm: of the convolutions, see `finescale.layers.norm`.
        spectral_query: False leaves the query out of it, as SA-RCAN does.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 8,
        value_reduction: int = 2,
        pool: int = 2,
        query_pool: int = 1,
        norm: Norm = "spectral",
        spectral_query: bool = True,
    ) -> None:
        super().__init__()

        def convolution(c_in: int, c_out: int, norm: Norm = norm) -> nn.Module:
            layers = normalised(nn.Conv2d(c_in, c_out, 1), norm)
            return layers[0] if len(layers) == 1 else nn.Sequential(*layers)

        hidden, inner = max(1, channels // reduction), max(1, channels // value_reduction)
        self.pool, self.query_pool, self.hidden, self.inner = pool, query_pool, hidden, inner
        self.fused: nn.Conv2d | None = None  # see `fuse`
        self.query = convolution(channels, hidden, norm if spectral_query else "none")
        self.key, self.value = convolution(channels, hidden), convolution(channels, inner)
        self.output = convolution(inner, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def grid(self) -> int:
        """See `StatisticsLayer`: the side of a block."""
        if self.window is None:
            return super().grid()
        unit, span = _window_units(self.window / (self.query_pool * self.pool))
        return self.stride * self.query_pool * self.pool * unit * span

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        step = self.query_pool
        source = cell_means(x, step) if step > 1 else x
        if self.fused is not None:
            query, pairs = self.fused(source).split((self.hidden, self.hidden + self.inner), 1)
        elif self.training:
            query, pairs = self._together(source)
        else:
            query, pairs = self.query(source), torch.cat((self.key(source), self.value(source)), 1)
        if self.pool > 1:
            pairs = F.max_pool2d(pairs, self.pool, ceil_mode=True)
        if self.window is None:
            key, value = self._parted(query, _positions(pairs))
            mixed = _attend(_positions(query), key, value)
            mixed = mixed.transpose(1, 2).reshape(x.shape[0], -1, query.shape[2], query.shape[3])
        else:
            mixed = self._windowed(query, pairs, self.window)
        mixed, gamma = self._put_out(mixed)
        if step > 1:
            # autocast enlarges in float32, which everything after the layer would inherit
            mixed = F.interpolate(mixed, scale_factor=step, mode="bilinear", align_corners=False).to(x.dtype)
            mixed = crop(mixed, height, width)
        return x + mixed if gamma is None else x + gamma.to(x.dtype) * mixed

    def fuse(self) -> None:
        """Makes query, key and value by one convolution from now on, in place; for a network that is not trained."""
        layers = _as_made(self.query, self.key, self.value)
        if not layers:  # norms follow, or a program put its own there
            return
        weight, bias = _joined(layers)
        self.fused = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device="meta")
        self.fused.weight, self.fused.bias = (nn.Parameter(t.detach(), requires_grad=False) for t in (weight, bias))

    def _together(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query, and key with value, by one convolution: a fourth of the kernels of three and their backward passes.

        Each is filled up to whole eights of channels with zeros, which change no product: what GPUs compute fast.
        """
        layers = _as_made(self.query, self.key, self.value, self.output)
        if not layers:
            return self.query(x), torch.cat((self.key(x), self.value(x)), 1)
        hidden = self.hidden + -self.hidden % _EIGHT
        y = F.conv2d(x, *_joined(layers[:3], _EIGHT))
        return y[:, :hidden], y[:, hidden:]

    def _put_out(self, mixed: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output convolution's result, and the gate that is still to come.

        In training that is put into the convolution: whole maps need not be kept and read again for its one gradient.
        """
        layers = _as_made(self.output) if self.training else []
        if not layers:
            return self.output(mixed), self.gamma
        (output,), missing = layers, int(mixed.shape[1]) - self.inner
        assert output.bias is not None
        weight = F.pad(output.weight, (0, 0, 0, 0, 0, missing)) * self.gamma
        return F.conv2d(mixed, weight, output.bias * self.gamma), None

    @staticmethod
    def _parted(query: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, as wide as the query (B, C, H, W), and values, of (B, N, C'')."""
        hidden = int(query.shape[1])
        key, value = pairs.split((hidden, int(pairs.shape[2]) - hidden), 2)
        return key, value

    def _windowed(self, query: Tensor, pairs: Tensor, window: int) -> Tensor:
        """Blocks of queries attend to overlapping windows of keys; (B, C', H, W) as `query` is laid out."""
        unit, span = _window_units(window / (self.query_pool * self.pool))
        where = tuple(map(int, (*query.shape, *pairs.shape[2:], unit, span, self.pool)))
        cut = shared((*where, query.dtype, query.device), lambda: _Cut(query, pairs, unit, span, self.pool))
        key, value = self._parted(query, cut.windows(pairs))
        return cut.joined(_attend(cut.blocks(query), key, value, cut.bias))


class _Cut:
    """How maps are cut into blocks of queries and the windows of keys around them; sizes alone decide it."""

    def __init__(self, query: Tensor, key: Tensor, unit: int, span: int, pool: int) -> None:
        self.batch, (self.height, self.width) = query.shape[0], query.shape[2:]
        self.block, self.side, step = span * unit * pool, (span + 2) * unit, span * unit  # in queries, in keys
        self.rows, self.columns = ((size + self.block - 1) // self.block for size in (self.height, self.width))
        below, right = self.rows * self.block - self.height, self.columns * self.block - self.width
        self.query_pad = 0, right, 0, below
        # window (i, j) begins one unit before the block it serves
        height, width = key.shape[2:]
        below, right = (self.rows * span + 1) * unit - height, (self.columns * span + 1) * unit - width
        self.key_pad = unit, right, unit, below
        window = torch.arange(self.side, device=key.device)
        starts = (torch.arange(count, device=key.device) * step for count in (self.rows, self.columns))
        self.places = [(start.unsqueeze(1) + window).reshape(-1) for start in starts]
        inside = self.windows(torch.ones_like(key.narrow(1, 0, 1))) > 0
        self.bias = torch.zeros_like(inside, dtype=query.dtype).masked_fill(~inside, -math.inf).transpose(1, 2)

    def blocks(self, query: Tensor) -> Tensor:
        """(B, C, H, W) -> ((B rows columns), block^2, C)."""
        channels, side = int(query.shape[1]), self.block
        query = F.pad(query, self.query_pad).reshape(self.batch, channels, self.rows, side, self.columns, side)
        return query.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, channels)

    def windows(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> ((B rows columns), window^2, C); zeros outside."""
        channels, side = int(x.shape[1]), self.side
        x = F.pad(x, self.key_pad).index_select(2, self.places[0]).index_select(3, self.places[1])
        x = x.reshape(self.batch, channels, self.rows, side, self.columns, side)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, channels)

    def joined(self, blocks: Tensor) -> Tensor:
        """((B rows columns), block^2, C) -> (B, C, H, W)."""
        channels, side = int(blocks.shape[2]), self.block
        maps = blocks.reshape(self.batch, self.rows, self.columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
        maps = maps.reshape(self.batch, channels, self.rows * side, self.columns * side)
        return crop(maps, self.height, self.width)


def _as_made(*layers: nn.Module) -> list[nn.Conv2d]:
    """Convolutions of 1 x 1, if nothing but a weight and a bias tells what each does; else none."""
    found = []
    for layer in layers:
        if _watched(layer) or bare(layer) is not nn.Conv2d or not isinstance(layer, nn.Conv2d):
            return []
        if layer.bias is None or layer.kernel_size != (1, 1):
            return []
        if layer.stride != (1, 1) or layer.padding != (0, 0) or layer.groups != 1:
            return []
        found.append(layer)
    return found


def _watched(layer: nn.Module) -> bool:
    """Whether a program has put hooks on it."""
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    return any(hooks)


def _product(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """What a convolution of 1 x 1 gives for single pixels (B, C)."""
    # in the order of channels_last, so that gradients lie in memory as the weights do
    return F.linear(x, layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)


def _joined(layers: Sequence[nn.Conv2d], whole: int = 1) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what all do, each filled up to a multiple of `whole` channels."""
    weights, biases = [], []
    for layer in layers:
        missing = -layer.out_channels % whole
        assert layer.bias is not None
        weights.append(F.pad(layer.weight, (0, 0, 0, 0, 0, 0, 0, missing)))
        biases.append(F.pad(layer.bias, (0, missing)))
    return torch.cat(weights), torch.cat(biases)


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def _window_units(keys: float) -> tuple[int, int]:
    """The unit, in keys, of a window of about `keys`, and how many units a block has; the margin is one unit."""
    if keys % 4 and not keys % 3:
        return int(keys) // 3, 1
    return max(1, round(keys / 4)), 2


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T + bias) v without a temperature, as in SAGAN; (B, N, C), (B, M, C), (B, M, C') -> (B, N, C').

    The fast path on the CPU never builds the N x M matrix, but only where all three have the same width: the narrower
    are filled up with zeros, which changes no product. The bias is (B, 1, M).
    """
    inner = int(value.shape[2])
    width = max(int(query.shape[2]), inner)
    query, key, padded = (_filled(t, width).unsqueeze(1) for t in (query, key, value))
    mask = None if bias is None else bias.unsqueeze(1)
    mixed = F.scaled_dot_product_attention(query, key, padded, attn_mask=mask, scale=1.0).squeeze(1)
    return mixed if inner == width else mixed[..., :inner]


def _filled(x: Tensor, width: int) -> Tensor:
    """(B, N, C) -> (B, N, width), zeros behind."""
    missing = width - int(x.shape[2])
    return F.pad(x, (0, missing)) if missing else x
