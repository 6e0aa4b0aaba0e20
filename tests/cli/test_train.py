"""`finescale train` as people run it: interrupted, killed, on several processes."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from tests.conftest import Terminal, hearing_signals, tiny_network
from tests.training.test_loop import assert_same

from finescale.backbones import catalogue as backbones
from finescale.cli.main import main
from finescale.data import store
from finescale.data.crops import Crops
from finescale.data.degradations import Degradation
from finescale.errors import FinescaleError, FinescaleWarning, UsageError
from finescale.evaluation.validation import Validation
from finescale.images.folders import find_pictures
from finescale.inference.engines.pytorch import TorchEngine
from finescale.networks.base import Network
from finescale.networks.catalogue import NETWORKS, Entry
from finescale.networks.unet import UNet
from finescale.training import checkpoints, losses, run
from finescale.training.loop import Progress
from finescale.training.parallel import World
from finescale.training.recipe import Recipe, load
from finescale.training.run import Outcome
from finescale.weights import files
from finescale.weights.header import read_header

RECIPE = """
extends = "fast"
network = "sa-rcan"
scale = 2
budget = 8
save_every = 4
arguments = { channels = 8, groups = 1, blocks = 2, reduction = 4, attention_reduction = 4 }
data = { batch = 4, patch = 12, late_patch = 16, late_from = 0.6, validation_pictures = 2 }
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_store: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.replace("data = {", f"data = {{ train = {json.dumps(str(tiny_store))},"))
    return path


def finescale(*words: object, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A real process."""
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *launcher, "-m", "finescale", "train", *map(str, words), "--no-board", "--device", "cpu"]
    with hearing_signals():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def torchrun(*options: str) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]


def done(process: subprocess.Popen[str]) -> str:
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    assert process.returncode == 0, err[-3000:]
    return out + err


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, averages, optimiser and generators of the last checkpoints, bit for bit."""
    first, second = checkpoints.read(a / "last.ckpt"), checkpoints.read(b / "last.ckpt")
    for part in ("network", "average"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    for index, moments in first["optimiser"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, second["optimiser"]["state"][index][name]), name
    assert torch.equal(first["crops"], second["crops"])
    for part in ("updates", "generators"):
        assert_same({part: first[part]}, {part: second[part]})
    assert first["progress"]["step"] == second["progress"]["step"]


def test_trains_and_writes_a_file_that_explains_itself(
    recipe: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", str(recipe), "--out", str(out), "--device", "cpu", "--validation", str(pictures)]
    assert main(words) == 0
    assert not torch.backends.cudnn.benchmark, "the process has its own setting again"
    shown = capsys.readouterr()
    assert re.search(r"sa-rcan-x2\.safetensors: trained in 8 steps", shown.out)
    assert re.search(r"step 8: validation \d\d\.\d+ dB \(the best so far\)", shown.err)
    header = read_header(out / "sa-rcan-x2.safetensors")
    assert header.notes["steps"] == 8
    assert header.notes["data"]["pictures"] == 4
    assert header.notes["recipe"]["optimiser"]["rate"] == 5e-4
    assert header.notes["validation"]["psnr_y"] > 10
    assert 0.1 < header.notes["validation"]["ssim_y"] < 1
    assert header.notes["licence"] == header.notes["data"]["licence"] == "CC0-1.0"
    assert str(tmp_path) not in json.dumps(header.notes)
    network = files.load(out / "sa-rcan-x2.safetensors")
    average = checkpoints.read(out / "last.ckpt")["average"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, average[name].half().float())
    assert any((out / "board").iterdir())
    # there is a run now: it is not overwritten, and another recipe does not go on with it
    assert main(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    for change, said in {
        "optimiser.rate=1e-3": "optimiser.rate = 0.0005, not 0.001",
        "schedule.shape=linear": "schedule.shape = 'cosine', not 'linear'",
        "degradation.jpeg=[30, 90]": "degradation.jpeg = [0, 0], not [30, 90]",
        "data.patch=14": "data.patch = 12, not 14",
        "loss={l2=1.0}": "loss = {'l1': 1.0}, not {'l2': 1.0}",
        "seed=1": "seed = 0, not 1",
    }.items():
        assert main([*words, "--resume", "--set", change]) == 2
        assert said in capsys.readouterr().err
    assert main([*words, "--resume", "--budget", "10"]) == 0
    assert "going on from step 8, 80.0% of 10" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    shutil.copy(out / "sa-rcan-x2.safetensors", tmp_path / "other")  # the checkpoints were thrown away
    assert main(["train", str(recipe), "--out", str(tmp_path / "other"), "--device", "cpu", "--no-board"]) == 2
    (out / "last.ckpt").write_bytes(b"")
    command = [sys.executable, "-m", "finescale", *words, "--resume", "--budget", "10"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"^finescale: \S+last\.ckpt: .*; going on from previous\.ckpt$", again.stderr, re.MULTILINE)
    assert ".py" not in again.stderr


@pytest.mark.slow
def test_scores_of_other_pictures_do_not_count(recipe: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", str(recipe), "--out", str(out), "--device", "cpu", "--no-board"]
    assert main([*words, "--validation", str(pictures)]) == 0
    first = read_header(out / "sa-rcan-x2.safetensors").notes["validation"]
    noise = tmp_path / "noise"
    noise.mkdir()
    Image.effect_noise((64, 64), 100).save(noise / "a.png")
    assert main([*words, "--resume", "--budget", "10", "--validation", str(noise)]) == 0
    second = read_header(out / "best.safetensors").notes  # though worse than what other pictures gave
    assert (second["steps"], second["validation"]["set"]) == (10, "noise")
    assert second["validation"]["psnr_y"] < first["psnr_y"]
    assert main([*words, "--resume", "--budget", "12", "--validation", ""]) == 0
    assert "validation" not in read_header(out / "sa-rcan-x2.safetensors").notes


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE should be a number, not 'two'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and its processes cannot be joined ("),
    ],
)
def test_half_an_environment_of_torchrun_is_one_sentence(
    variables: dict[str, str],
    said: str,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"finescale: {said}")
    assert shown.count("\n") == 1


def test_errors_are_one_sentence(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints.save(tmp_path, {"weights": {}}).rename("other.ckpt")
    for words, said in {
        ("--data", "nowhere"): "nowhere: not a packed store",
        ("--data", "2024"): "2024: not a packed store",
        ("--set", "network=rcam"): "there is no network 'rcam'; did you mean 'rcan'?",
        ("--set", "arguments.channel=3"): "has no argument 'channel'; did you mean 'channels'?",
        ("--set", "arguments.channels=wide"): "sa-rcan: arguments.channels: should be a valid integer, not 'wide'",
        ("--set", "seed=99999999999999999999"): "seed: should be less than",
        ("--set", "data.batch=4000000000000"): "run: out of memory (a smaller data.batch",
        ("--set", "loss.charbonier=1"): "loss: there is no loss 'charbonier'; did you mean 'charbonnier'?",
        ("--set", "encoder=imagenet"): "sa-rcan has no encoder",
        ("--budget", "3", "--set", "budget=5"): "--set budget: is given by an option of its own, too",
        ("--warm-start", "gone.safetensors"): "gone.safetensors",
        ("--device", "cuda:99"): "cuda:99",
        ("--schedule", "slow"): "there is no schedule 'slow'",
        ("--warm-start", "other.ckpt"): "other.ckpt: a checkpoint without averaged weights",
    }.items():
        code = 1 if "other.ckpt" in said or "nowhere" in said or "2024" in said or "memory" in said else 2
        assert main(["train", str(recipe), "--out", str(tmp_path / "run"), *words]) == code
        shown = capsys.readouterr()
        assert said in shown.err
        assert len([line for line in shown.err.splitlines() if not line.startswith("no validation")]) == 1
        assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX systems only")
def test_nothing_is_read_or_left_before_the_folder_is_ours(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*command, "--set", 'groups=[{match="nonsense"}]']) == 2
    assert not (tmp_path / "run").exists()

    def read_last(folder: Path) -> None:
        raise AssertionError("another process may be writing it")

    monkeypatch.setattr(checkpoints, "read_last", read_last)
    with checkpoints.alone(tmp_path / "run"):
        assert main([*command, "--resume"]) == 1
    assert "another process is training there" in capsys.readouterr().err


def test_what_a_recipe_says_reaches_the_training(
    recipe: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = backbones.build("resnet18")
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    given: dict[str, Any] = {}

    def training(network: UNet, crops: Crops, recipe: Recipe, objective: losses.Mix, **_: object) -> None:
        given.update(network=network, crops=crops, objective=objective)
        raise FinescaleError("enough")

    def validation(*words: object) -> None:
        given["validation"] = words

    monkeypatch.setattr(run, "Training", training)
    monkeypatch.setattr("finescale.evaluation.validation.Validation", validation)
    small = "{widths=[32, 16, 16, 8, 8], blocks=[1, 1, 1, 1], head=8, encoder='resnet18'}"
    keys = ["network=unet-9", f"arguments={small}", f"encoder={json.dumps(str(tmp_path / 'encoder.pth'))}", "seed=7"]
    keys += ["degradation.jpeg=[30, 90]", "loss={l1=0.5, tv=0.1}", "data.patch=32", "data.late_patch=32"]
    words = ["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu", "--validation", str(pictures)]
    assert main([*words, "--no-board", *(word for key in keys for word in ("--set", key))]) == 1
    degradation = Degradation(jpeg=(30, 90))
    assert given["validation"] == (str(pictures), 2, torch.device("cpu"), 2, degradation)
    assert (given["crops"].degradation, given["crops"].generator.initial_seed()) == (degradation, 7)
    assert given["objective"].weights == {"l1": 0.5, "tv": 0.1}
    assert torch.equal(
        given["network"].encoder.get_parameter("network.conv1.weight"), encoder.get_parameter("conv1.weight")
    )


@pytest.mark.slow
def test_a_validation_on_pairs(
    recipe: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for path in pictures.iterdir():
        with Image.open(path) as image:
            image.resize((image.width // 2, image.height // 2)).save(small / path.name)
    list(store.prepare(find_pictures([pictures]), tmp_path / "pairs", (3,), small={2: small}))
    remark = "validation scores another task"
    words = ["train", str(recipe), "--device", "cpu", "--no-board", "--budget", "1"]
    for number, (train_on, validate_on, scale, told) in enumerate(
        [
            ("pairs", pictures, 2, 1),
            ("pairs", tmp_path / "pairs", 2, 0),
            ("pairs", pictures, 3, 0),
            ("", pictures, 2, 0),
        ]
    ):
        keys = [*words, "--validation", str(validate_on), "--set", f"scale={scale}"]
        keys += ["--data", str(tmp_path / train_on)] if train_on else []
        for more in (["--dry-run"], ["--out", str(tmp_path / f"run{number}")]):
            assert main([*keys, *more]) == 0
            shown = capsys.readouterr()
            assert (shown.out + shown.err).count(remark) == told, (train_on, validate_on, scale, more)
    notes = [read_header(tmp_path / f"run{n}" / "sa-rcan-x2.safetensors").notes["validation"] for n in (0, 1)]
    assert notes[1]["set"] == "pairs"
    assert notes[0]["psnr_y"] != notes[1]["psnr_y"]


@pytest.mark.slow
def test_a_warm_start_is_the_first_to_be_validated(
    recipe: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["train", str(recipe), "--device", "cpu", "--validation", str(pictures)]
    assert main([*words, "--no-board", "--out", str(tmp_path / "first")]) == 0
    start = tmp_path / "first" / "sa-rcan-x2.safetensors"
    score = Validation(str(pictures), 2, torch.device("cpu"), 2)(files.load(start))[0]
    keys = ["optimiser.rate=0.3", "schedule.warmup=0.0", "save_every=2", "loss={l1=1.0, tv=1e-6}"]  # only harms
    words += ["--warm-start", str(start), *(word for key in keys for word in ("--set", key))]
    capsys.readouterr()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        if out == parts:  # a kill before the first checkpoint left curves, which are not shown twice
            shutil.copytree(whole / "board", parts / "board")
        assert main([*words, "--out", str(out)]) == 0
        said = capsys.readouterr().err
        assert f"step 0: validation {score:.3f} dB, the start" in said
        assert f"(best: {score:.3f})" in said
        assert f"{out / 'best.safetensors'} scored better in validation, {score:.3f} dB instead of " in said
    best, end = (read_header(whole / f"{name}.safetensors").notes for name in ("best", "sa-rcan-x2"))
    assert (best["steps"], end["steps"]) == (0, 8)
    assert best["started_from"] == end["started_from"]
    assert best["validation"]["psnr_y"] == pytest.approx(score, abs=1e-3)
    (parts / "previous.ckpt").replace(parts / "last.ckpt")  # a kill lost the later steps
    (parts / "sa-rcan-x2.safetensors").unlink()
    assert main([*words, "--resume", "--out", str(parts)]) == 0
    assert "the start" not in capsys.readouterr().err
    assert_same_run(whole, parts)
    assert checkpoints.read(parts / "last.ckpt")["progress"]["best"] == pytest.approx(score, abs=1e-3)
    assert read_header(parts / "best.safetensors").notes["steps"] == 0
    events = EventAccumulator(str(parts / "board"))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("validation PSNR-Y")]
    assert [step for step, _ in points] == [0, 8]
    assert points[0][1] == pytest.approx(score, abs=1e-3)
    texts = events.Tensors("recipe/text_summary")
    assert [text.step for text in texts] == [0, 0], "of the two that began (texts stay), and not of the one resumed"
    assert b"    rate = 0.3\n" in texts[-1].tensor_proto.string_val[0]
    tags = set(events.Tags()["scalars"])
    assert {"loss", "loss/l1", "loss/tv"} <= tags


def test_a_run_goes_on_by_the_recipe_in_its_folder(
    recipe: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    more = ["--device", "cpu", "--no-board"]
    keys = ["optimiser.rate=2e-4", "loss={l1=1.0, tv=1e-6}", "seed=5"]
    first = ["train", str(recipe), *more, "--out", str(out), "--validation", str(pictures)]
    assert main([*first, *(word for key in keys for word in ("--set", key))]) == 0
    kept = load(out / "run.toml")
    assert kept.resolved() == checkpoints.read(out / "last.ckpt")["recipe"]
    recipe.unlink()
    capsys.readouterr()
    again = ["train", "--resume", "-o", str(out), *more]
    assert main([*again, "--budget", "10"]) == 0
    shown = capsys.readouterr()
    assert "going on from step 8, 80.0% of 10" in shown.err
    assert "step 10: validation" in shown.err
    assert str(load(out / "run.toml").budget) == "10", "what it goes by now"
    assert main(again) == 0
    assert "trained in 10 steps" in capsys.readouterr().out
    assert main([*again, "--set", "seed=6"]) == 2
    assert "this run was started with seed = 5, not 6" in capsys.readouterr().err
    (out / "run.toml").unlink()
    for words, said in (
        (again, "run.toml: is not there, so the RECIPE that the run was started with has to be named"),
        (["train", "--resume"], "a RECIPE is missing"),
        (["train", "-o", str(out)], "a RECIPE is missing"),
        ([*again, "--schedule", "fast"], "takes no --schedule"),
    ):
        assert main(words) == 2
        shown = capsys.readouterr()
        assert said in shown.err
        assert shown.err.count("\n") == 1


@pytest.mark.slow
def test_a_network_whose_class_was_edited_is_one_sentence(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(blocks: int, slope: float) -> type[Network]:
        class Mine(Network):
            def __init__(self, *, scale: int, blocks: int = blocks, slope: float = slope) -> None:
                super().__init__(scale=scale)
                layers = [torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(blocks)]
                self.body = torch.nn.Sequential(*layers, torch.nn.LeakyReLU(slope))
                self.tail = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2))

            def enlarge(self, x: torch.Tensor) -> torch.Tensor:
                return self.tail(self.body(x))

        return Mine

    out = tmp_path / "run"
    words = ["train", str(recipe), "--device", "cpu", "--no-board", "--out", str(out), "--resume"]
    words += ["--set", "network=mine", "--set", "arguments={}"]
    monkeypatch.setitem(NETWORKS, "mine", Entry(mine(2, 0.1), "a network of one's own"))
    assert main([*words, "--budget", "2"]) == 0
    for edited, said in (
        (mine(3, 0.1), "this run was started with arguments.blocks = 2, not 3 as it is now"),
        (mine(2, 0.3), "this run was started with arguments.slope = 0.1, not 0.3 as it is now"),
    ):
        monkeypatch.setitem(NETWORKS, "mine", Entry(edited, "a network of one's own"))
        assert main([*words, "--budget", "4"]) == 2
        assert said in capsys.readouterr().err
    state = checkpoints.read(out / "last.ckpt")
    del state["arguments"]  # as in checkpoints of before
    checkpoints.save(out, state)
    monkeypatch.setitem(NETWORKS, "mine", Entry(mine(3, 0.1), "a network of one's own"))
    assert main([*words, "--budget", "4"]) == 2
    assert "the checkpoint's weights do not fit the network, whose class is another" in capsys.readouterr().err
    monkeypatch.setitem(NETWORKS, "mine", Entry(mine(2, 0.1), "a network of one's own"))
    assert main([*words, "--budget", "4"]) == 0


@pytest.mark.slow
def test_a_degradation_of_ones_own(
    recipe: Path, pictures: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []

    class Dark:
        NUMBERS, BLOCKS = 2, slice(1, 2)

        def __call__(self, low: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
            assert chance.shape == (2, len(low))
            assert len(chance[1].unique()) == 1, "the same for all crops of a batch"
            sizes.append(tuple(low.shape))
            return low * chance[0].to(low)[:, None, None, None]

    keys = ["data.late_patch=12", f"data.validation={pictures}", "loss={l1=1.0, tv=1e-6}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options: dict[str, Any] = {"device": "cpu", "screen": False, "board": False, "make_validation": Validation}
    run.train(load(recipe, [*keys, "budget=6"]), whole, degradation=Dark(), **options)
    assert sizes[0][0] == 1, "pictures of the validation"
    assert sizes[-1] == (4, 3, 12, 12)
    run.train(load(recipe, [*keys, "budget=6", "save_every=2"]), parts, degradation=Dark(), **options)
    (parts / "previous.ckpt").replace(parts / "last.ckpt")
    run.train(load(recipe, [*keys, "budget=6"]), parts, degradation=Dark(), resume=True, **options)
    assert_same_run(whole, parts)
    assert read_header(parts / "sa-rcan-x2.safetensors").notes["degradation"] == "Dark"
    with pytest.raises(UsageError, match="was started with the degradation Dark, not None"):
        run.train(load(recipe, [*keys, "budget=8"]), parts, resume=True, **options)
    with pytest.raises(UsageError, match="the recipe has one of its own"):
        run.train(load(recipe, ["degradation.jpeg=[30, 90]"]), tmp_path / "both", degradation=Dark(), **options)
    run.train(load(recipe, ["degradation.jpeg=[30, 90]", "budget=1"]), tmp_path / "its own", **options)
    assert not [one for one in recwarn if issubclass(one.category, FinescaleWarning)]


def test_an_unwritable_folder_is_one_sentence(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["train", str(recipe), "--out", str(tmp_path / "file" / "run"), "--device", "cpu"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"finescale: {tmp_path / 'file'}")
    assert shown.count("\n") == 1


def test_a_checkpoint_goes_on_with_its_own_pictures(
    recipe: Path, pictures: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu", "--no-board"]
    assert main([*words, "--budget", "2"]) == 0
    found = find_pictures([pictures])
    for name, chosen, licence, said in (
        ("other", found, "own", "licence = 'CC0-1.0', not 'own' as"),
        ("fewer", found[1:], "CC0-1.0", "pictures = 4, not 3 as"),
    ):
        list(store.prepare(chosen, tmp_path / name, (2,), licence=licence))
        assert main([*words, "--budget", "4", "--resume", "--data", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
    shutil.copytree(tiny_store, tmp_path / "moved")
    assert main([*words, "--budget", "4", "--resume", "--data", str(tmp_path / "moved")]) == 0


@pytest.mark.slow
def test_a_finished_run_is_left_alone(recipe: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", str(recipe), "--out", str(out), "--device", "cpu", "--no-board", "--resume", "--budget", "2"]
    assert main([*words, "--validation", str(pictures)]) == 0
    file = out / "sa-rcan-x2.safetensors"
    before = file.stat()
    parts = [out / ".best.safetensors.0123abcd.part", out / ".sa-rcan-x2.safetensors.0123abcd.part", out / ".a.0.part"]
    for part in parts:
        part.touch()
    assert main(words) == 0  # without a validation, whose score is in the file
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [part.exists() for part in parts] == [False, False, True], "what a kill left goes, what is another's stays"
    file.unlink()
    assert main(words) == 0
    assert read_header(file).notes["steps"] == 2
    kept = file.read_bytes()
    assert main([*words[:-1], "4"]) == 0
    file.write_bytes(kept)  # killed before the new one was written
    assert main([*words[:-1], "4"]) == 0
    assert read_header(file).notes["steps"] == 4


@pytest.mark.slow
def test_curves_do_not_double_back_after_a_kill(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    words = ["train", str(recipe), "--device", "cpu", "--set", "save_every=2", "--out", str(out)]
    assert main(words) == 0
    (out / "previous.ckpt").replace(out / "last.ckpt")  # the later steps are lost
    (out / "sa-rcan-x2.safetensors").unlink()
    assert main([*words, "--resume"]) == 0
    events = EventAccumulator(str(out / "board"))
    events.Reload()
    steps = [event.step for event in events.Scalars("loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 8
    assert steps[0] < 6, "what was before the kill is there"  # where the second run began


@pytest.mark.slow
def test_a_warm_started_u_net_goes_on_without_what_it_started_from(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = recipe.read_text().replace('extends = "fast"', 'extends = "fast-unet"').replace('"sa-rcan"', '"unet-1"')
    small = "encoder = 'resnet18', widths = [16, 8, 8, 8, 8], blocks = [1, 1, 1, 1], head = 8"
    recipe.write_text(re.sub(r"arguments = .*", f"arguments = {{ {small} }}", text).replace("= 12", "= 16"))
    words = ["train", str(recipe), "--device", "cpu", "--no-board", "--set", "optimiser.kind=adam", "--out"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*words, str(first), "--budget", "1"]) == 0
    start = ["--warm-start", str(first / "unet-1-x2.safetensors")]
    assert main([*words, str(second), "--budget", "1", *start]) == 0
    assert main([*words, str(second), "--budget", "2", "--resume"]) == 0
    notes = read_header(second / "unet-1-x2.safetensors").notes
    assert (notes["steps"], notes["recipe"]["warm_start"]) == (2, "unet-1-x2.safetensors")
    assert main([*words, str(first), "--budget", "2", "--resume", *start]) == 0, "nor does it start from it now"
    assert capsys.readouterr().err.count("going on from step 1") == 2


@pytest.mark.parametrize(("resumed", "hint"), [(False, "the same command with --resume"), (True, "the same command")])
def test_under_torchrun_a_stop_does_not_name_the_command_of_one_process(
    resumed: bool,
    hint: str,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finescale.training.run.train", lambda *_, **__: Outcome(Progress(step=3), None))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", str(recipe), "--out", "run", *(["--resume"] if resumed else [])]) == 0
    assert capsys.readouterr().err == f"run: stopped at step 3 and saved; go on with: {hint}\n"


def test_a_precision_that_is_slow_here_is_told(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("inference.engines.pytorch", "training.measure", "training.loop"):
        monkeypatch.setattr(f"finescale.{module}.fast_bfloat16", lambda device: False)
    with pytest.warns(FinescaleWarning) as found:
        TorchEngine(tiny_network(), torch.device("cpu"), "bfloat16")
    words = ["train", str(recipe), "--device", "cpu", "--no-board", "--budget", "1"]
    for precision, count in (("bfloat16", 1), ("auto", 0)):
        for more in (["--dry-run"], ["--out", str(tmp_path / precision)]):
            said = main([*words, "--set", f"precision={precision}", *more]), capsys.readouterr()
            assert said[0] == 0
            assert (said[1].out + said[1].err).count(str(found[0].message)) == count


def test_auto_precision_is_that_of_the_run_that_goes_on(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu", "--no-board", "--resume"]
    for fast, budget in (
        (True, "2"),
        (False, "4"),
        (True, "6"),
    ):  # one kind of machine, another, the first
        monkeypatch.setattr("finescale.training.loop.fast_bfloat16", lambda device, fast=fast: fast)
        assert main([*words, "--budget", budget]) == 0, capsys.readouterr().err
    header = read_header(tmp_path / "run" / "sa-rcan-x2.safetensors")
    assert (header.notes["recipe"]["precision"], header.notes["steps"]) == ("bfloat16", 6)
    assert main([*words, "--budget", "8", "--set", "precision=float32"]) == 2
    assert "started with precision = 'bfloat16', not 'float32'" in capsys.readouterr().err


def test_pictures_too_small_for_crops_are_told(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smaller sides of the four are 36, 42, 48 and 48."""
    words = ["train", str(recipe), "--device", "cpu", "--no-board", "--budget", "1", "--set", "data.batch=1"]
    words += ["--set", "data.patch=36", "--set", "data.late_patch=44"]
    for more in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        assert main([*words, *more]) == 0
        shown = capsys.readouterr()
        said = [line for line in (shown.out + shown.err).splitlines() if "too small" in line]
        assert [line.removeprefix("# ") for line in said] == [
            "2 of 4 pictures are too small for crops of 44 and are left out"
        ]


def test_a_run_that_cannot_be_made_leaves_the_terminal_its_cursor(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    (tmp_path / "file").touch()
    losses = ["--set", "loss={content=1.0}", "--set", "perception_file=gone.pth"]
    seen = []
    for out, words in ((tmp_path / "run", losses), (tmp_path / "file" / "run", [])):
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert main(["train", str(recipe), "--out", str(out), "--device", "cpu", *words]) == 1
        seen.append(cast(Terminal, sys.stderr).getvalue())
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert "gone.pth" in seen[0]
    assert hide in seen[0], "the bar was there"
    for text in seen:
        assert text.count(hide) == text.count(show)


def test_a_dry_run_says_what_it_would_do(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = '[{match="tail", rate=2.0}, {match="", frozen_until=0.1}]'
    words = ["train", str(recipe), "--dry-run", "--device", "cpu", "--budget", "1h", "--set", f"groups={groups}"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert 'budget = "1h"' in shown
    assert re.search(r"# tail: [\d,]+ parameters at a rate of up to 0\.001\n", shown)
    assert re.search(r"# all parameters|# the rest: [\d,]+ parameters at a rate of up to 0\.0005, from 0\.1 of", shown)
    assert re.search(r"# memory: about [\d.]+ GiB", shown)
    assert re.search(r"# time: .* s a step .* steps in 1:00:00", shown)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["data.patch=80", "data.late_patch=80"], 1, "no picture of the store holds a low-resolution crop of 80 x 80"),
        (["data.late_patch=80"], 1, "no picture of the store holds a low-resolution crop of 80 x 80"),
        (["scale=4", "data.train={store}"], 1, "has no pictures for x4, only for x2"),
    ],
)
def test_a_dry_run_finds_what_training_would_fail_on(
    words: list[str],
    code: int,
    said: str,
    recipe: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    list(store.prepare(find_pictures([pictures]), tmp_path / "x2", (2,)))
    keys = [word for key in words for word in ("--set", key.replace("{store}", str(tmp_path / "x2")))]
    for more in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        assert main(["train", str(recipe), "--device", "cpu", *keys, *more]) == code
        assert said in capsys.readouterr().err


def test_a_dry_run_of_processes_that_cannot_share_the_batch(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finescale.training.run.join", lambda device: World(0, 3, torch.device("cpu")))
    monkeypatch.setattr(World, "close", lambda world: None)
    assert main(["train", str(recipe), "--dry-run"]) == 2
    assert "data.batch: 4 crops cannot be shared equally by 3 processes" in capsys.readouterr().err


def test_a_dry_run_without_the_memory_for_it_is_one_sentence(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = recipe.read_text().replace("sa-rcan", "rcan").replace(", attention_reduction = 4", "")
    recipe.write_text(text.replace("patch = 12", "patch = 10_000_000"))  # crops larger than any address space
    store = str(tmp_path / "gone")  # one that is there would be refused first: its pictures are smaller
    words = ["train", str(recipe), "--dry-run", "--device", "cpu", "--data", store]
    assert main(words) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("finescale: rcan-x2: out of memory (a smaller data.batch")
    assert shown.count("\n") == 1


@pytest.mark.slow
def test_a_batch_too_small_for_batch_norms_is_one_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for network, patch, reason in (
        ("unet-1", 16, "data.batch: one crop of 16 x 16 is too little for the batch norms of unet-1"),
        ("unet-10", 48, "data.batch: one crop is too little for the batch norms of unet-10"),  # means of whole crops
    ):
        keys = [f"network={network}", "arguments={}", "data.batch=1", f"data.patch={patch}", "data.late_patch=48"]
        small = [word for key in keys for word in ("--set", key)]
        for more in (["--dry-run"], ["--out", str(tmp_path / "run")]):
            assert main(["train", str(recipe), *small, "--device", "cpu", *more]) == 2
            said = capsys.readouterr().err
            assert reason in said
            assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("device", "code"), [("cpu:0", 0), ("cpu:3", 2)])
def test_the_cpu_by_number(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, device: str, code: int
) -> None:
    words = ["train", str(recipe), "--budget", "1", "--no-board", "--out", str(tmp_path / "run"), "--device", device]
    assert main(words) == code
    assert (tmp_path / "run").exists() == (code == 0), capsys.readouterr().err


def test_a_dry_run_of_batch_norms_over_one_position(capsys: pytest.CaptureFixture[str]) -> None:
    """ResNeSt's attention normalises 1 x 1 maps, which takes two crops at least."""
    file = Path(__file__).parents[2] / "recipes" / "unet-10-x2.toml"
    assert main(["train", str(file), "--dry-run", "--device", "cpu", "--set", "data.patch=32"]) == 0
    assert "s a step" in capsys.readouterr().out


@pytest.mark.slow
def test_killed_again_and_again_equals_uninterrupted(recipe: Path, tmp_path: Path) -> None:
    steps = ["--budget", "120", "--set", "save_every=3"]
    done(finescale(recipe, "--out", tmp_path / "whole", *steps))
    dice = random.Random()
    killed = 0
    for _ in range(3):
        process = finescale(recipe, "--out", tmp_path / "parts", *steps, "--resume")
        wait_for(tmp_path / "parts" / "last.ckpt", process)
        before = (tmp_path / "parts" / "last.ckpt").stat().st_mtime_ns
        while process.poll() is None and (tmp_path / "parts" / "last.ckpt").stat().st_mtime_ns == before:
            time.sleep(0.005)  # until it has come further than the one before it
        time.sleep(dice.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 1
    done(finescale(recipe, "--out", tmp_path / "parts", *steps, "--resume"))
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_ends_well(recipe: Path, tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    out = tmp_path / "run"
    process = finescale(recipe, "--out", out, "--budget", "1M", "--set", "loss={l1=1.0}")
    wait_for(out / "last.ckpt", process)
    process.send_signal(number)
    if name != "SIGINT":  # as shell and system do
        process.send_signal(number)
    shown = done(process)
    (again,) = re.findall(r"stopped at step \d+ and saved; go on with: (.*)", shown)
    words = ["--budget", "1M", "--set", "loss={l1=1.0}", "--no-board", "--device", "cpu", "--resume"]
    assert shlex.split(again) == ["finescale", "train", str(recipe), "--out", str(out), *words]
    assert "Traceback" not in shown
    step = int(re.findall(r"stopped at step (\d+)", shown)[0])
    assert checkpoints.read(out / "last.ckpt")["progress"]["step"] == step


def close(a: Path, b: Path, tolerance: float) -> None:
    first, second = (checkpoints.read(path / "last.ckpt") for path in (a, b))
    assert first["progress"]["step"] == second["progress"]["step"]
    for name, value in first["network"].items():
        torch.testing.assert_close(value, second["network"][name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.slow
def test_a_budget_that_is_spent_already_is_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(recipe), "--device", "cpu", "--no-board", "--set", "save_every=2"]
    assert main([*words, "--out", str(tmp_path / "run"), "--budget", "6"]) == 0
    (tmp_path / "cut").mkdir()
    shutil.copy(tmp_path / "run" / "previous.ckpt", tmp_path / "cut" / "last.ckpt")
    step = checkpoints.read(tmp_path / "cut" / "last.ckpt")["progress"]["step"]
    assert 0 < step < 6
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "cut"), "--budget", str(step), "--resume"]) == 2
    assert f"budget: {step} is no more than the run has had already ({step} steps" in capsys.readouterr().err
    assert not (tmp_path / "cut" / "sa-rcan-x2.safetensors").exists()
    assert main([*words, "--out", str(tmp_path / "cut"), "--budget", "6", "--resume"]) == 0


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(recipe: Path, tmp_path: Path) -> None:
    # With so large an epsilon Adam's step is the gradient itself, so equal weights mean equal gradients.
    plain = [
        "precision=float32",
        "optimiser.epsilon=1.0",
        "optimiser.rate=1.0",
        "schedule.warmup=0.0",
        "optimiser.clip=0.0",
        "degradation.noise=[0, 9]",
        "degradation.jpeg=[20, 90]",
    ]
    options: list[Any] = ["--budget", "3", *(word for key in plain for word in ("--set", key))]
    done(finescale(recipe, "--out", tmp_path / "one", *options))
    for kind in ("ddp", "fsdp"):
        words = [recipe, "--out", tmp_path / kind, *options, "--set", f"parallel={kind}"]
        shown = done(finescale(*words, launcher=torchrun()))
        assert shown.count("trained in 3 steps") == 1  # one of them speaks and writes
        close(tmp_path / "one", tmp_path / kind, 2e-5)
        weights = [files.load(tmp_path / name / "sa-rcan-x2.safetensors").state_dict() for name in ("one", kind)]
        for name, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][name], rtol=2e-3, atol=2e-3)
    # copies on several processes are those of one; parts go on as parts alone
    longer = [*options, "--budget", "4", "--resume"]
    for folder, kind, launcher, said in (
        ("ddp", "ddp", (), None),
        ("fsdp", "fsdp", torchrun(), None),
        ("fsdp", "fsdp", (), "parallel: this run is of 'fsdp' on several processes, and goes on as that alone"),
        ("fsdp", "ddp", torchrun(), "parallel: this run is of 'fsdp' on several processes, and goes on as that alone"),
        ("one", "fsdp", torchrun(), "parallel: this run was begun without 'fsdp' on several processes"),
    ):
        words = [recipe, "--out", tmp_path / folder, *longer, "--set", f"parallel={kind}"]
        process = finescale(*words, launcher=launcher)
        if said is None:
            assert "trained in 4 steps" in done(process)
        else:
            shown = process.communicate(timeout=240)[1]
            assert process.returncode != 0
            assert said in shown


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_the_run_goes_on(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [recipe, "--out", out, "--budget", "60", "--set", "save_every=5", "--resume"]
    process = finescale(*words, launcher=torchrun("--max-restarts=1"))
    wait_for(out / "previous.ckpt", process)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(workers.split()[-1]), signal.SIGKILL)
    shown = done(process)
    assert re.search(r"going on from step [1-9]\d*", shown)
    assert checkpoints.read(out / "last.ckpt")["progress"]["step"] == 60
    assert files.load(out / "sa-rcan-x2.safetensors").scale == 2
