"""What the doctor says, and when it is content."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finescale import doctor
from finescale.atomic import sha256
from finescale.cli.main import main
from finescale.networks.catalogue import build
from finescale.weights.files import save


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one listed and one unlisted file of weights, searched first."""
    for scale in (2, 4):
        network = build("sa-rcan-light", scale=scale, channels=16, groups=1, blocks=1)
        save(network, tmp_path / f"sa-rcan-light-x{scale}.safetensors", notes={"licence": "CC0-1.0"})
    listed = tmp_path / "sa-rcan-light-x2.safetensors"
    (tmp_path / "index.json").write_text(json.dumps({listed.name: {"sha256": sha256(listed)}}))
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("FINESCALE_DATA", raising=False)
    return tmp_path


def test_it_knows_what_is_here(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["devices"][0]["name"] == "cpu"
    assert next(engine for engine in found["engines"] if engine["name"] == "torch")["works"]
    read, written = (set(found["formats"][what]) for what in ("read", "written"))
    assert {".png", ".jpg", ".tif"} <= written < read
    assert ".gif" in read - written
    weights = {(entry["network"], entry["scale"]): entry for entry in found["weights"]["found"]}
    first, second = weights["sa-rcan-light", 2], weights["sa-rcan-light", 4]
    assert (first["verified"], second["verified"]) == (True, False)
    assert first["sha256"] == sha256(folder / "sa-rcan-light-x2.safetensors")
    assert first["notes"]["licence"] == "CC0-1.0"
    assert found["weights"]["searched"][0] == {"folder": str(folder), "exists": True}


def test_a_network_is_one_line_and_a_licence_one_title(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scale, licence in (("sa-rcan", 2, "CC0-1.0"), ("sa-rcan", 3, "CC0-1.0"), ("rcan", 2, None)):
        network = build("sa-rcan-light", scale=scale, channels=16, groups=1, blocks=1)
        save(network, folder / f"{name}-x{scale}.safetensors", notes={"licence": licence} if licence else {})
    assert main(["doctor"]) == 0
    sections = {title: lines for title, *lines in map(str.splitlines, capsys.readouterr().out.split("\n\n"))}
    assert sections["Weights found, CC0-1.0"] == [
        f"  sa-rcan x2 x3     not listed in an index, in {folder}",
        f"  sa-rcan-light x2  verified, in {folder}",
        f"  sa-rcan-light x4  not listed in an index, in {folder}",
    ]
    assert f"  rcan x2  not listed in an index, in {folder}" in sections["Weights found"]


def test_it_names_the_folder_of_downloaded_sets(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    sets = tmp_path / "finescale" / "datasets"
    assert main(["doctor"]) == 0
    assert f"{sets}  (not there)" in capsys.readouterr().out
    sets.mkdir(parents=True)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["downloaded"] == {"folder": str(sets), "exists": True}


def test_a_cache_that_keeps_nothing_is_a_problem(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert main(["doctor"]) == 1
    assert "cannot be written, so every start compiles" in capsys.readouterr().out


def test_a_changed_file_is_a_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(folder / "sa-rcan-light-x2.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"sa-rcan-light x2 +damaged", said)
    assert "its SHA-256 is not the one listed" in said.partition("Problems")[2]


@pytest.mark.slow
def test_a_broken_package_is_reported_and_the_rest_still_told(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "openvino"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libsomething.so: cannot open')")
    (tmp_path / "broken" / "openvino-9.9.dist-info").mkdir()
    (tmp_path / "broken" / "openvino-9.9.dist-info" / "METADATA").write_text("Name: openvino\nVersion: 9.9\n")
    path = os.pathsep.join([str(tmp_path / "broken"), *(entry for entry in sys.path if entry)])
    done = subprocess.run(
        [sys.executable, "-m", "finescale", "doctor"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "openvino: is installed but does not work (the openvino engine needs OpenVINO, " in done.stdout
    assert "cannot be imported (libsomething.so: cannot open)" in done.stdout
    assert "sa-rcan-light x4" in done.stdout


def test_what_is_read_is_told_apart_from_what_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    read, written = capsys.readouterr().out.partition("Pictures\n")[2].splitlines()[:2]
    assert read.startswith("  Read     .")
    assert " .avifs .bmp .gif " in read
    assert written.startswith("  Written  .avif .bmp .jfif ")


def test_missing_extras_come_with_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["torch>=2.9", 'openvino>=2025.3; extra == "fast"', 'no-such-thing>=1; extra == "web"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _: requirements)
    monkeypatch.setattr("finescale.doctor._version", lambda name: None if name == "no-such-thing" else "1")
    extras = {extra["name"]: extra for extra in doctor._extras([])}
    assert extras["fast"]["missing"] == []
    assert extras["web"]["missing"] == ["no-such-thing"]
    assert extras["web"]["install"] == 'pip install "finescale[web]"'


def test_a_container_has_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available", lambda: iter([8 * doctor.GIB, 1.5 * doctor.GIB]))
    assert doctor._memory()["available_gib"] == 1.5


@pytest.mark.parametrize(("own", "told"), [(1, "1 thread"), (7, "1 thread, PyTorch 7")])
def test_the_threads_are_those_that_engines_take(own: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("torch.get_num_threads", lambda: own)
    assert doctor._devices([])[0]["what"].endswith(f", {told}")
