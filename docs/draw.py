"""Draws the networks of the catalogue as SVG, from the built networks themselves.

`python docs/draw.py` writes docs/images/networks/NAME.svg. Numbers, kernels, channels and counts are read from the
modules; only the order of the wires is written here. `tests/docs/test_draw.py` fails where a drawing is stale.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import torch
from torch import nn

from finescale.backbones.resnest import SplitAttention
from finescale.backbones.resnet import ResNetEncoder
from finescale.layers.attention import ChannelAttention, SelfAttention
from finescale.layers.norm import InstanceNorm
from finescale.networks.base import Network
from finescale.networks.baselines import EDSR, SRCNN
from finescale.networks.catalogue import NETWORKS, build
from finescale.networks.esrgan import RESIDUAL, SLOPE, RRDBNet, SRVGGNet
from finescale.networks.rcan import RCAN, ResidualGroup
from finescale.networks.unet import AttentiveBlock, DenseBlock, ResidualBlock, Stage, UNet

FOLDER = Path(__file__).parent / "images" / "networks"
SCALE = 4

# kind -> (fill, stroke) on a light and on a dark ground
COLOURS = {
    "picture": ("#fef9c3", "#ca8a04", "#3a2f0b", "#d9a62e"),
    "conv": ("#dbeafe", "#3b82f6", "#14284f", "#60a5fa"),
    "plain": ("#f1f5f9", "#94a3b8", "#262c36", "#8b98a9"),
    "channel": ("#ffedd5", "#ea7a1c", "#43240b", "#fb9a4b"),
    "spatial": ("#ede9fe", "#8b5cf6", "#2e2257", "#a78bfa"),
    "up": ("#dcfce7", "#22a352", "#0f3220", "#4ade80"),
    "encoder": ("#cffafe", "#0e98b3", "#0b3540", "#38c6de"),
    "blocks": ("#e0e7ff", "#6366f1", "#232457", "#8d90f8"),
}
INKS = {
    "ground": ("#ffffff", "#0f141b"),
    "panel": ("#f8fafc", "#161d27"),
    "edge": ("#e2e8f0", "#2c3644"),
    "ink": ("#1e293b", "#e6edf3"),
    "mute": ("#56657a", "#9fb0c3"),
    "wire": ("#64748b", "#8b9bb0"),
}
LINE, PAD, GAP = 16, 9, 18  # of text, around it in a box, between boxes


def text_width(text: str, size: float = 12.5) -> float:
    """An upper estimate for a sans-serif font, the same on every machine."""
    narrow, wide = "iljtfr.,:;|()'1 ", "mwMW@×→"
    return sum(0.36 if c in narrow else 0.95 if c in wide else 0.72 if c.isupper() else 0.63 for c in text) * size


# What a drawing of a chain of modules is made of


@dataclass(frozen=True)
class Box:
    """A module: its kind (a colour) and lines of text, the first `bold` ones in bold; `opens` names a panel."""

    kind: str
    lines: tuple[str, ...]
    opens: str = ""
    bold: int = 1

    @property
    def width(self) -> float:
        """In pixels."""
        return max(text_width(line, 13.5 if i < self.bold else 11.5) for i, line in enumerate(self.lines)) + 2 * PAD

    @property
    def height(self) -> float:
        """In pixels."""
        return LINE * len(self.lines) + 2 * PAD


@dataclass(frozen=True)
class Tap:
    """A place on the wire from which a skip starts."""

    name: str


@dataclass(frozen=True)
class Join:
    """A circle where the wire meets the skip from a tap: "+", "−" or "×"."""

    tap: str
    sign: str = "+"


@dataclass(frozen=True)
class Parallel:
    """Boxes that share their input, one above the other."""

    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Repeat:
    """Items that come several times, one after the other."""

    items: tuple["Item", ...]
    times: int


Item = Box | Tap | Join | Parallel | Repeat


@dataclass(frozen=True)
class Panel:
    """A titled chain, the inside of the boxes that open `key`, in their colour."""

    title: str
    items: tuple[Item, ...]
    key: str = ""
    kind: str = "plain"


class Canvas:
    """Collects SVG elements."""

    def __init__(self) -> None:
        self.panels: list[str] = []  # drawn first
        self.ties: list[str] = []
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, *, css: str = "", anchor: str = "middle") -> None:
        """One line of text with its baseline at y."""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>')

    def box(self, box: Box, x: float, y: float, width: float | None = None) -> None:
        """A box with its left edge at x and its middle at y."""
        width, height = width or box.width, box.height
        top = y - height / 2
        self.parts.append(
            f'<rect x="{x:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="7" class="{box.kind}"/>'
        )
        for i, line in enumerate(box.lines):
            baseline = top + PAD + LINE * i + 12
            self.text(x + width / 2, baseline, line, css="name" if i < box.bold else "note")

    def wire(self, *points: tuple[float, float], arrow: bool = True) -> None:
        """A line through points with rounded corners."""
        path = [f"M{points[0][0]:g} {points[0][1]:g}"]
        for before, (x, y), after in zip(points, points[1:], points[2:]):
            (ax, ay), (bx, by) = _towards((x, y), before), _towards((x, y), after)
            path.append(f"L{ax:g} {ay:g}Q{x:g} {y:g} {bx:g} {by:g}")
        path.append(f"L{points[-1][0]:g} {points[-1][1]:g}")
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(f'<path d="{"".join(path)}" class="wire"{end}/>')

    def circle(self, x: float, y: float, sign: str) -> None:
        """A sum or a product."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="10" class="join"/>')
        arms = {"+": ((6, 0), (0, 6)), "−": ((6, 0),), "×": ((4, 4), (4, -4))}[sign]
        for dx, dy in arms:
            self.parts.append(f'<path d="M{x - dx:g} {y - dy:g}L{x + dx:g} {y + dy:g}" class="sign"/>')

    def svg(self, width: float, height: float, title: str) -> str:
        """The whole file."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n'
            f"<style>{_style()}</style>\n"
            '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0.6L7.6 4L0 7.4z" class="tip"/></marker>\n'
            f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="12" class="ground"/>\n'
            + "\n".join(self.panels + self.ties + self.parts)
            + "\n</svg>\n"
        )


def _towards(corner: tuple[float, float], other: tuple[float, float], radius: float = 8) -> tuple[float, float]:
    (x, y), (u, v) = corner, other
    length = abs(u - x) + abs(v - y)
    share = min(radius, length / 2) / length
    return x + (u - x) * share, y + (v - y) * share


def _style() -> str:
    def rules(theme: int) -> str:
        inks = {name: pair[theme] for name, pair in INKS.items()}
        lines = [f".{kind}{{fill:{c[2 * theme]};stroke:{c[2 * theme + 1]}}}" for kind, c in COLOURS.items()]
        return "".join(lines) + (
            f".ground{{fill:{inks['ground']};stroke:{inks['edge']}}}.panel{{fill:{inks['panel']};"
            f"stroke:{inks['edge']}}}.zoom{{fill:{inks['edge']};fill-opacity:.55}}.name,.head{{fill:{inks['ink']}}}"
            f".note,.small{{fill:{inks['mute']}}}.wire,.sign{{stroke:{inks['wire']}}}.frame{{stroke:{inks['wire']}}}"
            f".join{{fill:{inks['ground']};stroke:{inks['wire']}}}.tip,.tap{{fill:{inks['wire']}}}"
        )

    shared = (
        "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}"
        ".name{font-size:13px;font-weight:600}.head{font-size:15px;font-weight:700}.small{font-size:11px}"
        "rect,circle{stroke-width:1.3}.wire,.frame,.sign{fill:none;stroke-width:1.5}"
        ".frame{stroke-dasharray:5 4}"
    )
    return shared + rules(0) + "@media(prefers-color-scheme:dark){" + rules(1) + "}"


# Laying out a chain


def _size(item: Item) -> tuple[float, float]:
    """Width, and half the height."""
    match item:
        case Box():
            return item.width, item.height / 2
        case Tap():
            return 0, 0
        case Join():
            return 20, 10
        case Parallel():
            height = sum(box.height + 8 for box in item.boxes) - 8
            return max(box.width for box in item.boxes) + 36, height / 2
        case Repeat():
            sizes = [_size(inner) for inner in item.items]
            nested = any(isinstance(inner, Repeat) for inner in item.items)
            half = max(h for _, h in sizes) + (28 if nested else 12)
            return sum(w for w, _ in sizes) + GAP * (len(sizes) + 1), half


def _extent(items: Sequence[Item]) -> tuple[float, float, float]:
    """Width, height above the wire (with skips) and below it."""
    sizes = [_size(item) for item in items]
    half = max(h for _, h in sizes)
    levels = max((level for *_, level in _skips(items)), default=0)
    repeats = any(isinstance(item, Repeat) for item in items)
    above = half + (8 + 13 * levels if levels else 0) + (14 if repeats else 0)
    return sum(w for w, _ in sizes) + GAP * (len(items) - 1), above, half


def _skips(items: Sequence[Item]) -> list[tuple[int, int, int]]:
    """(tap, join, level) by their indices; the level is 1 more than that of the skips inside."""
    taps = {item.name: i for i, item in enumerate(items) if isinstance(item, Tap)}
    pairs = [(taps[item.tap], i) for i, item in enumerate(items) if isinstance(item, Join)]
    found: list[tuple[int, int, int]] = []
    for start, end in sorted(pairs, key=lambda pair: pair[1] - pair[0]):
        inside = [level for a, b, level in found if a < end and b > start]
        found.append((start, end, 1 + max(inside, default=0)))
    return found


def _chain(canvas: Canvas, items: Sequence[Item], x: float, y: float) -> dict[str, tuple[float, float, float]]:
    """Draws a chain from x at height y; gives left, right and bottom of the boxes that open panels."""
    opened: dict[str, tuple[float, float, float]] = {}
    half = max(_size(item)[1] for item in items) + (14 if any(isinstance(i, Repeat) for i in items) else 0)
    centres = []
    for number, item in enumerate(items):
        width = _size(item)[0]
        if number:  # the arrow from the item before
            canvas.wire((x - GAP, y), (x, y), arrow=not isinstance(item, Tap | Repeat | Parallel))
        match item:
            case Box():
                canvas.box(item, x, y)
                if item.opens:
                    opened[item.opens] = (x, x + width, y + item.height / 2)
            case Tap():
                canvas.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="2.6" class="tap"/>')
            case Join():
                canvas.circle(x + 10, y, item.sign)
            case Parallel():
                top = y - _size(item)[1]
                for box in item.boxes:
                    middle = top + box.height / 2
                    straight = abs(middle - y) < 1
                    left, right = (x, y), (x + width, y)
                    inlet, outlet = (x + 18, middle), (x + width - 18, middle)
                    canvas.wire(*((left, inlet) if straight else (left, (x + 9, y), (x + 9, middle), inlet)))
                    ends = (outlet, right) if straight else (outlet, (x + width - 9, middle), (x + width - 9, y), right)
                    canvas.wire(*ends, arrow=False)
                    canvas.box(box, x + 18, middle, width - 36)
                    top += box.height + 8
            case Repeat():
                inner_half = _size(item)[1]
                canvas.parts.append(
                    f'<rect x="{x + 6:g}" y="{y - inner_half:g}" width="{width - 12:g}" height="{2 * inner_half:g}" '
                    'rx="9" class="frame"/>'
                )
                canvas.text(x + width - 10, y - inner_half - 5, f"× {item.times}", css="name", anchor="end")
                canvas.wire((x, y), (x + GAP, y), arrow=not isinstance(item.items[0], Repeat))
                opened |= _chain(canvas, item.items, x + GAP, y)
                canvas.wire((x + width - GAP, y), (x + width, y), arrow=False)
        centres.append(x + width / 2)
        x += width + GAP
    for start, end, level in _skips(items):
        top = y - half - 8 - 13 * (level - 1)
        canvas.wire((centres[start], y), (centres[start], top), (centres[end], top), (centres[end], y - 10))
    return opened


def _panels(canvas: Canvas, panels: Sequence[Panel], width: float, top: float) -> float:
    """Draws panels one below the other, tied to the box of the one above that opens them; gives the bottom."""
    opened: dict[str, tuple[float, float, float]] = {}
    for panel in panels:
        chain, above, below = _extent(panel.items)
        height = 34 + above + below + 16
        inner = max(chain, text_width(panel.title, 15)) + 40
        left = 20.0
        if panel.key in opened:  # by the panel just above
            start, end, bottom = opened[panel.key]
            left = min(max(20.0, (start + end) / 2 - inner / 2), width - 20 - inner)
            canvas.ties.append(
                f'<path d="M{start:g} {bottom:g}L{end:g} {bottom:g}L{left + inner - 8:g} {top:g}L{left + 8:g} '
                f'{top:g}z" class="zoom"/>'
            )
        canvas.panels.append(
            f'<rect x="{left:g}" y="{top:g}" width="{inner:g}" height="{height:g}" rx="10" class="panel"/>'
        )
        shift = 0
        if panel.key:
            canvas.parts.append(
                f'<rect x="{left + 16:g}" y="{top + 10:g}" width="13" height="13" rx="3" class="{panel.kind}"/>'
            )
            shift = 20
        canvas.text(left + 16 + shift, top + 22, panel.title, css="head", anchor="start")
        opened = _chain(canvas, panel.items, left + (inner - chain) / 2, top + 34 + above)
        top += height + 26
    return top - 26


def draw_panels(title: str, panels: Sequence[Panel]) -> str:
    """An SVG of panels alone."""
    width = max(max(_extent(p.items)[0], text_width(p.title, 15)) for p in panels) + 80
    canvas = Canvas()
    bottom = _panels(canvas, panels, width, 20)
    return canvas.svg(width, bottom + 20, title)


# From modules to boxes


def conv(module: nn.Module, *more: str, kind: str = "conv") -> Box:
    """A convolution: kernel and channels."""
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    size = module.kernel_size[0]
    groups = (f"{module.groups} groups",) if module.groups > 1 else ()
    return Box(kind, (f"conv {size}×{size}", f"{module.in_channels} → {module.out_channels}", *groups, *more))


def plain(*lines: str) -> Box:
    """Something without weights."""
    return Box("plain", lines)


def picture(name: str, size: str) -> Box:
    """An input or output."""
    return Box("picture", (name, size))


IN, OUT = picture("picture", "H × W"), picture("enlarged", f"{SCALE}H × {SCALE}W")


def activation_name(module: nn.Module) -> str:
    """As people write it."""
    name = type(module).__name__
    return f"{name} {module.negative_slope:g}" if isinstance(module, nn.LeakyReLU) else name


def only(module: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    """All parts of a module that are of a kind, in their order."""
    return [part for part in module.modules() if isinstance(part, kind)]


def periodic(items: Sequence[Item]) -> list[Item]:
    """Collapses an endless repetition: a a a -> a × 3, a b a b -> (a b) × 2; single boxes say it themselves."""
    count = len(items)
    for period in range(1, count // 2 + 1):
        if count % period == 0 and list(items) == list(items[:period]) * (count // period):
            once = items[:period]
            return [Repeat(tuple(runs(once)), count // period)]
    return list(items)


def runs(items: Sequence[Item]) -> list[Item]:
    """Collapses neighbours that are equal."""
    found: list[Item] = []
    i = 0
    while i < len(items):
        same = next((n for n in range(i, len(items)) if items[n] != items[i]), len(items)) - i
        found.append(Repeat((items[i],), same) if same > 1 else items[i])
        i += same
    return found


def channel_panel(layer: nn.Module) -> Panel:
    """Inside of channel attention."""
    assert isinstance(layer, ChannelAttention)
    down, _, up, _ = layer.conv_du
    items = (
        Tap("x"),
        plain("mean", "over positions"),
        conv(down),
        plain("ReLU"),
        conv(up),
        plain("sigmoid"),
        Join("x", "×"),
        Tap("end"),
    )
    return Panel("channel attention", items, "channel", "channel")


def spatial_panel(layer: nn.Module, pools: Sequence[int]) -> Panel:
    """Inside of self-attention; `pools` of all layers of the network."""
    assert isinstance(layer, SelfAttention)
    pooled = () if set(pools) == {1} else (f"max-pool {' or '.join(map(str, dict.fromkeys(pools)))}",)
    branches = [
        Box("conv", (f"{name}, {' '.join(conv(part).lines)}", *(pooled if name != "query" else ())))
        for name, part in (("query", layer.query), ("key", layer.key), ("value", layer.value))
    ]
    step = layer.query_pool
    shrink = [plain("mean of cells", f"{step} × {step}")] if step > 1 else []
    grow = [plain("bilinear", f"× {step}")] if step > 1 else []
    items: tuple[Item, ...] = (
        Tap("x"),
        *shrink,
        Parallel(tuple(branches)),
        plain("softmax(q kᵀ) v", "over positions"),
        conv(layer.output),
        *grow,
        plain("× gamma", "from 0"),
        Join("x"),
        Tap("end"),
    )
    return Panel("self-attention", items, "spatial", "spatial")


def attention_panels(network: nn.Module) -> list[Panel]:
    """Of the kinds of attention a network has; the widths are those of its first layer."""
    found = []
    channel, spatial = only(network, ChannelAttention), only(network, SelfAttention)
    if channel:
        found.append(channel_panel(channel[0]))
    if spatial:
        found.append(spatial_panel(spatial[0], [layer.pool for layer in spatial if isinstance(layer, SelfAttention)]))
    return found


CHANNEL = Box("channel", ("channel", "attention"), "channel", 2)
SPATIAL = Box("spatial", ("self-", "attention"), "spatial", 2)


def block_items(layers: Sequence[nn.Module]) -> list[Item]:
    """The layers of a residual block of RCAN or EDSR."""
    found: list[Item] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            found.append(conv(layer))
        elif isinstance(layer, ChannelAttention):
            found.append(CHANNEL)
        elif isinstance(layer, SelfAttention):
            found.append(SPATIAL)
        else:
            found.append(plain(activation_name(layer)))
    return found


def tail_items(tail: nn.Module) -> list[Item]:
    """Sub-pixel upsampling and the last convolution."""
    steps = [part for part in only(tail, nn.PixelShuffle) if isinstance(part, nn.PixelShuffle)]
    convolutions = only(tail, nn.Conv2d)
    enlarge = [conv(c, f"shuffle × {s.upscale_factor}", kind="up") for c, s in zip(convolutions, steps)]
    return [*runs(enlarge), *(conv(c) for c in convolutions[len(steps) :])]


def draw_rcan(name: str, network: RCAN) -> str:
    """RCAN and SA-RCAN: the network, a group, a block, the attention."""
    *body, last = network.body
    group = next(part for part in body if isinstance(part, ResidualGroup))
    *blocks, group_end = group.body
    layers = list(blocks[0].get_submodule("body").children())
    items = [
        Box("blocks", ("residual group", f"{len(blocks)} blocks"), "group")
        if isinstance(part, ResidualGroup)
        else SPATIAL
        for part in body
    ]
    if network.direct:
        tail: list[Item] = [
            conv(network.tail[0]),
            Join("picture"),
            Box("up", ("shuffle", f"× {network.scale}")),
        ]
    else:
        tail = tail_items(network.tail)
    whole: list[Item] = [
        IN,
        plain("− mean"),
        *([Tap("picture")] if network.direct else []),
        conv(network.head[0]),
        Tap("head"),
        *periodic(items),
        conv(last),
        Join("head"),
        *tail,
        plain("+ mean"),
        OUT,
    ]
    inner: list[Item] = [
        Tap("x"),
        Repeat((Box("blocks", ("block",), "block"),), len(blocks)),
        conv(group_end),
        Join("x"),
        Tap("end"),
    ]
    panels = [
        Panel(_title(name), tuple(whole)),
        Panel("residual group", tuple(inner), "group", "blocks"),
        Panel("block", (Tap("x"), *block_items(layers), Join("x"), Tap("end")), "block", "blocks"),
        *attention_panels(network),
    ]
    return draw_panels(_title(name), panels)


def draw_edsr(name: str, network: EDSR) -> str:
    """EDSR: the network and its block."""
    *blocks, last = network.body
    layers = list(blocks[0].get_submodule("body").children())
    factor = getattr(blocks[0], "factor", 1.0)
    times = [] if factor == 1 else [plain(f"× {factor:g}")]
    block = Repeat((Box("blocks", ("residual", "block"), "block"),), len(blocks))
    whole = (
        IN,
        plain("− mean"),
        conv(network.head[0]),
        Tap("head"),
        block,
        conv(last),
        Join("head"),
        *tail_items(network.tail),
        plain("+ mean"),
        OUT,
    )
    inner = (Tap("x"), *block_items(layers), *times, Join("x"), Tap("end"))
    return draw_panels(_title(name), [Panel(_title(name), whole), Panel("residual block", inner, "block", "blocks")])


def draw_srcnn(name: str, network: SRCNN) -> str:
    """SRCNN: three convolutions."""
    layers: list[Item] = []
    for layer, activation in zip(network.layers, network.activations):
        layers += [conv(layer), plain(activation_name(activation))]
    layers.append(conv(network.layers[-1]))
    bicubic = plain("bicubic", f"× {network.scale}")
    items = (IN, bicubic, Tap("x"), plain("luma"), Tap("y"), *layers, Join("y", "−"), Join("x"), OUT)
    return draw_panels(_title(name), [Panel(_title(name), items)])


def draw_rrdbnet(name: str, network: RRDBNet) -> str:
    """ESRGAN's network: the whole, a block, a dense block."""
    blocks = list(network.body)
    dense = list(blocks[0].children())
    *inner, last = dense[0].children()
    act, times = plain(f"LeakyReLU {SLOPE:g}"), plain(f"× {RESIDUAL:g}")
    ups: list[Item] = [
        item
        for number, step in enumerate(network.steps)
        for item in (
            Box("up", ("nearest", f"× {step}")),
            conv(network.get_submodule(f"conv_up{number + 1}")),
            act,
        )
    ]
    whole: tuple[Item, ...] = (
        IN,
        conv(network.conv_first),
        Tap("head"),
        Repeat((Box("blocks", ("RRDB",), "block"),), len(blocks)),
        conv(network.conv_body),
        Join("head"),
        *periodic(ups),
        conv(network.conv_hr),
        act,
        conv(network.conv_last),
        OUT,
    )
    block = Repeat((Box("blocks", ("dense", "block"), "dense", 2),), len(dense))
    layers: list[Item] = [conv(inner[0]), act]
    for layer in inner[1:]:
        layers += [conv(layer, "of all before"), act]
    layers.append(conv(last, "of all before"))
    panels = [
        Panel(_title(name), whole),
        Panel("RRDB", (Tap("x"), block, times, Join("x"), Tap("end")), "block", "blocks"),
        Panel("dense block", (Tap("x"), *layers, times, Join("x"), Tap("end")), "dense", "blocks"),
    ]
    return draw_panels(_title(name), panels)


def draw_srvgg(name: str, network: SRVGGNet) -> str:
    """Real-ESRGAN's small network: one chain."""
    layers: list[Item] = [
        plain(activation_name(layer)) if isinstance(layer, nn.PReLU) else conv(layer) for layer in network.body
    ]
    pairs = len(layers[2:-1]) // 2
    shuffle = Box("up", ("shuffle", f"× {network.scale}"))
    items = (
        IN,
        Tap("picture"),
        *layers[:2],
        Repeat(tuple(layers[2:4]), pairs),
        layers[-1],
        shuffle,
        Join("picture"),
        OUT,
    )
    return draw_panels(_title(name), [Panel(_title(name), items)])


# U-Nets


def unit_box(unit: nn.Module) -> Box:
    """Convolution, norm and activation in one box."""
    lines: list[str] = []
    first: Box | None = None
    for layer in unit.children():
        if isinstance(layer, nn.Conv2d):
            first = conv(layer)
        elif isinstance(layer, InstanceNorm):
            lines.append("instance norm")
        elif isinstance(layer, nn.BatchNorm2d):
            lines.append("batch norm")
        else:
            lines.append(activation_name(layer))
    assert first is not None
    return Box("conv", (first.lines[0], *lines))


def decoder_panel(block: nn.Module) -> Panel | None:
    """Inside of a decoder's block, without channel counts: they differ from stage to stage."""
    if isinstance(block, ResidualBlock):
        first, second = (unit_box(unit) for unit in block.body)
        act = plain(activation_name(block.activation))
        body = (Tap("x"), first, second, *attention_items(block), Join("x"), act, Tap("end"))
        return Panel("residual block", body, "block", "blocks")
    if not isinstance(block, DenseBlock):
        return None
    items: list[Item] = [Tap("x"), Tap("sum 0")]
    for number, unit in enumerate(block.units):
        items.append(unit_box(unit))
        if number < len(block.units) - 1:
            items.append(Join(f"sum {number}"))
        if number < len(block.units) - 2:
            items.append(Tap(f"sum {number + 1}"))
    return Panel("dense block", (*items, *attention_items(block), Join("x"), Tap("end")), "block", "blocks")


def attention_items(block: AttentiveBlock) -> list[Item]:
    """The attention at the end of a decoder's block."""
    items: list[Item] = []
    if block.channel is not None:
        items += [Tap("channel"), CHANNEL, Join("channel")]
    if block.spatial is not None:
        items.append(SPATIAL)
    return items


def encoder_panel(block: nn.Module) -> Panel:
    """Inside of a ResNet's block, widths of layer1."""
    boxes: list[Item] = []
    count = len([1 for name, _ in block.named_children() if name.startswith("conv")])
    for number in range(1, count + 1):
        layer = block.get_submodule(f"conv{number}")
        end = ("batch norm",) if number == count else ("batch norm", "ReLU")
        if isinstance(layer, SplitAttention):
            inner = conv(layer.conv)
            boxes.append(Box("channel", ("split attention", *inner.lines)))
        else:
            boxes.append(conv(layer, *end))
    items = (Tap("x"), *boxes, Join("x"), plain("ReLU"), Tap("end"))
    return Panel("encoder block (layer1)", items, "encoder block", "encoder")


@dataclass(frozen=True)
class Level:
    """One size of a U-Net: its name, the encoder's box, the decoder's, the text on the skip and on the way up."""

    size: str
    encoder: Box
    decoder: Box | None
    skip: str
    up: str
    down: str


def _levels(network: UNet) -> list[Level]:
    """From the largest to the smallest."""
    decoder, encoder = network.decoder, network.encoder
    stages = [stage for stage in decoder.stages if isinstance(stage, Stage)]
    resnet = encoder.network if isinstance(encoder, ResNetEncoder) else None
    found = []
    for number, stage in enumerate([*reversed(stages), None]):
        stride = 2**number
        size = "H × W" if stride == 1 else f"H/{stride} × W/{stride}"
        skip = up = ""
        right = None
        if stage is not None:
            blocks = stage.blocks
            first, last = only(blocks, nn.Conv2d)[0], only(blocks, nn.Conv2d)[-1]
            assert isinstance(first, nn.Conv2d)
            assert isinstance(last, nn.Conv2d)
            kinds = [b for b in blocks.children() if isinstance(b, ResidualBlock | DenseBlock)]
            kind = "dense" if kinds and isinstance(kinds[0], DenseBlock) else "residual"
            what = f"{len(kinds)} {kind} blocks" if kinds else f"{len(only(blocks, nn.Conv2d))} × conv 3×3"
            right = Box("blocks", (what, f"{first.in_channels} → {last.out_channels}"), "block" if kinds else "")
            project = stage.project
            skip = f"{project.in_channels} → {project.out_channels}" if isinstance(project, nn.Conv2d) else ""
            enlarge = next(c for c in stage.enlarge.modules() if isinstance(c, nn.Conv2d | nn.ConvTranspose2d))
            how = "transposed" if isinstance(enlarge, nn.ConvTranspose2d) else "sub-pixel"
            up = f"{how} × 2"
        if resnet is None:
            stage_layers = encoder.get_submodule(f"stages.{number}")
            c = only(stage_layers, nn.Conv2d)
            last = c[-1]
            assert isinstance(last, nn.Conv2d)
            left = Box("encoder", (f"{len(c)} × conv 3×3", f"{last.out_channels} channels"))
            down = "max-pool 2" if number else ""
        elif number == 0:
            assert network.input_skip is not None
            left, down = conv(network.input_skip), ""
        else:
            layer = resnet.get_submodule(f"layer{number}")
            blocks_text = f"layer{number}: {len(list(layer.children()))} blocks"
            down = "stride 2"
            lines: tuple[str, ...] = (blocks_text, f"{resnet.channels[number]} channels")
            if number == 1:
                stem = [c for c in only(resnet.conv1, nn.Conv2d) if isinstance(c, nn.Conv2d)]
                size_text = f"{stem[0].kernel_size[0]}×{stem[0].kernel_size[0]}"
                lines = (f"stem: {f'{len(stem)} ' if len(stem) > 1 else ''}conv {size_text}", *lines)
            left = Box("encoder", lines, "encoder block" if number == 1 else "")
        found.append(Level(size, left, right, skip, up, down))
    return found


def draw_unet(name: str, network: UNet) -> str:
    """A U-Net: the U, and below it its blocks."""
    levels = _levels(network)
    resnet = isinstance(network.encoder, ResNetEncoder)
    heads = [h for h in network.head.children() if only(h, nn.Conv2d) or only(h, nn.ConvTranspose2d)]
    panels: list[Panel] = []
    if isinstance(network.encoder, ResNetEncoder):
        panels.append(encoder_panel(network.encoder.network.get_submodule("layer1.0")))
    first_stage = network.decoder.stages[0]
    assert isinstance(first_stage, Stage)
    decoder = decoder_panel(next(iter(first_stage.blocks.children())))
    panels += [p for p in (decoder,) if p is not None]
    panels += attention_panels(network.decoder)
    step, indent, box_width = 84.0, 30.0, 146.0
    depth = len(levels)
    wide = max((_extent(p.items)[0] + 80 for p in panels), default=0.0)
    width = max(1000.0, wide)
    middle = width / 2 + 50  # of the U; the picture stands to its left
    canvas = Canvas()
    top = 74 + step * len(heads)  # of level 0
    spread = 450 - 28 - box_width / 2 - indent * len(heads)  # of the columns at level 0, from the middle

    def left(level: float) -> float:
        return middle - spread - box_width / 2 + level * indent

    def right(level: float) -> float:
        return middle + spread - box_width / 2 - level * indent

    y = [top + step * level for level in range(depth)]
    canvas.text(28, 40, _title(name), css="head", anchor="start")
    # the picture, its way in
    source = Box("picture", IN.lines)
    source_x = left(0) - source.width - 72
    canvas.box(source, source_x, y[0])
    canvas.wire((source_x + source.width, y[0]), (left(0), y[0]))
    canvas.text((source_x + source.width + left(0)) / 2, y[0] - 8, "normalised", css="small")
    if resnet:
        middle_x = source_x + source.width + 12
        canvas.wire((middle_x, y[0]), (middle_x, y[1]), (left(1), y[1]))
    # the U
    bottom = depth - 1
    for number, level in enumerate(levels):
        x = left(number) if number < bottom else middle - box_width / 2
        canvas.box(level.encoder, x, y[number], box_width)
        if number and not (resnet and number == 1):
            above = left(number - 1) + box_width / 2 + (indent if number < bottom else 0)
            y0 = y[number - 1] + levels[number - 1].encoder.height / 2
            y1 = y[number] - level.encoder.height / 2
            if number < bottom:
                canvas.wire((above, y0), (above, y1))
                canvas.text(above - 8, (y0 + y1) / 2 + 4, level.down, css="small", anchor="end")
            else:
                canvas.wire((above, y0), (above, y[number]), (x, y[number]))
                canvas.text(above - 8, (y0 + y[number]) / 2 + 4, level.down, css="small", anchor="end")
        if level.decoder is None:
            continue
        canvas.box(level.decoder, right(number), y[number], box_width)
        canvas.wire((x + box_width, y[number]), (right(number), y[number]))
        canvas.text((x + box_width + right(number)) / 2, y[number] - 8, level.size, css="note")
        how = f"conv 1×1, {level.skip}; concatenated" if level.skip else "concatenated"
        canvas.text((x + box_width + right(number)) / 2, y[number] + 16, how, css="small")
        below = right(number) + box_width / 2 - (indent if number + 1 < bottom else 0)
        y0 = y[number] + level.decoder.height / 2
        if number + 1 < bottom:
            following = levels[number + 1].decoder
            assert following is not None
            y1 = y[number + 1] - following.height / 2
            canvas.wire((below, y1), (below, y0))
            canvas.text(below + 8, (y0 + y1) / 2 + 4, level.up, css="small", anchor="start")
        else:
            canvas.wire((middle + box_width / 2, y[bottom]), (below, y[bottom]), (below, y0))
            canvas.text(below + 8, (y0 + y[bottom]) / 2 + 4, level.up, css="small", anchor="start")
            deepest = network.decoder.deepest
            if isinstance(deepest, nn.Conv2d):
                note = f"conv 1×1, {deepest.in_channels} → {deepest.out_channels}"
                canvas.text(middle + box_width / 2 + 10, y[bottom] + 16, note, css="small", anchor="start")
    canvas.text(middle, y[bottom] + levels[bottom].encoder.height / 2 + 16, levels[bottom].size, css="note")
    # the head climbs above the picture's own size
    before = levels[0].decoder
    assert before is not None
    for number, head in enumerate(heads, start=1):
        c = next(c for c in head.modules() if isinstance(c, nn.Conv2d | nn.ConvTranspose2d))
        transposed = isinstance(c, nn.ConvTranspose2d)
        factor = c.stride[0] if transposed else round((c.out_channels / 64) ** 0.5)
        shuffle = [s for s in only(head, nn.PixelShuffle) if isinstance(s, nn.PixelShuffle)]
        factor = shuffle[0].upscale_factor if shuffle else factor
        features = c.out_channels // (factor**2 if shuffle else 1)
        size = 2**number if network.scale != 3 else 3
        box = Box("up", (f"{'transposed' if transposed else 'sub-pixel'} × {factor}", f"{features} channels"))
        height = top - step * number
        canvas.box(box, right(-number), height, box_width)
        x = right(-number) + box_width / 2 - indent
        canvas.wire((x, height + step - before.height / 2), (x, height + box.height / 2))
        if number < len(heads):
            canvas.text(right(-number) - 14, height + 4, f"{size}H × {size}W", css="note", anchor="end")
        before = box
    row = top - step * len(heads)
    last = conv(network.output)
    out_x = right(-len(heads)) - 40 - box_width
    canvas.box(last, out_x, row, box_width)
    canvas.wire((right(-len(heads)), row), (out_x + box_width, row))
    target = Box("picture", OUT.lines)
    target_x = middle - spread / 2 - 60
    if network.bicubic is not None:
        join = out_x - 60
        canvas.wire((out_x, row), (join + 10, row))
        canvas.circle(join, row, "+")
        fixed = plain("bicubic", f"× {network.scale}")
        source_middle = source_x + source.width / 2
        bicubic_y = top - step * max(1, len(heads) - 1)
        canvas.box(fixed, source_middle - fixed.width / 2, bicubic_y)
        canvas.wire((source_middle, y[0] - source.height / 2), (source_middle, bicubic_y + fixed.height / 2))
        canvas.wire((source_middle + fixed.width / 2, bicubic_y), (join, bicubic_y), (join, row + 10))
        canvas.wire((join - 10, row), (target_x + target.width, row))
    else:
        canvas.wire((out_x, row), (target_x + target.width, row))
    canvas.box(target, target_x, row)
    end = y[bottom] + 60
    if panels:
        end = _panels(canvas, panels, width, end + 10)
    return canvas.svg(width, end + 20, _title(name))


def _title(name: str) -> str:
    return f"{name}: {NETWORKS[name].summary}"


DRAWERS: dict[type[Network], Callable[..., str]] = {
    RCAN: draw_rcan,
    EDSR: draw_edsr,
    SRCNN: draw_srcnn,
    RRDBNet: draw_rrdbnet,
    SRVGGNet: draw_srvgg,
    UNet: draw_unet,
}


def draw(name: str) -> str:
    """The SVG of a network of the catalogue at x4."""
    with torch.random.fork_rng(devices=[]):
        network = build(name, scale=SCALE)
    return DRAWERS[type(network)](name, network)


def drawings() -> dict[Path, str]:
    """All files and what should be in them."""
    return {FOLDER / f"{name}.svg": draw(name) for name in drawn()}


def drawn() -> list[str]:
    """The networks with a drawing: those with weights, each architecture once."""
    found: list[str] = []
    for name, entry in NETWORKS.items():
        alike = (NETWORKS[other] for other in found)
        if entry.trained and all((e.architecture, e.arguments) != (entry.architecture, entry.arguments) for e in alike):
            found.append(name)
    return found


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, svg in drawings().items():
        path.write_text(svg, encoding="utf-8")
        print(path, file=sys.stderr)
