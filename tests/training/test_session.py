"""`recipes/session.sh`, with a stand-in for Python: what it would train, what it does about failures, what it packs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from finescale.cli.main import parser
from finescale.training import checkpoints, warm_start
from finescale.training.recipe import load

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/bin/sh
case "$*" in "-c "*finescale*) exec "$REAL" "$@" ;; esac
echo "$@" >>calls
case "$*" in
*"data prepare"*) mkdir -p stores/session ;;
*" train "*broken*compile=off*) ;;
*" train "*broken*) exit 1 ;;
*" train "*wrong*) exit 2 ;;
*" train "*diverges*rate=0.00025*) ;;
*" train "*diverges*) echo 'stopped at step 9; a lower optimiser.rate may help'; exit 1 ;;
esac
case "$*" in *" train "*)
    name=$(basename "$(echo "$*" | sed "s/.* train //; s/ .*//")" .toml)
    out=$(echo "$*" | sed "s/.* --out //; s/ .*//")
    mkdir -p $out
    echo weights >$out/best.safetensors
    case $name in unfinished*) ;; *) echo weights >$out/$name.safetensors ;; esac
    head -c 3000000 /dev/zero >$out/last.ckpt
esac
"""


def session(folder: Path, script: str, code: int = 0) -> tuple[str, list[list[str]]]:
    """What a script that calls `recipes/session.sh` prints, and the words of every call of Python."""
    (folder / "recipes").mkdir()
    for path in (ROOT / "recipes").iterdir():
        (folder / "recipes" / path.name).symlink_to(path)
    for name in ("broken", "wrong", "fine", "a-x2", "b-x2", "unfinished-x2"):
        (folder / "recipes" / f"{name}.toml").touch()
    for name, rate in (("diverges", "5e-4"), ("diverges-often", "1e-3")):
        text = f'network = "rcan"\nscale = 2\noptimiser = {{ rate = {rate} }}\n'
        (folder / "recipes" / f"{name}.toml").write_text(text)
    (folder / "python").write_text(STAND_IN)
    (folder / "python").chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHON": str(folder / "python"), "REAL": sys.executable, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    made = folder / "calls"
    calls = [shlex.split(line) for line in made.read_text().splitlines()] if made.exists() else []
    return done.stdout + done.stderr, calls


def examples() -> list[str]:
    """The indented blocks of the page that start a session."""
    text = (ROOT / "recipes" / "README.md").read_text("utf-8")
    blocks = re.findall(r"(?:^    .*\n)+", text, flags=re.MULTILINE)
    return [block for block in blocks if "session.sh" in block and "RECIPE" not in block]


needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("sh", "timeout", "split", "tar")), reason="a shell and its tools"
)


@needs_tools
@pytest.mark.parametrize("example", examples())
def test_the_pages_sessions_train_what_they_say(example: str, tmp_path: Path) -> None:
    _, calls = session(tmp_path, example)
    trainings = [call for call in calls if "train" in call]
    assert trainings
    (seconds,) = set(re.findall(r"-t (\d+)", example))
    spare = 45 + 3 * len(trainings) // example.count("session.sh")  # the more start at once, the longer it takes
    for call in trainings:
        args = parser().parse_args(call[call.index("finescale") + 1 :])
        recipe = load(ROOT / "recipes" / Path(args.recipe).name, args.overrides)
        assert args.device == "cuda"
        if args.budget.endswith("s"):  # or it is in steps
            assert int(seconds) - spare - 10 < int(args.budget.rstrip("s")) <= int(seconds) - spare
        assert args.resume
        assert recipe.name == args.recipe.stem
        if args.warm_start:
            assert warm_start.find(args.warm_start, recipe.scale)


@needs_tools
def test_a_failed_run_is_tried_uncompiled_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    said, calls = session(tmp_path, "recipes/session.sh -p p -t 300 -d cpu broken 'wrong --set a=b' fine", 1)
    assert "failed: wrong" in said
    tried = [call for call in calls if "train" in call]
    assert sum("broken.toml" in " ".join(call) for call in tried) == 2
    assert sum("wrong.toml" in " ".join(call) for call in tried) == 1
    assert sum("--set=compile=off" in call for call in tried) == 1
    assert "ended with status 2" in (tmp_path / "home" / "wrong.log").read_text()


@pytest.mark.slow
@needs_tools
def test_what_a_run_has_had_is_part_of_its_budget(tmp_path: Path) -> None:
    for name, spent in (("broken", 0.9), ("fine", 1.0)):
        checkpoints.save(tmp_path / "runs" / name, {"progress": {"seconds": 1000.4, "spent": spent}})
    _, calls = session(tmp_path, "recipes/session.sh -p p -t 300 -d cpu broken fine")
    budgets: dict[str, list[int]] = {}
    for call in calls:
        if "train" in call:
            args = parser().parse_args(call[call.index("finescale") + 1 :])
            budgets.setdefault(args.out.name, []).append(int(args.budget.rstrip("s")))
    assert len(budgets["broken"]) == 2
    assert all(1230 <= seconds <= 1270 for seconds in budgets["broken"])
    assert "fine" not in budgets, "what has finished is left alone"


@pytest.mark.slow
@needs_tools
def test_a_run_that_diverges_starts_again_at_half_the_rate(tmp_path: Path) -> None:
    said, calls = session(tmp_path, "recipes/session.sh -p p -t 300 -d cpu 'diverges --warm-start w' diverges-often", 1)
    assert "failed: diverges-often \n" in said
    tried = {
        name: [" ".join(c) for c in calls if f"/{name}.toml" in " ".join(c)] for name in ("diverges", "diverges-often")
    }
    for (name, first), rate in zip(tried.items(), ("0.00025", "0.0005"), strict=True):
        assert len(first) == 2
        assert f"--out runs/{name} " in first[0]
        assert f"--out runs/{name}-half " in first[1]
        assert f"--set=optimiser.rate={rate}" in first[1]
    assert "--warm-start w" in tried["diverges"][1]
    with tarfile.open(tmp_path / "home" / "results.tar.00") as file:
        assert "runs/diverges-half/diverges.safetensors" in file.getnames()
    # a later session goes on with that
    (tmp_path / "after").mkdir()
    there = "mkdir -p runs/diverges-half; touch runs/diverges-half/last.ckpt;"
    _, calls = session(tmp_path / "after", f"{there} recipes/session.sh -p p -t 300 -d cpu diverges")
    (only,) = (" ".join(call) for call in calls if "train" in call)
    assert "--out runs/diverges-half " in only
    assert "--set=optimiser.rate=0.00025" in only
    # when little is left, that is no use
    (tmp_path / "later").mkdir()
    _, calls = session(tmp_path / "later", "recipes/session.sh -p p -t 60 -d cpu diverges", 1)
    assert sum("train" in call for call in calls) == 1


@needs_tools
def test_results_are_packed_smallest_first_within_their_limit_and_all_logs(tmp_path: Path) -> None:
    said, _ = session(tmp_path, "recipes/session.sh -p p -t 300 -d cpu -k 4 a-x2 b-x2 unfinished-x2")
    with tarfile.open(tmp_path / "home" / "results.tar.00") as file:
        names = file.getnames()
    finals = [f"runs/{name}/{name}.safetensors" for name in ("a-x2", "b-x2")]
    assert sorted(names[:3]) == [*finals, "runs/unfinished-x2/best.safetensors"]
    assert names[3].endswith("/last.ckpt")
    assert names[4:] == [f"home/{name}.log" for name in ("a-x2", "b-x2", "unfinished-x2")]
    assert said.count("left behind: runs/") == 2


@needs_tools
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-d cpu fine", "-p names the pictures"),
        ("-p p -d cpu fine nosuch", "there is no recipe 'nosuch'"),
        ("-p p -d cpu 'recipes/fine.toml --budget 5'", "there is no recipe 'recipes/fine.toml'"),
    ],
)
def test_nothing_is_begun_with_a_wrong_request(words: str, message: str, tmp_path: Path) -> None:
    said, calls = session(tmp_path, f"recipes/session.sh -t 300 {words}", 2)
    assert message in said
    assert not calls
