"""`finescale networks`: what there is, what it costs and how well it does."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finescale.weights.overview import Row

_TABLE = 110  # columns from which a table has room for what the networks are


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this verb."""
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), default=4, help="count costs at this scale (default 4)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the catalogue."""
    from finescale.weights.overview import overview

    rows = overview(args.scale)
    if args.json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    from finescale.evaluation.tables import console

    screen = console()
    for usable in (True, False):
        if chosen := [row for row in rows if bool(row.scales) is usable]:
            title = "With weights: these enlarge" if usable else "Without weights on this machine: these can be trained"
            screen.print(*(_list if screen.width < _TABLE else _table)(title, chosen), sep="\n", highlight=False)
    own = any(row.parameters and not row.macs for row in rows)
    at = f"x{args.scale} (your own: that or the first here)" if own else f"x{args.scale}"
    screen.print(
        f"parameters and GMAC: at {at}, for a picture of 48 x 48; PSNR in dB and SSIM: of luma, Set5"
        " (noise10: its small pictures are noisy, by 10 grey levels; jpeg40: they have been JPEGs of quality 40; drawn:"
        " text, charts and pixel art instead)",
        highlight=False,
    )
    return 0


def _table(title: str, rows: "Sequence[Row]") -> "Iterator[RenderableType]":
    """The networks as a table."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    usable = any(row.scales for row in rows)
    headings = ("network", "parameters", "GMAC", *(("weights: PSNR / SSIM",) if usable else ()), "")
    for heading in headings:
        right = heading in ("parameters", "GMAC")
        table.add_column(heading, justify="right" if right else "left", no_wrap=bool(heading))
    for row in rows:
        weights = ["\n".join(_weights(row))] if usable else []
        table.add_row("\n".join([row.name, *row.aliases]), *_costs(row), *weights, row.summary)
    yield table


def _list(title: str, rows: "Sequence[Row]") -> "Iterator[RenderableType]":
    """The networks one below the other, for terminals in which a table leaves no room for what they are."""
    from rich.padding import Padding
    from rich.text import Text

    yield Text(f"{title}\n", style="italic")
    for row in rows:
        parameters, macs = _costs(row)
        cost = f"{parameters} parameters, {macs} GMAC" if row.parameters else ""
        lines = [row.summary, cost, *_weights(row)]
        yield Text(", ".join([row.name, *row.aliases]), style="bold")
        yield Padding("\n".join(filter(None, lines)), (0, 0, 1, 2))


def _costs(row: "Row") -> tuple[str, str]:
    """Parameters and multiply-accumulates."""
    parameters = f"{row.parameters / 1e6:.2f} M" if row.parameters else "-"
    return parameters, f"{row.macs / 1e9:.2f}" if row.macs else "-"


def _weights(row: "Row") -> list[str]:
    """A line for each scale."""
    notes = {scale: row.notes.get(scale, {}).get("validation") for scale in row.scales}
    return [f"x{scale}{_figures(row.figures.get(scale, {}), notes[scale])}" for scale in row.scales]


def _figures(sets: Mapping[str, Any], validation: Any) -> str:
    """On Set5, if possible as it is, or on another set; else what the training's own validation was."""
    name = min(sets, key=lambda name: (not name.startswith("Set5"), name), default=None)
    try:
        if name is None:
            condition = f"validation: {validation['set']}"
            psnr, ssim = validation["psnr_y"], validation.get("ssim_y")
        else:
            condition = name.removeprefix("Set5").removeprefix("-")  # "jpeg40", see `finescale bench`; or another set
            psnr, ssim = sets[name]["psnr"], sets[name]["ssim"]
        figures = f" {psnr:.2f}" + ("" if ssim is None else f" / {ssim:.4f}")
    except (AttributeError, TypeError, KeyError, ValueError):  # notes without any, or that somebody wrote otherwise
        return ""
    return f"{figures} ({condition})" if condition else figures
