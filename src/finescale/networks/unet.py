"""U-Nets for super-resolution: any encoder with any decoder, attention, norm, activation and upsampling."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from finescale.backbones.features import Encoder, ImageNetNormalisation
from finescale.backbones.resnest import resnest50
from finescale.backbones.resnet import ResNetEncoder, resnet
from finescale.errors import UsageError, check_known, misfit
from finescale.layers.activation import Maxout
from finescale.layers.activation import activation as make_activation
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.initialisation import Initialisation, initialise
from finescale.layers.norm import Norm, normalised
from finescale.layers.resampling import BicubicEnlargement
from finescale.layers.statistics import StatisticsLayer
from finescale.layers.upsampling import Upsampling
from finescale.layers.upsampling import upsampling as make_upsampling
from finescale.networks.arguments import ActivationName, Count, FiveCounts, FourCounts
from finescale.networks.base import Network

EncoderName = Literal["plain", "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "resnest50"]
DecoderName = Literal["plain", "residual", "dense"]
Attention = Literal["channel", "spatial", "both"]
_CHANNEL, _SPATIAL = ("channel", "both"), ("spatial", "both")

ConvNormAct = Callable[[int, int], nn.Sequential]  # (channels in, out) -> 3x3 convolution, norm, activation


def _conv_norm_act(c_in: int, c_out: int, *, norm: Norm, activation: str | None) -> nn.Sequential:
    layers = normalised(nn.Conv2d(c_in, c_out, 3, padding=1), norm)
    return nn.Sequential(*layers, *([make_activation(activation, channels=c_out)] if activation else []))


@dataclass(frozen=True)
class AttentionOptions:
    """The attention at the end of a decoder's blocks: which, and the options of its layers."""

    kind: Attention | None
    reduction: int
    pool: int
    norm: Norm = "spectral"


class AttentiveBlock(nn.Module):
    """A block with attention at its end, if any: channel, then spatial, each with a skip of its own."""

    channel: ChannelAttention | None
    spatial: SelfAttention | None

    def add_attention(self, options: AttentionOptions, channels: int) -> None:
        """Makes the layers; called last, so that they stand after the block's own."""
        self.channel = ChannelAttention(channels, reduction=options.reduction) if options.kind in _CHANNEL else None
        spatial = options.kind in _SPATIAL
        self.spatial = SelfAttention(channels, pool=options.pool, norm=options.norm) if spatial else None

    def attend(self, y: Tensor) -> Tensor:
        """(B, C, H, W) -> same."""
        if self.channel is not None:
            y = y + self.channel(y)
        if self.spatial is not None:
            y = self.spatial(y)  # y + gamma attention(y): the skip is its own
        return y


class AttentionOnly(AttentiveBlock):
    """Attention alone, after the double convolution of a plain decoder; (B, C, H, W) -> same."""

    def __init__(self, channels: int, attention: AttentionOptions) -> None:
        super().__init__()
        self.add_attention(attention, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x)


class ResidualBlock(AttentiveBlock):
    """Convolution, norm, activation, convolution, norm, attention if any, + input, activation; (B, C, H, W) -> same."""

    def __init__(self, channels: int, *, norm: Norm, activation: str, attention: AttentionOptions) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv_norm_act(channels, channels, norm=norm, activation=activation),
            _conv_norm_act(channels, channels, norm=norm, activation=None),
        )
        self.activation = make_activation(activation, channels=channels)
        self.add_attention(attention, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.attend(self.body(x)))


class DenseBlock(AttentiveBlock):
    """Three convolution-norm-activation units, each fed with the input plus all earlier outputs; (B, C, H, W) -> same.

    Attention, if any, follows the last unit; the result is that + input.
    """

    def __init__(self, channels: int, *, norm: Norm, activation: str, attention: AttentionOptions) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            _conv_norm_act(channels, channels, norm=norm, activation=activation) for _ in range(3)
        )
        self.add_attention(attention, channels)

    def forward(self, x: Tensor) -> Tensor:
        total, y = x, x
        for unit in self.units:
            y = unit(total)
            total = total + y
        return self.attend(y) + x


class PlainEncoder(Encoder):
    """The contracting path of the classical U-Net (arXiv 1505.04597, figure 1): double 3x3 convolutions, max-pools.

    (B, 3, H, W) -> maps at H, H/2, H/4, ... with `widths` channels; H and W are multiples of the last stride.
    """

    def __init__(self, widths: Sequence[int], unit: ConvNormAct) -> None:
        super().__init__()
        inputs = (3, *widths)
        self.stages = nn.ModuleList(nn.Sequential(unit(a, b), unit(b, b)) for a, b in zip(inputs, widths))
        self.pool = nn.MaxPool2d(2)
        self.channels = tuple(widths)
        self.strides = tuple(2**i for i in range(len(widths)))
        for stage, stride in zip(self.stages, self.strides):
            _set_stride(stage, stride)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(self.pool(maps[-1]) if maps else x))
        return maps


class Stage(nn.Module):
    """One step of a decoder: enlarge by 2, concatenate the skip of that size, blocks.

    Deep (B, C, H, W) and skip (B, S, 2H, 2W) -> (B, `width`, 2H, 2W).
    """

    def __init__(self, enlarge: nn.Module, project: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.enlarge, self.project, self.blocks = enlarge, project, blocks

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return self.blocks(torch.cat([self.enlarge(deep), self.project(skip)], dim=1))


class Decoder(nn.Module):
    """From the deepest of a list of feature maps back to its first, at stride 1; list -> (B, widths[-1], H, W).

    Args:
        channels, strides: of the maps it will be given, the first at stride 1.
        widths: of the deepest map and of every stage; wider maps are first brought to them by 1x1 convolutions.
        blocks: makes the blocks of a stage from its number, its input channels and its width.
        upsampling: by name.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int],
        blocks: Callable[[int, int, int], nn.Module],
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        last = {stride: index for index, stride in enumerate(strides)}  # of several maps of one size, the deepest
        self.skips = [last[stride] for stride in sorted(last, reverse=True)[1:]]
        self.deepest = _project(channels[-1], widths[0])
        self.stages = nn.ModuleList()
        previous = min(channels[-1], widths[0])
        for number, (index, width) in enumerate(zip(self.skips, widths[1:], strict=True)):
            stage = Stage(
                make_upsampling(upsampling, previous, width, 2),
                _project(channels[index], width),
                blocks(number, width + min(channels[index], width), width),
            )
            _set_stride(stage, strides[index])
            self.stages.append(stage)
            previous = width

    def linear(self) -> Iterator[nn.Module]:
        """The layers without an activation after them."""
        yield self.deepest
        for stage in self.stages:
            assert isinstance(stage, Stage)
            yield from (stage.enlarge, stage.project)
            yield from (layer for layer in stage.blocks.children() if isinstance(layer, nn.Conv2d))

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.deepest(maps[-1])
        for stage, index in zip(self.stages, self.skips):
            x = stage(x, maps[index])
        return x


class UNet(Network):
    """A U-Net that enlarges: encoder, decoder, upsampling head, 9x9 convolution, whose output is scaled down.

    `unet` of the catalogue is the classical U-Net, `unet-1` to `unet-9` are the nine architectures of
    Sabharwal and Makwana, `unet-10` and `unet-11` have a ResNeSt-50 encoder. Pictures are normalised as ImageNet's
    inside.

    Args:
        scale: 2, 3 or 4.
        encoder: "plain" (double convolutions, trained with the rest) or a ResNet without max-pool and classifier.
        decoder: blocks of its stages: "plain" (a double convolution), "residual" or "dense".
        attention: at the end of every block of the decoder: None, "channel" (RCAN), "spatial" (SAGAN's
            self-attention) or "both".
        widths: channels of the deepest map and of the four stages; a plain encoder has them too, in turn.
        blocks: in each stage, the first at the concatenated width (plain decoders have one).
        input_skip: channels of a 1x1 convolution of the picture, the last stage's skip (a plain encoder has its own).
        norm: of the decoder's (and a plain encoder's) convolutions: "batch", "instance", "spectral", "none".
        activation: likewise, see `finescale.layers.activation`.
        upsampling: "sub-pixel", "sub-pixel-plain" (without ICNR), "resize", "transposed".
        initialisation: of everything but a ResNet encoder, see `finescale.layers.initialisation`.
        channel_reduction: of channel attention.
        attention_pools: of the keys and values of self-attention, in each stage.
        attention_norm: of the convolutions in self-attention, named as `norm`.
        head: channels of the upsampling head.
        global_residual: the output is added to the bicubic enlargement of the input (the
            architectures of Sabharwal and Makwana have none).
    """

    multiple = 16
    context = 192

    def __init__(
        self,
        *,
        scale: int,
        encoder: EncoderName = "resnet34",
        decoder: DecoderName = "dense",
        attention: Attention | None = None,
        widths: FiveCounts = (512, 256, 128, 64, 64),
        blocks: FourCounts = (3, 6, 4, 3),
        input_skip: Count = 32,
        norm: Norm = "instance",
        activation: ActivationName = "leaky-relu",
        upsampling: Upsampling = "sub-pixel",
        initialisation: Initialisation = "kaiming-uniform",
        channel_reduction: Count = 16,
        attention_pools: FourCounts = (2, 2, 2, 4),
        attention_norm: Norm = "spectral",
        head: Count = 64,
        global_residual: bool = True,
    ) -> None:
        super().__init__(scale=scale)
        check_known("encoder", encoder, get_args(EncoderName))
        check_known("decoder", decoder, get_args(DecoderName))
        check_known("attention", attention, (None, *get_args(Attention)))
        if len(widths) != 5 or len(blocks) != 4 or len(attention_pools) != 4:
            raise UsageError("a U-Net has 5 widths, and blocks and attention pools for 4 stages")
        unit = partial(_conv_norm_act, norm=norm, activation=activation)
        self.normalise = ImageNetNormalisation()
        self.input_skip: nn.Module | None = None
        self.encoder: Encoder
        if encoder == "plain":
            self.encoder = PlainEncoder(tuple(reversed(widths)), unit)
            channels, strides = tuple(self.encoder.channels), tuple(self.encoder.strides)
        else:
            network = resnest50(classifier=False) if encoder == "resnest50" else resnet(encoder, classifier=False)
            self.encoder = ResNetEncoder(network)
            self.input_skip = nn.Conv2d(3, input_skip, 1)
            channels, strides = (input_skip, *self.encoder.channels), (1, *self.encoder.strides)
        self.pretrained_kind = None if encoder == "plain" else encoder

        def stage_blocks(number: int, c_in: int, width: int) -> nn.Module:
            options = AttentionOptions(attention, channel_reduction, attention_pools[number], attention_norm)
            if decoder == "plain":
                return nn.Sequential(
                    unit(c_in, width), unit(width, width), *([AttentionOnly(width, options)] if attention else [])
                )
            kind = ResidualBlock if decoder == "residual" else DenseBlock
            block = partial(kind, norm=norm, activation=activation, attention=options)
            rest = [block(width) for _ in range(blocks[number] - 1)]
            return nn.Sequential(block(c_in), nn.Conv2d(c_in, width, 1), *rest)

        self.decoder = Decoder(channels, strides, widths, stage_blocks, upsampling)
        enlarging: list[nn.Module] = []
        before = widths[-1]
        steps = (3,) if scale == 3 else (2,) * (scale // 2)
        for step in steps:
            enlarging += [make_upsampling(upsampling, before, head, step), make_activation(activation, channels=head)]
            before = head
        self.head = nn.Sequential(*enlarging)
        self.output = nn.Conv2d(head, 3, 9, padding=4)
        self.bicubic = BicubicEnlargement(scale) if global_residual else None
        # The 9x9 convolution adds up thousands of products, the more the wider the head is: an optimiser's first steps
        # would change the picture by as much as white is from black, and what it then learns is to switch the head off.
        self.output_scale = (0.064 if global_residual else 0.64) / head
        # the larger of two of Maxout's functions is as large as either: no gain makes up for it
        slope = {"leaky-relu": 0.2, "maxout": 1.0}.get(activation, 0.0)
        for module in self.children():
            if not isinstance(module, ResNetEncoder):
                initialise(module, initialisation, slope=slope)
        # no activation follows these: with the gain that makes up for one, every stage would double the features
        for layer in (*([] if self.input_skip is None else [self.input_skip]), *self.decoder.linear()):
            initialise(layer, initialisation, slope=1.0)
        if norm == "none":  # the sums would grow with every block (arXiv 1809.00219, section 3.1)
            for module in self.modules():
                if isinstance(module, ResidualBlock | DenseBlock):
                    _shrink_weights(module.body if isinstance(module, ResidualBlock) else module.units, 0.1)

    def enlarge(self, x: Tensor) -> Tensor:
        normal = self.normalise(x)
        maps = self.encoder(normal)
        if self.input_skip is not None:
            maps = [self.input_skip(normal), *maps]
        y = self.output_scale * self.output(self.head(self.decoder(maps)))
        return self.normalise.inverse(y) if self.bicubic is None else y + self.bicubic(x)

    def load_encoder(self, state: Mapping[str, Tensor]) -> None:
        """Fills a ResNet encoder with the weights of its classifier; the head's tensors are left aside.

        Args:
            state: such as `finescale.backbones.catalogue.read_state` reads from a file.

        Raises:
            UsageError: the encoder is "plain", or the names or shapes do not fit.
        """
        if not isinstance(self.encoder, ResNetEncoder) or self.pretrained_kind is None:
            raise UsageError("a plain encoder has no published weights")
        body = {key: value for key, value in state.items() if not key.startswith("fc.")}
        try:
            self.encoder.network.load_state_dict(body)
        except RuntimeError as error:
            raise UsageError(f"the weights do not fit the encoder {self.pretrained_kind} ({misfit(error)})") from error


def _project(channels: int, width: int) -> nn.Module:
    return nn.Conv2d(channels, width, 1) if channels > width else nn.Identity()


def _set_stride(module: nn.Module, stride: int) -> None:
    for layer in module.modules():
        if isinstance(layer, StatisticsLayer):
            layer.stride = stride


@torch.no_grad()
def _shrink_weights(module: nn.Module, factor: float) -> None:
    """Multiplies the kernels of all convolutions by a factor, but for those of activations: once is enough."""
    inner = {part for layer in module.modules() if isinstance(layer, Maxout) for part in layer.modules()}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer not in inner:
            layer.weight.mul_(factor)
