"""`finescale train`: trains a network by a recipe."""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from finescale.cli.arguments import named, started_as
from finescale.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "recipe", type=named, nargs="?", help="a TOML file, see recipes/; without, --resume -o DIR takes the run's own"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a key of the recipe, such as optimiser.rate=2e-4; may be repeated",
    )
    parser.add_argument("--budget", metavar="AMOUNT", help='how long to train: 20m, 2h, 300k (steps), "30 epochs"')
    parser.add_argument(
        "--schedule",
        metavar="NAME",
        help="fast (minutes) or original (as the networks were first trained), in place of the recipe's own",
    )
    parser.add_argument("--data", metavar="STORE", help="the packed store to train on")
    parser.add_argument(
        "--validation", metavar="SET", help="a folder of pictures, a set's name, or a packed store, to validate on"
    )
    parser.add_argument(
        "--warm-start", metavar="FILE|NAME", help="start from weights, also of another scale, size or precision"
    )
    parser.add_argument("-o", "--out", type=named, metavar="DIR", help="folder of the run (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--no-board", action="store_true", help="write no TensorBoard files")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and how long it would take")


def run(args: argparse.Namespace) -> int:
    """Trains, and says what came of it."""
    from finescale.evaluation.validation import Validation
    from finescale.inference.machine import keep_memory
    from finescale.training.recipe import load
    from finescale.training.run import RECIPE, describe, train

    shortcuts = {
        "budget": args.budget,
        "data.train": args.data,
        "data.validation": args.validation,
        "warm_start": args.warm_start,
    }
    for one in args.overrides:
        key = one.partition("=")[0].strip()
        if shortcuts.get(key) is not None:
            raise UsageError(f"--set {key}: is given by an option of its own, too; leave one of them out")
    # as TOML strings: a folder may be called 2024
    pairs = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in shortcuts.items() if value is not None]
    keep_memory()
    file = args.recipe
    if file is None:
        if not (args.resume and args.out) or args.schedule:
            raise UsageError(
                f"a RECIPE is missing (only --resume -o DIR goes without, by the run's own DIR/{RECIPE}, and takes no "
                "--schedule)"
            )
        file = args.out / RECIPE
        if not file.is_file():
            raise UsageError(f"{file}: is not there, so the RECIPE that the run was started with has to be named")
    recipe = load(file, [*args.overrides, *pairs], schedule=args.schedule)
    if args.dry_run:
        print(describe(recipe, args.device))
        return 0
    out = args.out or Path("runs") / args.recipe.stem
    outcome = train(
        recipe, out, resume=args.resume, device=args.device, make_validation=Validation, board=not args.no_board
    )
    if outcome is None:
        return 0
    step, minutes = outcome.progress.step, outcome.progress.seconds / 60
    if outcome.weights:
        print(f"{outcome.weights}: trained in {step} steps and {minutes:.1f} minutes")
        if outcome.progress.best > outcome.progress.psnr + 0.02:  # less is chance
            print(
                f"finescale: {out / 'best.safetensors'} scored better in validation, {outcome.progress.best:.3f} dB "
                f"instead of {outcome.progress.psnr:.3f}; a lower optimiser.rate may help",
                file=sys.stderr,
            )
    else:
        again = [*started_as(), *(() if args.resume else ("--resume",))]
        line = subprocess.list2cmdline(again) if sys.platform == "win32" else shlex.join(again)
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:  # the words of torchrun are not known here
            line = "the same command" if args.resume else "the same command with --resume"
        print(f"{out}: stopped at step {step} and saved; go on with: {line}", file=sys.stderr)
    return 0
