"""`finescale networks`: what there is, what it costs and how well it does."""

import argparse
from collections.abc import Mapping
from typing import Any


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
    from rich import box
    from rich.table import Table

    from finescale.evaluation.tables import console

    screen = console()
    for usable in (True, False):
        chosen = [row for row in rows if bool(row.scales) is usable]
        if not chosen:
            continue
        table = Table(
            title="With weights: these enlarge pictures" if usable else "Without weights so far: these can be trained",
            title_justify="left",
            box=box.SIMPLE_HEAD,
        )
        headings = ("network", "parameters", "GMAC", *(("weights: PSNR / SSIM",) if usable else ()), "")
        for heading in headings:
            right = heading in ("parameters", "GMAC")
            table.add_column(heading, justify="right" if right else "left", no_wrap=bool(heading))
        for row in chosen:
            cells = [
                "\n".join([row.name, *row.aliases]),
                f"{row.parameters / 1e6:.2f} M" if row.parameters else "-",
                f"{row.macs / 1e9:.2f}" if row.macs else "-",
            ]
            if usable:
                cells.append("\n".join(_figures(scale, row.figures.get(scale, {})) for scale in row.scales))
            table.add_row(*cells, row.summary)
        screen.print(table)
    screen.print(
        f"parameters and GMAC: at x{args.scale}, for a picture of 48 x 48; PSNR in dB and SSIM: of luma, Set5"
        " (jpeg40: its small pictures have been JPEGs of quality 40; drawn: text, charts and pixel art instead)",
        highlight=False,
    )
    return 0


def _figures(scale: int, sets: Mapping[str, Any]) -> str:
    name = min(sets, key=lambda name: (not name.startswith("Set5"), name), default=None)  # Set5, if possible as it is
    if name is None:
        return f"x{scale}"
    condition = name.removeprefix("Set5").removeprefix("-")  # "jpeg40", see `finescale bench --jpeg`; or another set
    figures = f"x{scale} {sets[name]['psnr']:.2f} / {sets[name]['ssim']:.4f}"
    return f"{figures} ({condition})" if condition else figures
