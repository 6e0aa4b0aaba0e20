import io
import math
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import SHIPPED_WEIGHTS
from torch import Tensor

from finescale.atomic import sha256
from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import benchmark, plots, report, sets
from finescale.evaluation.arrays import CLEAN, Damage, downscale, to_pixels, to_tensor
from finescale.evaluation.benchmark import Row, Run, run, score_picture
from finescale.evaluation.contenders import Contender, check_names, contender, labels
from finescale.evaluation.metrics import Pixels, psnr_y
from finescale.evaluation.scoring import Pair, means, score_pair
from finescale.evaluation.speed import measure, measure_apart
from finescale.images.picture import mod_crop
from finescale.images.resize import resize
from finescale.inference import machine
from finescale.layers.bicubic import Border
from finescale.networks.catalogue import build
from finescale.weights.files import save
from finescale.weights.header import read_header


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file of a tiny network that repeats pixels: its last convolution is zero."""
    network = build("rcan", scale=2, channels=4, groups=1, blocks=1, reduction=2, tail="direct")
    for parameter in network.get_submodule("tail").parameters():
        torch.nn.init.zeros_(parameter)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save(network, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    place = tmp_path / "mine"
    place.mkdir()
    for name, size in (("2", (41, 30)), ("10", (36, 33))):
        Image.fromarray(generator.integers(0, 256, (*size, 3)).astype(np.uint8)).save(place / f"{name}.png")
    return place


# x2 and x4 are the protocol's own figures; x3 was measured with this code
BICUBIC = {
    ("Set5", 2): (33.674, 0.9303),
    ("Set5", 3): (30.405, 0.8689),
    ("Set5", 4): (28.430, 0.8111),
    ("Set14", 2): (30.326, 0.8699),
    ("Set14", 3): (27.634, 0.7759),
    ("Set14", 4): (26.091, 0.7048),
}
PAPERS = {2: 33.656, 3: 30.390, 4: 28.420}


@pytest.mark.parametrize(("name", "scale"), BICUBIC)
def test_bicubic_to_the_last_digit(shared_data: Path, name: str, scale: int) -> None:
    result = run(["bicubic"], [sets.find(name, shared_data)], scale, timed_size=None)
    average = means(result.rows[0].scores[name])
    assert (round(average["psnr"], 3), round(average["ssim"], 4)) == BICUBIC[name, scale]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == "sa-rcan-light-x4" else pytest.mark.slow)
        for path in SHIPPED_WEIGHTS
        if "Set5" in read_header(path).notes.get("figures", {})
    ],
)
def test_shipped_networks_score_what_their_files_say(shared_data: Path, path: Path) -> None:
    header = read_header(path)
    settings = {"engine": "torch", "precision": "float32"}
    result = run([str(path)], [sets.find("Set5", shared_data)], header.scale, settings=settings, timed_size=None)
    average, said = means(result.rows[0].scores["Set5"]), header.notes["figures"]["Set5"]
    assert average["psnr"] == pytest.approx(said["psnr"], abs=2e-3)
    assert average["ssim"] == pytest.approx(said["ssim"], abs=1e-4)


@pytest.mark.parametrize("scale", PAPERS)
def test_the_papers_bicubic_row(shared_data: Path, scale: int) -> None:
    result = run(["bicubic-y"], [sets.find("Set5", shared_data)], scale, timed_size=None)
    assert round(means(result.rows[0].scores["Set5"])["psnr"], 3) == PAPERS[scale]


def test_the_other_border_moves_the_third_digit(shared_data: Path) -> None:
    found = sets.find("Set5", shared_data)
    figures = []
    borders: tuple[Border, ...] = ("replicate", "mirror")
    for border in borders:
        result = run(["bicubic"], [found], 4, timed_size=None, border=border)
        assert result.settings["border"] == border
        figures.append(means(result.rows[0].scores["Set5"])["psnr"])
    assert 0 < abs(figures[0] - figures[1]) < 0.003


def test_small_pictures_that_are_noisy(shared_data: Path) -> None:
    high = mod_crop(sets.read_rgb(sets.find("Set5", shared_data).pictures[0]), 2)
    low = downscale(high, 2).float()
    noise = downscale(high, 2, damage=Damage(noise=5)).float() - low
    assert float(noise[(low > 20) & (low < 235)].std()) == pytest.approx(5, abs=0.05)
    assert float(noise.mean((1, 2)).abs().max()) < 0.1
    both = Damage(2.5, 40)
    assert (CLEAN.of("Set5"), both.of("Set5")) == ("Set5", "Set5-noise2.5-jpeg40")
    assert both.settings == {"noise": 2.5, "jpeg": 40}
    assert torch.equal(downscale(high, 2, damage=both), Damage(jpeg=40).to(downscale(high, 2, damage=Damage(2.5))))


def test_small_pictures_that_have_been_jpegs(shared_data: Path) -> None:
    """The same as by hand; under another name, so that nothing published stands beside it."""
    found = sets.find("Set5", shared_data)
    result = run(["bicubic"], [found], 4, timed_size=None, damage=Damage(jpeg=40))
    assert list(result.sets) == ["Set5-jpeg40"]
    assert result.settings["jpeg"] == 40
    assert result.as_json()["published"] == []
    scores = {score.name: score.psnr for score in result.rows[0].scores["Set5-jpeg40"]}
    for path in found.pictures:
        high = mod_crop(sets.read_rgb(path), 4)
        file = io.BytesIO()
        Image.fromarray(to_pixels(downscale(high, 4))).save(file, "JPEG", quality=40)
        low = to_tensor(np.asarray(Image.open(file)))
        assert scores[path.stem] == pytest.approx(psnr_y(to_pixels(resize(low, scale=4)), high, 4), abs=1e-9)
    with pytest.raises(UsageError, match="'bicubic-y' is for clean pictures"):
        run(["bicubic-y"], [found], 4, timed_size=None, damage=Damage(jpeg=40))


def test_networks_references_and_missing_weights(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("FINESCALE_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: list[tuple[str, str]] = []
    result = run(
        ["nearest", str(tiny), "rcan"],
        [sets.find(str(folder))],
        2,
        timed_size=None,
        command=["finescale", "bench", "a b"],
        progress=lambda network, picture: told.append((network, picture)),
    )
    nearest, network, missing = result.rows
    assert missing.missing is not None
    assert "no trained weights for rcan x2" in missing.missing
    assert told == [("nearest", "2"), ("nearest", "10"), ("tiny", "2"), ("tiny", "10")]
    assert [score.name for score in network.scores["mine"]] == ["2", "10"]
    for repeated, made in zip(nearest.scores["mine"], network.scores["mine"]):
        assert made.psnr == pytest.approx(repeated.psnr, abs=1e-9)  # repeats pixels: clipped and rounded alike
        assert made.picture_seconds is None, "nothing is timed where no timing is asked for"
    written = result.as_json()
    assert written["command"] == "finescale bench 'a b'"
    assert len(written["networks"][1]["sha256"]) == 64
    assert written["networks"][1]["parameters"] > 0
    assert "picture_seconds" not in written["networks"][1]["sets"]["mine"]["pictures"][0]
    assert written["published"] == [], "nobody published figures on this set"
    assert written["networks"][2] == {"name": "rcan", "missing": missing.missing, "sets": {}}


def test_nothing_to_run_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FinescaleError, match="no trained weights for rcan x3"):
        run(["rcan"], [sets.find(str(folder))], 3, timed_size=None)


def test_a_perfect_network_scores_infinity(folder: Path) -> None:
    high = mod_crop(sets.read_rgb(folder / "2.png"), 2)
    score = score_picture(Contender("oracle", lambda _: to_tensor(high)), folder / "2.png", 2)
    assert score.psnr == math.inf
    assert score.picture_seconds is not None
    assert score.picture_seconds > 0


@pytest.mark.parametrize(
    ("given", "engine"),
    [({}, "torch"), ({"precision": "int8"}, "auto"), ({"precision": "int8", "engine": "mnn"}, "mnn")],
)
def test_torch_computes_unless_it_lacks_the_precision(
    tiny: Path, given: dict[str, str], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: dict[str, Any] = {}

    class Noted:
        enlarge = staticmethod(resize)

        def __init__(self, weights: Path, **settings: Any) -> None:
            used.update(settings)

    monkeypatch.setattr("finescale.evaluation.contenders.Upscaler", Noted)
    contender(str(tiny), 2, settings=given)
    assert used == {"precision": "float32", **given, "engine": engine}


def test_too_small_pictures_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (3, 9)).save(tmp_path / "a.png")
    for scale in (2, 4):
        with pytest.raises(FinescaleError, match=r"a\.png: a picture of"):
            score_picture(contender("nearest", scale), tmp_path / "a.png", scale)


@pytest.mark.parametrize("perceptual", [False, True])
def test_what_cannot_be_scored_is_told_before_the_work(tmp_path: Path, perceptual: bool) -> None:
    done: list[str] = []
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    class Perceptual:
        key, label = "lpips", "a measure"

        def __call__(self, enlarged: Pixels, high: Pixels) -> float:
            return 0.0

    if perceptual:
        Image.new("RGB", (31, 40)).save(tmp_path / "z.png")
    else:
        whole = (tmp_path / "a.png").read_bytes()
        (tmp_path / "z.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FinescaleError, match=r"z\.png: (a picture of 31 x 40 is too small|.*damaged|.*ends)"):
        run(
            ["nearest"],
            [sets.find(str(tmp_path))],
            2,
            metrics=[Perceptual()] if perceptual else [],
            timed_size=None,
            progress=lambda *names: done.append(names[1]),
        )
    assert not done


def test_a_network_that_fails_leaves_the_others_their_figures(
    folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(name: str, *arguments: Any, **options: Any) -> Contender:
        def enlarge(low: Tensor) -> Tensor:
            if len(low.shape) == 3 and low.shape[1] > 18:  # the second picture
                raise FinescaleError("there is not enough memory")
            return resize(low, scale=2)

        return Contender("large", enlarge) if name == "rcan" else contender(name, *arguments, **options)

    monkeypatch.setattr("finescale.evaluation.benchmark.contender", failing)
    chosen = [sets.find(str(folder))]
    found = run(["nearest", "rcan", str(tiny)], chosen, 2, timed_size=None)
    assert [row.missing for row in found.rows] == [None, "there is not enough memory", None]
    assert [len(row.scores.get("mine", ())) for row in found.rows] == [2, 0, 2]

    def kept(row: Row, whole: Run) -> list[Row]:
        return [row]

    # also of an earlier run; what failed before and fails again is told as it is now
    for before in (Row("rcan", 7, date="before"), Row("rcan", missing="there was not enough memory", date="before")):
        caplog.clear()
        found = run(["nearest", "rcan"], chosen, 2, timed_size=None, earlier=partial(kept, before))
        now = Row("rcan", missing="there is not enough memory") if before.missing else before
        assert [row for row in found.rows if row.name == "rcan"] == [now]
        assert list(found.failed) == ["rcan"]
        told = "rcan failed, so its earlier row is kept (there is not enough memory)"
        assert (told in caplog.text) != bool(before.missing)


def test_a_measure_without_the_memory_names_the_picture(folder: Path) -> None:
    class Large:
        key, label = "lpips", "a measure"

        def __init__(self, error: Exception) -> None:
            self.error = error

        def __call__(self, enlarged: Pixels, high: Pixels) -> float:
            raise self.error

    picture = folder / "2.png"
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried"), Exception("(-4:Insufficient memory)")):
        with pytest.raises(FinescaleError, match=r"2\.png: out of memory while it was scored$"):
            score_picture(contender("nearest", 2), picture, 2, [Large(error)])
        with pytest.raises(FinescaleError, match=r"2\.png: out of memory while it was scored$"):
            score_pair(Pair("2", picture, picture), 2, [Large(error)])
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        score_pair(Pair("2", picture, picture), 2, [Large(RuntimeError("a bug"))])


def test_files_of_one_name_keep_their_paths(tiny: Path, tmp_path: Path) -> None:
    twin = tmp_path / tiny.name
    twin.write_bytes(tiny.read_bytes())
    assert labels(["rcan", str(tiny), "bicubic"]) == ["rcan", "tiny", "bicubic"]
    assert labels(["rcan", str(tiny), str(twin)]) == ["rcan", str(tiny), str(twin)]


def test_files_of_one_name_do_not_replace_each_others_kept_rows(tiny: Path, tmp_path: Path) -> None:
    twin = tmp_path / tiny.name
    twin.write_bytes(tiny.read_bytes())
    before = {"tiny": Row("tiny", sha256="0a"), "bicubic": Row("bicubic")}
    assert benchmark._labels_beside(before, [str(twin), "bicubic"]) == [str(twin), "bicubic"]
    before[str(twin)] = Row(str(twin), sha256=sha256(twin))
    assert benchmark._labels_beside(before, [str(tiny)]) == [str(twin)], "the same file"
    assert benchmark._labels_beside({}, [str(tiny)]) == ["tiny"]


def test_unknown_networks_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="did you mean 'rcan'"):
        check_names(["bicubic", "rcam"], 4)


def test_weights_of_another_scale(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="enlarges x2, not x4"):
        check_names([str(tiny)], 4)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    (tmp_path / "my-own-x2.safetensors").write_bytes(tiny.read_bytes())
    with pytest.raises(UsageError, match="'my-own' is for x2 only, not for x4"):
        check_names(["my-own"], 4)


def test_originals_beside_what_was_made_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "Set5" / "image_SRF_4"
    folder.mkdir(parents=True)
    for name in ("img_001_SRF_4_HR", "img_001_SRF_4_LR", "img_001_SRF_4_bicubic", "img_002_SRF_4_HR"):
        Image.new("RGB", (20, 20)).save(folder / f"{name}.png")
    for path in (folder, folder.parent):
        assert [one.stem for one in sets.find(str(path)).pictures] == ["img_001_SRF_4_HR", "img_002_SRF_4_HR"]


def test_powers_are_no_numbers_of_a_name(tmp_path: Path) -> None:
    for name in ("10", "5²6", "9"):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    assert [path.stem for path in sets.find(str(tmp_path)).pictures] == ["5²6", "9", "10"]


def test_sets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINESCALE_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.chdir(tmp_path)
    for place in ("datasets/Set5/HR", "data/bench/HR/BSD100", "share/finescale/datasets/DIV2K/DIV2K_valid_HR"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / place / "a.png")
    assert sets.find("set5").name == "Set5"
    b100 = sets.find("B100", tmp_path / "data")
    assert b100.pictures[0].parent.name == "BSD100"
    assert b100.name == sets.find("data/bench/HR/BSD100").name == "B100"  # by which published figures are found
    assert sets.find("div2k-valid").name == "DIV2K_valid_HR"
    assert sets.find("datasets/Set5/HR").name == "Set5"
    (tmp_path / "datasets" / "DIV2K").mkdir()
    listed = Path.iterdir

    def refused(folder: Path) -> Iterator[Path]:
        if folder == Path("datasets/DIV2K"):
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refused)
        assert sets.find("div2k-valid").name == "DIV2K_valid_HR", "behind a folder that may not be read"
    with pytest.raises(UsageError, match=r"no set or folder 'Set6'; did you mean 'Set5'\? .*sets found: DIV2K_valid"):
        sets.find("Set6")
    with pytest.raises(UsageError, match=r"no set or folder 'urban100'; `finescale data get Urban100` brings it"):
        sets.find("urban100")
    with pytest.raises(UsageError, match="dta: there is no such folder"):  # and not the Set5 of ./datasets instead
        sets.find("Set5", tmp_path / "dta")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(FinescaleError, match="hollow: holds no pictures"):
        sets.find("./hollow")


def test_a_folder_that_is_called_as_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the folder is what counts: a DIV2K here is often that of the pictures to train on."""
    monkeypatch.setenv("FINESCALE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    valid = tmp_path / "data" / "DIV2K" / "DIV2K_valid_HR"
    valid.mkdir(parents=True)
    (tmp_path / "DIV2K" / "DIV2K_train_HR").mkdir(parents=True)
    for place in (valid, tmp_path / "DIV2K" / "DIV2K_train_HR"):
        Image.new("L", (9, 9)).save(place / "a.png")
    found = sets.find("DIV2K")
    assert (found.name, found.pictures) == ("DIV2K_valid_HR", (valid / "a.png",))
    Image.new("L", (9, 9)).save("DIV2K/b.png")
    assert (sets.find("DIV2K").name, sets.find("div2k-val").name) == ("DIV2K", "DIV2K_valid_HR")
    Image.new("L", (9, 9)).save(tmp_path / "data" / "DIV2K" / "c.png")
    assert sets.find("DIV2K_valid_HR").pictures == (valid / "a.png",)


def test_every_fifth_picture_of_urban100(tmp_path: Path) -> None:
    folder = tmp_path / "Urban100"
    folder.mkdir()
    for number in range(1, 101):
        Image.new("L", (9, 9)).save(folder / f"img_{number:03}.png")
    found = sets.find("urban20", tmp_path)
    assert found.name == "Urban20"
    assert [path.stem for path in found.pictures] == [f"img_{number:03}" for number in range(3, 101, 5)]


@pytest.mark.parametrize("count", [3, 5, 6])
def test_published_figures_stand_beside_the_whole_set_alone(
    count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "Set5").mkdir()
    for number in range(count):
        Image.linear_gradient("L").resize((20, 20)).save(tmp_path / "Set5" / f"{number}.png")
    result = run(["bicubic"], [sets.find(str(tmp_path / "Set5"))], 2, timed_size=None)
    beside = [*result.as_json()["published"], *(line for line in report.csv(result).splitlines() if "IMDN" in line)]
    beside += [point for point in plots.by_parameters(result, result.sets[0]) if not point.ours]
    if count == 5:
        assert (list(result.sets), caplog.messages) == (["Set5"], [])
        assert beside
        return
    assert (list(result.sets), beside) == ([f"Set5-{count}of5"], [])
    assert caplog.messages == [
        f"Set5: published figures are of 5 pictures and here are {count}, so it is called Set5-{count}of5 and stands"
        " beside none of them"
    ]


def test_sixteen_bits_and_grey_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert sets.read_rgb(tmp_path / "a.png").tolist() == [[[0] * 3, [1] * 3, [255] * 3]]


@pytest.mark.slow
def test_speed_in_a_process_of_its_own(tiny: Path) -> None:
    made = measure_apart(str(tiny), 2, {"device": "cpu"}, (8, 6), repeats=1)
    assert made.seconds > 0
    assert made.memory is None or 50 < made.memory < 2000
    with pytest.raises(FinescaleError, match=r"could not be timed .*'abacus' is not one of"):
        measure_apart(str(tiny), 2, {"engine": "abacus"}, (8, 6), repeats=1)


@pytest.mark.slow
def test_speed_of_a_network_that_the_program_brought(tmp_path: Path) -> None:
    brought = """
from finescale.evaluation.benchmark import run
from finescale.evaluation.sets import find
from finescale.networks.baselines import SRCNN
from finescale.networks.catalogue import NETWORKS, Entry, build
from finescale.weights import files

class Mine(SRCNN):
    pass

NETWORKS["mine"] = Entry(Mine, "")
"""
    work = """
files.save(build("mine", scale=2), "mine-x2.safetensors")
(row,) = run(["mine-x2.safetensors"], [find("hr")], 2, settings={"device": "cpu"}, timed_size=(8, 6), repeats=1).rows
print(row.speed.seconds)
"""
    (tmp_path / "hr").mkdir()
    Image.new("L", (32, 32)).save(tmp_path / "hr" / "a.png")
    guarded = "if __name__ == '__main__':" + work.replace("\n", "\n    ")
    (tmp_path / "guarded.py").write_text(brought + guarded)
    (tmp_path / "open.py").write_text(brought + work)
    command, environment = machine.apart("guarded")
    for how in ([str(tmp_path / "guarded.py")], ["-m", "guarded"]):
        done = subprocess.run(
            [command[0], *how], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, float(done.stdout or 0) > 0) == (0, True), done.stderr
    done = subprocess.run([command[0], "open.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the program's work needs" in done.stderr


@pytest.mark.parametrize(
    ("printed", "words"),
    [("a library was here\n{...}\n", None), ("nothing of use\n", "did not say"), ("", "did not say")],
)
def test_what_a_library_prints_does_not_stop_the_measuring(
    printed: str, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = printed.replace("{...}", '{"seconds": 1.5, "memory": 20}')
    done = subprocess.CompletedProcess([], 0, printed, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    if words is None:
        assert measure_apart("a", 2, {}).seconds == 1.5
    else:
        with pytest.raises(FinescaleError, match=words):
            measure_apart("a", 2, {})


def test_what_is_done_is_kept_where_a_run_is_stopped(folder: Path, tiny: Path) -> None:
    chosen = [sets.find(str(folder))]

    def stop(name: str, picture: str) -> None:
        if (name, picture) == (at, "10"):
            raise SystemExit(143)

    at = "nearest"
    options: dict[str, Any] = {"timed_size": None, "progress": stop}
    result = run(["bicubic", "nearest", str(tiny)], chosen, 2, keep_stopped=True, **options)
    assert [row.name for row in result.rows] == ["bicubic"]
    assert isinstance(result.stopped, SystemExit)
    with pytest.raises(SystemExit):  # but where its caller asks for it
        run(["bicubic", "nearest"], chosen, 2, **options)
    with pytest.raises(SystemExit):  # nothing is done
        run(["rcan", "nearest", "bicubic"], chosen, 2, keep_stopped=True, **options)


def test_speed_runs_once_more_to_warm_up() -> None:
    shapes = []

    def enlarge(low: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(low.shape))
        return low

    result = measure(enlarge, (8, 6), device=torch.device("cpu"), repeats=2)
    assert shapes == [(3, 6, 8)] * 3
    assert result.seconds > 0
    assert result.memory is None or result.memory > 10


def test_a_time_that_cannot_be_measured_does_not_lose_the_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        assert (arguments, options) == (("nearest", 2, {"engine": "openvino"}, (8, 6)), {"repeats": 5})
        raise FinescaleError("the process died")

    monkeypatch.setattr("finescale.evaluation.benchmark.measure_apart", fail)
    options: dict[str, Any] = {"settings": {"engine": "openvino"}, "timed_size": (8, 6), "repeats": 5}
    (row,) = run(["nearest"], [sets.find(str(folder))], 2, **options).rows
    assert len(row.scores["mine"]) == 2
    assert row.speed is None
    assert "the process died" in caplog.text
