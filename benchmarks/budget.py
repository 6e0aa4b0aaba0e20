"""Whether a run keeps its budget in time, and has decayed when it ends.

    python benchmarks/budget.py recipes/sa-rcan-light-x2.toml --budgets 5m,20m --out runs/budget [OPTIONS OF TRAIN ...]

Every budget is a real run, `finescale train RECIPE --budget B --out OUT/B OPTIONS`. "Spent" is what the trainer
counted, its last validation and checkpoint included; "the process" has starting and ending Python around that.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from finescale.cli.main import told
from finescale.training import checkpoints
from finescale.training.amounts import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--budgets", default="5m,20m")
    parser.add_argument("--out", type=Path, default=Path("runs/budget"))
    args, options = parser.parse_known_args()
    print(f"`python {' '.join(sys.argv)}`\n")
    print("| budget | steps | spent, s | off the budget | the process, s | last rate / peak | validation, dB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for text in args.budgets.split(","):
        out = args.out / text
        started = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "finescale",
            "train",
            args.recipe,
            "--budget",
            text,
            "--out",
            str(out),
            *options,
        ]
        if code := subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            sys.exit(code)
        whole = time.monotonic() - started
        state = checkpoints.read(out / checkpoints.LAST)
        progress, budget = state["progress"], parse(text).value
        share = progress["rate"] / state["recipe"]["optimiser"]["rate"]
        off = progress["seconds"] / budget - 1
        print(f"| {text} | {progress['step']:,} | {progress['seconds']:.1f} | {off:+.2%} | {whole:.1f} | ", end="")
        print(f"{share:.1e} | {progress['psnr']:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(told(main))
