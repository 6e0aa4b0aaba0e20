"""Makes again everything in the documentation that depends on the shipped weights.

    python docs/refresh.py --data DATA             # all parts: hours on two cores, SA-RCAN's at x2 most of them
    python docs/refresh.py results --scales 3 ...  # some scales only
    python docs/refresh.py tables gallery          # without the benchmark runs: a few minutes

- `results`: docs/results, by `finescale bench` on the benchmark sets in DATA;
- `speed`: docs/results/benchmark.md, by `finescale benchmark`, of this machine;
- `gallery`: docs/gallery.md, its figures, and docs/images/before-after.webp, from free pictures;
- `tables`: the table of README.md, from the weight files' own notes, and the contents of docs/results/README.md.
"""

import argparse
import json
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finescale.atomic import sha256
from finescale.cli.main import main as command_line
from finescale.evaluation import published, report
from finescale.evaluation.arrays import CLEAN, Damage
from finescale.evaluation.tables import count
from finescale.evaluation.throughput import HEADINGS, Line, Throughput, caption, cells
from finescale.networks import DEFAULT, FOR_GRAPHICS, FOR_JPEG, FOR_NOISE
from finescale.networks.complexity import cost
from finescale.weights.header import Header, read_header
from finescale.weights.places import INDEX

ROOT = Path(__file__).resolve().parents[1]
# what the package holds, and what is too large for it
WEIGHTS = (ROOT / "src" / "finescale" / "weights" / "files", ROOT / "weights")
SETS = ("Set5", "Set14", "B100", "Urban20")
# published networks worth a line beside ours: the plainest, a small one, a large one
BESIDE = ("bicubic", "EDSR-baseline", "IMDN", "RCAN", "SA-RCAN")
PERCEPTUAL = "sa-rcan-light-perceptual"  # shall look sharp rather than be exact
JPEG, NOISE = Damage(jpeg=40), Damage(noise=10)
# finescale data draw -o drawn --count 24 --seed 2000000 --side 480, with the fonts of finescale[report]
DRAWN = ("drawn",)
# what shipped networks are for: sets, what their names end in, what to say of them
KINDS = (
    (SETS, "", ""),
    (SETS, NOISE.of(""), "Noisy small pictures, of 10 grey levels ([beside others](docs/results/noise.md)):"),
    (SETS, JPEG.of(""), "Small pictures that have been JPEGs of quality 40 ([beside others](docs/results/jpeg.md)):"),
    (
        DRAWN,
        "",
        "Text, drawings, charts and pixel art, drawn large and shrunk ([beside others, and as screens show "
        "them](docs/results/graphics.md)):",
    ),
)
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)


@dataclass(frozen=True)
class Shipped:
    """A weight file of the package or of the checkout."""

    path: Path
    header: Header
    sha256: str
    parameters: int
    macs: int


def shipped(folders: Sequence[Path] = WEIGHTS) -> list[Shipped]:
    """All weight files, x2 to x4, smaller networks first."""
    found = []
    for path in (folder / name for folder in folders for name in json.loads((folder / INDEX).read_text("utf-8"))):
        header = read_header(path)
        price = cost(header.name, scale=header.scale)
        found.append(Shipped(path, header, sha256(path), price.parameters, price.macs))
    return sorted(found, key=lambda file: (file.header.scale, file.parameters, file.header.name))


def names(weights: Sequence[Shipped], scale: int) -> list[str]:
    """The networks that are shipped for a scale and for clean pictures, to be exact."""
    here = [file for file in weights if file.header.scale == scale and _sets(file)]
    return [file.header.name for file in here if file.header.name != PERCEPTUAL]


def _sets(file: Shipped, of: Sequence[str] = SETS, suffix: str = "") -> list[str]:
    """The sets among some, called so in results, that a file's own figures are of."""
    return [name for name in of if f"{name}{suffix}" in _figures(file)]


def finescale(*arguments: str) -> None:
    """Runs a command line of Finescale here."""
    print("finescale", shlex.join(arguments), flush=True)
    sys.argv = ["finescale", *arguments]  # what a report says it was made by
    if code := command_line(arguments):
        sys.exit(code)


# ---- results ----


@dataclass(frozen=True)
class Variant:
    """A way to apply the networks that is benchmarked: its folder under docs/results, options, sets, a sentence.

    `networks`: which ones; nothing: all for clean pictures.
    """

    suffix: str
    options: Sequence[str]
    sets: Sequence[str]
    sentence: str
    networks: Sequence[str] = ()


VARIANTS = (
    Variant(
        "",
        ["--perceptual", "squeeze", "--brisque"],
        SETS,
        "local windows, as in `finescale upscale`; timed in PyTorch float32",
    ),
    Variant("-ensemble", ["--ensemble", "--no-timing"], SETS[:2], "averaged over the eight flips and turns"),
    Variant(
        "-perceptual",
        ["--perceptual", "squeeze", "--brisque", "--no-timing"],
        SETS,
        "what shall look sharp, beside what shall be exact",
        ("bicubic", DEFAULT, PERCEPTUAL),
    ),
)


def results(weights: Sequence[Shipped], sets: Sequence[str], scales: Sequence[int] = (2, 3, 4)) -> None:
    """Benchmarks every shipped network in every variant."""
    for scale in sorted({file.header.scale for file in weights} & {*scales}):
        for variant in VARIANTS:
            chosen = [name for name in sets if name in variant.sets]
            if not chosen:
                continue
            entrants = variant.networks or names(weights, scale)
            entrants = entrants if variant.suffix else ["bicubic", "bicubic-y", *entrants]
            options = ["--networks", ",".join(entrants), "--sets", ",".join(chosen), "--scale", str(scale)]
            where = f"docs/results/x{scale}{variant.suffix}"
            finescale("bench", *options, *variant.options, "--report", where, "--overwrite")


def speed(folder: Path = ROOT / "docs" / "results") -> None:
    """Measures the default network with every engine, and writes the page."""
    data, plot = folder / "benchmark.json", folder / "benchmark.svg"
    command = ["benchmark", "--json", os.path.relpath(data), "--plot", os.path.relpath(plot), "--overwrite"]
    finescale(*command)
    measured = json.loads(data.read_text("utf-8"))
    found = Throughput(**{**measured, "lines": tuple(Line(**line) for line in measured["lines"])})
    rows = [HEADINGS, ["---", "---", "---", "---:", "---:", "---:"], *map(cells, found.lines)]
    parts = [
        "# Every engine, by `finescale benchmark`",
        f"`finescale {shlex.join(command)}`",
        f"{caption(found)}.",
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        f"![Seconds per megapixel as bars]({plot.name})",
    ]
    (folder / "benchmark.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def contents(folder: Path = ROOT / "docs" / "results") -> str:
    """The page docs/results/README.md: what lies beside it, with the figures in short."""
    parts = [
        "# Results",
        "Made by `python docs/refresh.py`, by single `finescale bench --keep` runs, and by the scripts in "
        "`benchmarks`. A row kept from an earlier run was made by the same command with that network's name. "
        "Every page says by which command it was made, and with timings on which machine; PSNR and SSIM are of weights "
        "whose SHA-256 stands there (but for `local-statistics.md`, `ladder.md` and `training.md`). "
        "How the figures are computed, and how to make the tables yourself: "
        "[protocol.md](../protocol.md#reproduce-the-tables).",
    ]
    lines = []
    for file in sorted(folder.glob("x*/results-x*.json")):
        found = json.loads(file.read_text("utf-8"))
        suffix = file.parent.name.removeprefix(f"x{found['scale']}")
        sentence = {variant.suffix: variant.sentence for variant in VARIANTS}.get(suffix, "")
        for network in found["networks"]:
            if "sha256" in network:
                figures = (f"{name} {network['sets'][name]['psnr']:.2f}" for name in network["sets"])
                link = f"[x{found['scale']}{suffix}]({file.parent.name}/{file.with_suffix('.md').name})"
                lines.append(f"| {link} | {network['name']} | {', '.join(figures)} | {sentence} |")
    if lines:
        parts.append("\n".join(["| page | network | PSNR, dB | how |", "|---|---|---|---|", *lines]))
    others = []
    for page in sorted(folder.glob("*.md")):
        if page.name != "README.md":
            title = page.read_text("utf-8").partition("\n")[0].lstrip("# ")
            others.append(f"- [{title}]({page.name})")
    if others:
        parts.append("\n".join(others))
    parts.append(
        "Each folder holds the same run as `.md`, `.csv` and `.json`, the figures of every picture (`pictures-*.md`), "
        "and plots of PSNR against parameters and, where it was timed, seconds, with published networks beside ours. "
        "Urban20 is every fifth picture of Urban100 (img_003, 008, ... 098); published networks were scored on all of "
        "it, so there is no figure of theirs. The pages' commands find the sets in the "
        "folder that FINESCALE_DATA names, or where `finescale data get Set5 Set14 B100 Urban100` puts them "
        "(Urban20 is taken from Urban100); "
        "`../shared/data` stands for a folder of pictures of yours. Seconds of single pictures (in `.csv` and `.json`) "
        "are of a machine that did other things too."
    )
    return "\n\n".join(parts) + "\n"


# ---- the gallery ----


@dataclass(frozen=True)
class Photograph:
    """A picture of the gallery, where it comes from, and what to show of it (nothing: chosen by the networks).

    The small picture went through `damage`. `beside` is a network for such pictures, shown beside those for clean
    photographs.
    """

    file: str
    title: str
    source: str
    boxes: Sequence[str] = ()
    damage: Damage = CLEAN
    beside: str = ""


GALLERY = (
    Photograph(
        "gallery/cat.png",
        "Fur and whiskers",
        "Chelsea, photographed by Stefan van der Walt; CC0. From scikit-image.",
        beside=PERCEPTUAL,
    ),
    Photograph(
        "gallery/pagoda.jpg",
        "Roofs and leaves",
        "The Summer Palace in Beijing, photographed by [danielbuechele](https://www.flickr.com/photos/danielbuechele/"
        "6061409035/); [CC BY 2.0](https://creativecommons.org/licenses/by/2.0/). From scikit-learn. Not changed here; "
        "for the figure it is cropped to a multiple of four, shrunk and enlarged.",
        beside=PERCEPTUAL,
    ),
    Photograph(
        "gallery/rocket.jpg",
        "Thin lines",
        "A Falcon 9 before its start, photographed by SpaceX; public domain. From scikit-image.",
    ),
    Photograph(
        "gallery/cat.png",
        "A cat's eyes, from a JPEG of quality 40",
        "The small picture was written and read as a strongly compressed JPEG, as pictures of the web often were.",
        damage=JPEG,
        beside=FOR_JPEG,
    ),
    Photograph(
        "gallery/rocket.jpg",
        "A rocket, noisy",
        "Gaussian noise of 10 grey levels was added to the small picture.",
        damage=NOISE,
        beside=FOR_NOISE,
    ),
    Photograph(
        "gallery/page.png",
        "A page with text",
        "Part of the local page of Finescale, as a browser draws it, shrunk for the figure. What screens show is not "
        "shrunk: there `sa-rcan-light-graphics` is ahead ([figures](results/graphics.md)).",
        beside=FOR_GRAPHICS,
    ),
)
HERO = Photograph("hopper.jpg", "", "", ["172,0,136,102", "150,170,136,102"])


def gallery(weights: Sequence[Shipped], out: Path = ROOT / "docs", scale: int = 4) -> None:
    """Draws the figures and writes the page."""
    (out / "images" / "gallery").mkdir(parents=True, exist_ok=True)

    def entrants(picture: Photograph) -> list[str]:
        if picture is HERO:
            return [DEFAULT]
        there = [f for f in weights if f.header.scale == scale]
        return [*names(weights, scale), *(f.header.name for f in there if f.header.name == picture.beside)]

    def figure(picture: Photograph, target: Path) -> str:
        chosen = [part for box in picture.boxes for part in ("--box", box)] or ["--auto", "2"]
        networks = ",".join(["bicubic", *entrants(picture)])
        chosen += [part for kind, much in picture.damage.settings.items() for part in (f"--{kind}", f"{much:g}")]
        arguments = [f"docs/images/{picture.file}", "--networks", networks, "--scale", str(scale), *chosen]
        shown = target.relative_to(ROOT) if target.is_relative_to(ROOT) else target
        finescale("figure", *arguments, "-o", str(shown), "--overwrite")
        return shlex.join(["finescale", "figure", *arguments, "-o", target.name])

    commands: list[str] = []
    figure(HERO, out / "images" / "before-after.webp")
    parts = [
        "# Gallery",
        f"Each picture is shrunk to 1/{scale} of its width and height, exactly as the benchmarks' files are made, and "
        f"enlarged {scale} times again: by bicubic interpolation, and by the networks that come with Finescale "
        "(`sa-rcan` with its checkout). PSNR (dB) / SSIM are of the box. No box was chosen by hand: `--auto 2` takes "
        "the two where the results differ most.",
    ]
    for picture in GALLERY:
        target = out / "images" / "gallery" / f"{picture.damage.of(Path(picture.file).stem)}-x{scale}.webp"
        commands.append(figure(picture, target))
        link = f"images/gallery/{target.name}"
        alternative = (
            f"{picture.title}: a box of the original, by bicubic interpolation and by {', '.join(entrants(picture))}"
        )
        parts += [
            f"## {picture.title}",
            f"![{alternative}]({link})",
            picture.source,
        ]
    hashes = [f"- {f.header.name} x{scale}: `{f.sha256}`" for f in weights if f.header.scale == scale]
    parts += [
        "## Made with",
        f"```sh\n{commands[0]}\n```",
        "and likewise for the others; `python docs/refresh.py gallery` does all. Figures need the extra `report`, and "
        "`sa-rcan` [its weights](networks.md#sa-rcan). Weights (SHA-256):",
        "\n".join(hashes),
    ]
    (out / "gallery.md").write_text("\n\n".join(parts) + "\n", "utf-8")


# ---- the README's table ----


def block(weights: Sequence[Shipped]) -> str:
    """The README's tables: shipped networks by the notes in their weight files, published ones beside them."""
    parts = []
    scales = sorted({file.header.scale for file in weights})
    tables = [(kind, some) for kind in KINDS for some in ([scales] if kind[2] else [[scale] for scale in scales])]
    for (of, suffix, what), some in tables:
        ours = [f for f in weights if f.header.scale in some and _sets(f, of, suffix) and f.header.name != PERCEPTUAL]
        if not ours:
            continue
        sets = [name for name in of if any(name in _sets(file, of, suffix) for file in ours)]
        rows = [["network", "parameters", "GMAC", *sets, "weights, SHA-256"]]
        rows += [] if what else _beside(some[0], sets)
        for file in ours:
            figures = [_pair(_figures(file).get(f"{name}{suffix}")) for name in sets]
            price = [count(file.parameters), f"{file.macs / 1e9:.2f}"]
            called = f"**{file.header.name}**{f' x{file.header.scale}' if what else ''}"
            rows.append([called, *price, *figures, f"`{file.sha256[:16]}`"])
        parts += [what or f"**x{some[0]}**", report.table(rows[0], rows[1:])]
    parts += _perceptual(weights)
    by_device: dict[str, dict[str, str]] = {}
    for file in weights:
        name = file.header.name
        by_device.setdefault(str(file.header.notes["device"]).replace(", 1 threads", ", 1 thread"), {})[name] = (
            _training(weights, name)
        )
    times = "; ".join(f"on {device} {', '.join(those.values())}" for device, those in by_device.items())
    text = (
        "PSNR (dB) and SSIM say how near the result is to the original, higher is better: on luma, by the [published "
        "protocol](docs/protocol.md). GMAC are the billions of multiply-accumulates for a picture of 48 x 48 pixels. "
        "Set5, Set14 and B100 are the field's test pictures. "
        'Urban20 is every fifth picture of Urban100; "drawn" stands for 24 pictures by `finescale data draw`, which '
        "no network was trained on. "
        f"Minutes of training by the files' own notes, x2 / x3 / x4: {times}. Each includes those of the "
        "weights it was started from, of another scale or of the default network. Not counted: the 40 minutes of the "
        "x2 network from which sa-rcan-light x3 and x4 started ([all runs](docs/results/training.md)). Files that "
        "are not in the package lie in [weights](weights/MANIFEST.md). Published rows are figures that others "
        "printed, of networks trained on DIV2K; where there are none, bicubic is measured here. All that was "
        "measured, with plots, time, memory, perceptual figures and sources: [docs/results](docs/results/README.md); "
        "how to [make the tables yourself](docs/protocol.md#reproduce-the-tables)."
    )
    parts.append(textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(parts)


def _perceptual(weights: Sequence[Shipped]) -> list[str]:
    """The table of the network that shall look sharp, beside the default one; both as docs/results has them."""
    rows = [["network", *SETS, "weights, SHA-256"]]
    for file in weights:
        name, scale = file.header.name, file.header.scale
        if name not in (DEFAULT, PERCEPTUAL):
            continue
        page = ROOT / "docs" / "results" / f"x{scale}-perceptual" / f"results-x{scale}.json"
        if not page.exists():
            continue
        found = {one.get("sha256"): one["sets"] for one in json.loads(page.read_text("utf-8"))["networks"]}
        sets = found.get(file.sha256, {})
        figures = [f"{_pair(sets[one])} / {sets[one]['lpips']:.3f}" if one in sets else "-" for one in SETS]
        called = f"**{name}**" if name == PERCEPTUAL else name
        rows.append([f"{called} x{scale}", *figures, f"`{file.sha256[:16]}`"])
    if not any(PERCEPTUAL in row[0] for row in rows):
        return []
    what = (
        "Photographs that shall look sharp, PSNR / SSIM / LPIPS (a learned distance, lower is nearer to the original "
        "as people see it; by SqueezeNet, by which this network was trained, too):"
    )
    return [what, report.table(rows[0], rows[1:])]


def _beside(scale: int, sets: Sequence[str]) -> list[list[str]]:
    """Rows of published networks; where there are none, of bicubic enlargement as docs/results has it."""
    chosen = [row for row in published.rows(scale, measured=False) if row.network in BESIDE]
    if chosen:
        pairs = ((row, [published.pair(row, name) or "-" for name in sets]) for row in chosen)
        return [[f"{row.network} (published)", count(row.parameters), "-", *figures, "-"] for row, figures in pairs]
    file = ROOT / "docs" / "results" / f"x{scale}" / f"results-x{scale}.json"
    if not file.exists():
        return []
    networks = json.loads(file.read_text("utf-8"))["networks"]
    found = next(network["sets"] for network in networks if network["name"] == "bicubic")
    return [["bicubic (measured)", "-", "-", *(_pair(found.get(name)) for name in sets), "-"]]


def _figures(file: Shipped) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = file.header.notes.get("figures", {})
    return figures


def _pair(figures: Mapping[str, float] | None) -> str:
    return f"{figures['psnr']:.2f} / {figures['ssim']:.4f}" if figures else "-"


def _training(weights: Sequence[Shipped], name: str) -> str:
    """Minutes as the weight files say, by scale, "-" where there is none: "sa-rcan-light 130 / 53 / 173"."""
    notes = {file.header.scale: file.header.notes for file in weights if file.header.name == name}
    runs = ([notes[scale], *notes[scale].get("earlier", ())] if scale in notes else [] for scale in (2, 3, 4))
    minutes = (f"{sum(run['minutes'] for run in each):.0f}" if each else "-" for each in runs)
    return f"{name} {' / '.join(minutes)}"


def tables(weights: Sequence[Shipped]) -> None:
    """Rewrites the README's block and the contents of docs/results."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    new = BLOCK.sub(lambda found: f"{found[1]}\n{block(weights)}\n\n{found[2]}", text)
    readme.write_text(new, "utf-8")
    (ROOT / "docs" / "results").mkdir(exist_ok=True)
    (ROOT / "docs" / "results" / "README.md").write_text(contents(), "utf-8")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="results, speed, gallery, tables (default: all)")
    parser.add_argument("--data", type=Path, help="the folder that holds the benchmark sets, and weights of LPIPS")
    parser.add_argument("--sets", default=",".join(SETS), help="benchmark only on these (default: %(default)s)")
    parser.add_argument("--scales", default="2,3,4", help="benchmark only these (default: %(default)s)")
    args = parser.parse_args()
    known = ["results", "speed", "gallery", "tables"]
    parts = args.parts or known
    if strangers := set(parts) - set(known):
        parser.error(f"there is no part '{', '.join(strangers)}'")
    os.environ.pop("FINESCALE_WEIGHTS", None)  # the shipped weights, not one's own
    if args.data:
        os.environ["FINESCALE_DATA"] = str(args.data.resolve())
    os.chdir(ROOT)
    found = shipped()
    if "results" in parts:
        results(found, args.sets.split(","), [int(scale) for scale in args.scales.split(",")])
    if "speed" in parts:
        speed()
    if "gallery" in parts:
        gallery(found)
    if "tables" in parts:
        tables(found)


if __name__ == "__main__":
    main()
