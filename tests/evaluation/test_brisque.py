import json
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finescale.backbones import metric_files
from finescale.cli.main import main
from finescale.errors import FinescaleError, UsageError
from finescale.evaluation import brisque, scoring
from finescale.evaluation.metrics import Pixels
from finescale.evaluation.scoring import Unavailable

HOPPER = Path(__file__).resolve().parents[2] / "docs" / "images" / "hopper.jpg"


def hopper() -> Pixels:
    return np.asarray(Image.open(HOPPER).convert("RGB"))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights, empty, and no other place where files are found."""
    for name in ("FINESCALE_DATA", "FINESCALE_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(brisque, "_SYSTEM", [])
    return tmp_path


@pytest.fixture
def trained(nowhere: Path) -> Path:
    """A folder with a small model of the real kind, trained here on blurred pictures."""
    cv2 = pytest.importorskip("cv2", reason="BRISQUE needs the extra 'brisque'")
    images = [np.ascontiguousarray(hopper()[y : y + 64, x : x + 64]) for y in range(0, 500, 90) for x in (60, 200, 330)]
    images += [cv2.GaussianBlur(image, (0, 0), 2.0) for image in images]
    features = np.vstack([cv2.quality.QualityBRISQUE_computeFeatures(image) for image in images])
    low, high = features.min(0), features.max(0)
    svm = cv2.ml.SVM_create()
    svm.setType(cv2.ml.SVM_EPS_SVR)
    svm.setKernel(cv2.ml.SVM_RBF)
    svm.setGamma(0.05)
    svm.setC(100)
    svm.setP(0.1)
    half = len(images) // 2
    labels = np.asarray([10] * half + [70] * half, np.float32)
    svm.train(((features - low) / (high - low) * 2 - 1).astype(np.float32), cv2.ml.ROW_SAMPLE, labels)
    svm.save(str(nowhere / brisque.MODEL))
    storage = cv2.FileStorage(str(nowhere / brisque.RANGE), cv2.FILE_STORAGE_WRITE)
    storage.write("range", np.asarray([low, high], np.float32))
    storage.release()
    return nowhere


def test_a_picture_is_judged_by_its_luma_and_the_model(trained: Path) -> None:
    cv2: Any = import_module("cv2")
    measure = brisque.load()
    picture = hopper()[100:260, 150:330]
    blurred = cv2.GaussianBlur(picture, (0, 0), 2.0)
    sharp, soft = measure(picture), measure(blurred)
    assert sharp is not None
    assert soft is not None
    assert 0 <= sharp < 40 < soft <= 100
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    features = cv2.quality.QualityBRISQUE_computeFeatures(grey)
    storage = cv2.FileStorage(str(trained / brisque.RANGE), cv2.FILE_STORAGE_READ)
    low, high = storage.getNode("range").mat()
    expected = cv2.ml.SVM_load(str(trained / brisque.MODEL)).predict((features - low) / (high - low) * 2 - 1)[1]
    assert sharp == pytest.approx(float(expected[0, 0]), abs=1e-2)


def test_pictures_without_statistics(trained: Path) -> None:
    measure = brisque.load()
    assert measure(np.full((40, 40, 3), 128, np.uint8)) is None
    with pytest.raises(UsageError, match="31 x 40 is too small for BRISQUE, which needs 32 x 32"):
        measure(hopper()[:40, :31])
    with pytest.raises(UsageError, match="expected an 8-bit RGB picture"):
        measure(hopper() / 255)  # type: ignore[arg-type]


def test_the_published_model_prefers_the_photograph() -> None:
    cv2 = pytest.importorskip("cv2", reason="BRISQUE needs the extra 'brisque'")
    if metric_files.find(brisque.MODEL, *brisque._SYSTEM) is None:
        pytest.skip("BRISQUE's published model is not here (Debian: opencv-data)")
    measure = brisque.load()
    original = hopper()
    small = cv2.resize(original, (128, 150), interpolation=cv2.INTER_AREA)
    bicubic = cv2.resize(small, (512, 600), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert [measure(original), measure(bicubic), measure(noise)] == pytest.approx([3.0, 56, 90], abs=3)


def test_what_is_missing_comes_with_the_way_to_get_it(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FinescaleError, match=r'pip install "finescale\[brisque\]"'):
        brisque.load()
    for without in (SimpleNamespace(), SimpleNamespace(quality=SimpleNamespace())):
        monkeypatch.setitem(sys.modules, "cv2", without)
        with pytest.raises(FinescaleError, match="with its contributed modules"):
            brisque.load()
    with_it = SimpleNamespace(quality=SimpleNamespace(QualityBRISQUE_create=None))
    monkeypatch.setitem(sys.modules, "cv2", with_it)
    stand_in = scoring.find("brisque", "BRISQUE", brisque.load)
    assert isinstance(stand_in, Unavailable)
    assert "brisque_model_live.yml and brisque_range_live.yml" in stand_in.reason
    assert "opencv-data" in stand_in.reason


def test_a_damaged_model_is_named(trained: Path) -> None:
    (trained / brisque.MODEL).write_text("%YAML:1.0\n---\n")
    with pytest.raises(FinescaleError, match=r"brisque_model_live\.yml: OpenCV cannot read"):
        brisque.load()


def test_as_columns(trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(trained))
    (trained / "hr").mkdir()
    Image.fromarray(hopper()[:96, :96]).save(trained / "hr" / "a.png")
    pair = ["score", "--scale", "4", "--hr", f"{trained}/hr", "--sr", f"{trained}/hr", "--brisque"]
    assert main([*pair, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["brisque_by"] == "BRISQUE"
    assert found["brisque"] == found["pictures"][0]["brisque"] == brisque.load()(hopper()[:96, :96])
    (trained / brisque.MODEL).unlink()
    report = trained / "report"
    bench = ["bench", "--networks", "bicubic", "--sets", f"{trained}/hr", "--no-timing", "--brisque", "--perceptual"]
    assert main([*bench, "--report", str(report)]) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert said.count("missing") == 2  # LPIPS and BRISQUE
    assert "BRISQUE needs its model: put brisque_model_live.yml" in said
    assert "| bicubic |" in (page := (report / "results-x4.md").read_text())
    assert "BRISQUE hr |" in page
    assert "BRISQUE needs its model" in page
