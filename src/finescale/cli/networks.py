"""`finescale networks`: what there is, what it costs and how well it does."""

import argparse


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
    from rich.console import Console
    from rich.table import Table

    table = Table(
        caption=f"parameters and GMAC: x{args.scale}, for a picture of 48 x 48; PSNR and SSIM: of luma, on Set5"
    )
    for heading in ("network", "parameters", "GMAC", "weights", "Set5", ""):
        table.add_column(heading, justify="right" if heading in ("parameters", "GMAC") else "left")
    for row in rows:
        figures = [(scale, sets["Set5"]) for scale, sets in sorted(row.figures.items()) if "Set5" in sets]
        table.add_row(
            "\n".join([row.name, *row.aliases]),
            f"{row.parameters / 1e6:.2f} M" if row.parameters else "-",
            f"{row.macs / 1e9:.2f}" if row.macs else "-",
            " ".join(f"x{scale}" for scale in row.scales) or "-",
            "\n".join(f"x{scale} {of['psnr']:.2f} / {of['ssim']:.4f}" for scale, of in figures) or "-",
            row.summary,
        )
    Console().print(table)
    return 0
