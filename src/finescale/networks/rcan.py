"""RCAN (arXiv 1807.02758) and SA-RCAN: the same network with self-attention after channel attention."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from finescale.errors import check_known
from finescale.layers.activation import activation as make_activation
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.upsampling import SubPixelUpsampler, sub_pixel
from finescale.networks.arguments import ActivationName, Count, Positive
from finescale.networks.base import DIV2K_MEAN, MeanShift, Network


class ResidualBlock(nn.Module):
    """Residual channel-attention block: convolution, activation, convolution, channel attention, + input.

    arXiv 1807.02758, section 3.4; with `attention`, self-attention follows. (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, reduction: int, activation: str, attention: SelfAttention | None) -> None:
        super().__init__()
        body = [
            nn.Conv2d(channels, channels, 3, padding=1),
            make_activation(activation, channels=channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            ChannelAttention(channels, reduction=reduction),
        ]
        self.body = nn.Sequential(*body, *([attention] if attention else []))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResidualGroup(nn.Module):
    """Residual blocks and a convolution, + input (arXiv 1807.02758, section 3.2); (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, blocks: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*blocks, nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class RCAN(Network):
    """RCAN, and with `attention` SA-RCAN.

    Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention Networks" (arXiv 1807.02758,
    section 3); SA-RCAN is Sabharwal's and Makwana's ("Single Image Super-Resolution"). Without attention and with the
    classic tail, parameters are named and shaped as in the authors' files.

    Args:
        scale: 2, 3 or 4.
        channels: width of the features.
        groups: residual groups.
        blocks: residual blocks in each group.
        reduction: of channel attention.
        activation: by name, see `finescale.layers.activation`.
        attention: None (RCAN), "block" (self-attention in every block, after channel attention) or "group" (one
            self-attention layer after every `attention_every`-th group).
        attention_every: for "group".
        attention_reduction: query and key channels are channels // this.
        attention_value_reduction: value channels are channels // this.
        attention_pool: keys and values are max-pooled by this factor.
        attention_query_pool: self-attention works on features averaged by this factor; 1 is SAGAN's.
        tail: "classic" (sub-pixel upsampling of the features, then a convolution at full size, as published) or
            "direct" (one convolution to 3 scale^2 channels at the small size, added to the repeated input picture:
            several times cheaper; it starts with all scale^2 values of a pixel equal).
        value_range: the inner range of values: 1, or 255 as in the authors' files.
    """

    def __init__(
        self,
        *,
        scale: int,
        channels: Count = 64,
        groups: Count = 10,
        blocks: Count = 20,
        reduction: Count = 16,
        activation: ActivationName = "relu",
        attention: Literal["block", "group"] | None = None,
        attention_every: Count = 2,
        attention_reduction: Count = 16,
        attention_value_reduction: Count = 16,
        attention_pool: Count = 2,
        attention_query_pool: Count = 1,
        tail: Literal["classic", "direct"] = "classic",
        value_range: Positive = 1.0,
    ) -> None:
        super().__init__(scale=scale)
        check_known("attention", attention, (None, "block", "group"))
        check_known("tail", tail, ("classic", "direct"))
        self.value_range = value_range

        def self_attention() -> SelfAttention:
            return SelfAttention(
                channels,
                reduction=attention_reduction,
                value_reduction=attention_value_reduction,
                pool=attention_pool,
                query_pool=attention_query_pool,
                spectral_query=False,
            )

        body: list[nn.Module] = []
        for g in range(groups):
            body.append(
                ResidualGroup(
                    [
                        ResidualBlock(
                            channels, reduction, activation, self_attention() if attention == "block" else None
                        )
                        for _ in range(blocks)
                    ],
                    channels,
                )
            )
            if attention == "group" and (g + 1) % attention_every == 0:
                body.append(self_attention())
        body.append(nn.Conv2d(channels, channels, 3, padding=1))

        self.sub_mean = MeanShift(DIV2K_MEAN, value_range, -1)
        self.add_mean = MeanShift(DIV2K_MEAN, value_range, +1)
        self.head = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1))
        self.body = nn.Sequential(*body)
        self.direct = tail == "direct"
        if self.direct:
            self.tail = nn.Sequential(*sub_pixel(channels, 3, scale)[:1])  # shuffled after the picture is added
        else:
            self.tail = nn.Sequential(SubPixelUpsampler(channels, scale), nn.Conv2d(channels, 3, 3, padding=1))

    def enlarge(self, x: Tensor) -> Tensor:
        shifted = self.sub_mean(x * self.value_range)
        features = self.head(shifted)
        y = self.tail(features + self.body(features))
        if self.direct:
            if self.value_range != 1:
                y = y / self.value_range
            return F.pixel_shuffle(y + x.repeat_interleave(self.scale**2, dim=1), self.scale)
        return self.add_mean(y) / self.value_range
