"""Channel attention (RCAN) and self-attention over positions (SAGAN)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finescale.layers.norm import Norm, normalised
from finescale.layers.statistics import StatisticsLayer, cell_means, crop, upsample_cells, window_means


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

    With a `window`, every block of half a window's side (a third where half does not go into whole keys) attends to the
    window centred on it (its keys outside the picture are masked), so cost grows linearly with the picture and the
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
        self.pool, self.query_pool = pool, query_pool
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
        query, key, value = self.query(source), self.key(source), self.value(source)
        if self.pool > 1:
            key = F.max_pool2d(key, self.pool, ceil_mode=True)
            value = F.max_pool2d(value, self.pool, ceil_mode=True)
        if self.window is None:
            mixed = _attend(_positions(query), _positions(key), _positions(value))
            mixed = mixed.transpose(1, 2).reshape(x.shape[0], -1, query.shape[2], query.shape[3])
        else:
            mixed = self._windowed(query, key, value, self.window)
        mixed = self.output(mixed)
        if step > 1:
            # autocast enlarges in float32, which everything after the layer would inherit
            mixed = F.interpolate(mixed, scale_factor=step, mode="bilinear", align_corners=False).to(x.dtype)
            mixed = crop(mixed, height, width)
        return x + self.gamma.to(x.dtype) * mixed

    def _windowed(self, query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
        """Blocks of queries attend to overlapping windows of keys; (B, C', H, W) as `query` is laid out."""
        batch, channels, height, width = query.shape
        unit, span = _window_units(window / (self.query_pool * self.pool))
        block = span * unit * self.pool  # in queries
        rows, columns = (height + block - 1) // block, (width + block - 1) // block
        query = F.pad(query, (0, columns * block - width, 0, rows * block - height))
        q = query.reshape(batch, channels, rows, block, columns, block).permute(0, 2, 4, 3, 5, 1)
        q = q.reshape(-1, block * block, channels)  # (B rows columns), block^2, C
        k, v = (_overlapping(t, unit, span, rows, columns) for t in (key, value))
        inside = _overlapping(torch.ones_like(key[:, :1]), unit, span, rows, columns)[:, None, :, 0] > 0
        mixed = _attend(q, k, v, inside)
        mixed = mixed.reshape(batch, rows, columns, block, block, -1).permute(0, 5, 1, 3, 2, 4)
        mixed = mixed.reshape(batch, -1, rows * block, columns * block)
        return mixed[..., :height, :width]


def _positions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def _window_units(keys: float) -> tuple[int, int]:
    """The unit, in keys, of a window of about `keys`, and how many units a block has; the margin is one unit."""
    if keys % 4 and not keys % 3:
        return int(keys) // 3, 1
    return max(1, round(keys / 4)), 2


def _overlapping(x: Tensor, unit: int, span: int, rows: int, columns: int) -> Tensor:
    """Cuts (B, C, h, w) into windows of (span + 2) units, `span` units apart: ((B rows columns), window^2, C).

    Window (i, j) starts at (span i - 1) units: one unit before the block it serves. Zeros outside.
    """
    batch, channels, height, width = x.shape
    units = span * rows + 2, span * columns + 2
    x = F.pad(x, (unit, (units[1] - 1) * unit - width, unit, (units[0] - 1) * unit - height))
    x = x.reshape(batch, channels, units[0], unit, units[1], unit)
    window = range(span + 2)
    x = torch.stack([x[:, :, i : i + span * rows : span] for i in window], dim=3)  # B C rows w unit S unit
    x = torch.stack([x[..., j : j + span * columns : span, :] for j in window], dim=6)  # B C rows w unit columns w unit
    side = (span + 2) * unit
    return x.permute(0, 2, 5, 3, 4, 6, 7, 1).reshape(-1, side * side, channels)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T) v without a temperature, as in SAGAN; (B, N, C), (B, M, C), (B, M, C') -> (B, N, C').

    The fast path on the CPU never builds the N x M matrix, but only where all three have the same width: the narrower
    are filled up with zeros, which changes no product.
    """
    width = max(query.shape[2], value.shape[2])
    fill = width - query.shape[2]
    query, key = F.pad(query, (0, fill)), F.pad(key, (0, fill))
    padded_value = F.pad(value, (0, width - value.shape[2]))
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -math.inf)
        bias = bias.unsqueeze(1)
    mixed = F.scaled_dot_product_attention(
        query.unsqueeze(1), key.unsqueeze(1), padded_value.unsqueeze(1), attn_mask=bias, scale=1.0
    )
    return mixed.squeeze(1)[..., : value.shape[2]]
