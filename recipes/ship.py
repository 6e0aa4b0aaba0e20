"""Makes a shipped weight file of a trained one: float16, measured on benchmark sets, listed in the folder's index.

    python recipes/ship.py runs/sa-rcan-light-x4/sa-rcan-light-x4.safetensors src/finescale/weights/files --data DATA

The figures are measured on the very tensors that are shipped and written into the file's own notes, so that
`finescale networks` can show them and anybody can measure them again with `finescale bench`. Runs that a network was
warm-started from belong in its notes: --notes '{"earlier": [{"sha256": "...", "steps": 6559, "minutes": 40}]}'.

A network that was fine-tuned on special pictures forgets part of what it knew; the weighted mean of it and of the one
that it was fine-tuned from (--before) keeps most of both (WiSE-FT, arXiv 2109.01903).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from finescale.atomic import sha256
from finescale.cli.bench import add_damage
from finescale.cli.main import told
from finescale.evaluation import benchmark, sets
from finescale.evaluation.arrays import Damage
from finescale.evaluation.scoring import means
from finescale.layers.spectral import settle
from finescale.weights import files
from finescale.weights.header import read_header
from finescale.weights.places import INDEX, file_name


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a trained weight file")
    parser.add_argument("folder", type=Path, help="where shipped files lie")
    parser.add_argument("--data", type=Path, help="the folder that holds the benchmark sets")
    parser.add_argument("--sets", default="Set5,Set14,B100,Urban20")
    add_damage(parser)
    parser.add_argument("--before", type=Path, metavar="FILE", help="what it was fine-tuned from, to be mixed in")
    parser.add_argument("--share", type=float, default=0.7, help="of the file itself in that mixture (%(default)s)")
    parser.add_argument("--notes", type=json.loads, default={}, metavar="JSON", help="added to the file's notes")
    args = parser.parse_args()

    header = read_header(args.file)
    network = files.load(args.file)
    mixed = {}
    if args.before:
        old, new = files.load(args.before).state_dict(), network.state_dict()
        network.load_state_dict(
            {
                name: torch.lerp(old[name], value, args.share) if value.is_floating_point() else value
                for name, value in new.items()
            }
        )
        settle(network)  # a mean of singular vectors is none
        mixed = {"mixed": {"share": args.share, "with": sha256(args.before)}}
    target = args.folder / file_name(header.name, header.scale)
    args.folder.mkdir(parents=True, exist_ok=True)
    notes = {**header.notes, **args.notes, **mixed}

    figures = {}
    chosen = [sets.find(name, args.data) for name in args.sets.split(",")]
    with tempfile.TemporaryDirectory() as folder:  # beside the index a new file would be taken for a damaged old one
        rounded = Path(folder) / target.name
        files.save(network, rounded, dtype=torch.float16)
        damage = Damage(args.noise, args.jpeg)
        run = benchmark.run([str(rounded)], chosen, header.scale, damage=damage, timed_size=None)
    for name, scores in run.rows[0].scores.items():
        found = means(scores)
        figures[name] = {"psnr": round(found["psnr"], 6), "ssim": round(found["ssim"], 8)}
    files.save(network, target, notes={**notes, "figures": figures}, dtype=torch.float16)

    index_file = args.folder / INDEX
    index = json.loads(index_file.read_text()) if index_file.is_file() else {}
    kept = {key: notes[key] for key in ("licence", "pictures", "minutes") if key in notes}
    index[target.name] = {"sha256": sha256(target), "size": target.stat().st_size, **kept, "figures": figures}
    index_file.write_text(json.dumps(dict(sorted(index.items())), indent=1) + "\n")
    print(json.dumps({target.name: index[target.name]}, indent=1))


if __name__ == "__main__":
    sys.exit(told(main))
