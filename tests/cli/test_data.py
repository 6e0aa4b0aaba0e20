"""`finescale data` as it is typed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.data.test_download import CONTENT, DIGEST, archive, serving

from finescale.backbones import catalogue
from finescale.cli.main import main
from finescale.data import download
from finescale.data.download import Source
from finescale.data.store import Store


def test_what_cannot_be_packed_is_named_and_the_rest_packed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    with Image.open(pictures / "0.png") as image:
        image.save("in/good.png")
    words = ["data", "prepare", "in", "--scales", "2,4", "--licence", "CC0-1.0", "--workers", "1"]
    assert main(words) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("finescale: left out: in/bad.png: ")
    assert shown.err.count("\n") == 1
    assert shown.out.startswith("stores/train: 1 pictures, 0.0 megapixels, ")
    assert shown.out.endswith("; 1 left out\n")
    store = Store(Path("stores/train"))
    assert (store.scales, store.licence) == ([2, 4], "CC0-1.0")
    for change, said in {
        ("--scales", "2,x"): "--scales 2,x: should be such as 2,3,4",
        ("--workers", "0"): "--workers 0: should be 1 or more",
    }.items():
        assert main([*words, *change]) == 2
        assert said in capsys.readouterr().err
    assert main(words) == 2
    assert "stores/train: is already there" in capsys.readouterr().err
    for small in ("in", "small", "5=in", "4=nowhere", "2="):
        with pytest.raises(SystemExit):
            main([*words, "--small", small])
        assert "--small: expected such as 2=FOLDER" in capsys.readouterr().err


def test_pairs_are_packed_for_their_scale(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small").mkdir()
    Image.new("RGB", (60, 48), "red").save(tmp_path / "small" / "0.png")
    words = ["data", "prepare", str(pictures / "0.png"), "--small", f"2={tmp_path / 'small'}", "--workers", "1"]
    for out, more, scales in (("a", [], [2]), ("b", ["--scales", "3"], [2, 3])):
        assert main([*words, "-o", str(tmp_path / out), *more]) == 0
        store = Store(tmp_path / out)
        assert store.scales == scales
        assert store.picture(0, 2).flatten(1).unique(dim=1).tolist() == [[255], [0], [0]]
    assert main([*words[:2], str(pictures), *words[2:], "-o", str(tmp_path / "c")]) == 2
    assert "--small: pairs go by name" in capsys.readouterr().err
    others = tmp_path / "others"  # one that has a partner, and one that is shrunk
    others.mkdir()
    Image.new("RGB", (48, 48), "blue").save(others / "z.png")
    assert main([*words[:3], str(others), *words[3:], "-o", str(tmp_path / "d"), "--shrink-missing"]) == 0
    mixed = Store(tmp_path / "d")
    colours = [mixed.picture(i, 2).flatten(1).unique(dim=1).flatten().tolist() for i in (0, 1)]
    assert ([item.name for item in mixed.items], colours) == (["0.png", "z.png"], [[255, 0, 0], [0, 0, 255]])
    Image.new("RGB", (60, 47), "red").save(tmp_path / "small" / "z.png")  # there, so it is no missing one
    assert main([*words[:3], str(others), *words[3:], "-o", str(tmp_path / "e"), "--shrink-missing"]) == 1
    assert "is not the size of" in capsys.readouterr().err
    assert main([*words[:3], "--shrink-missing", "-o", str(tmp_path / "f")]) == 2
    assert "--shrink-missing: belongs to --small" in capsys.readouterr().err


def test_sets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(download.sources())
    with serving(archive("zip")) as (_, address):
        one = Source("Two_a", "two pictures, CC0", address, "set/HR", 2)
        known: Mapping[str, Source] = {"Two_a": one, "Two_b": replace(one, name="Two_b", pictures=3)}
        monkeypatch.setattr(download, "sources", lambda: known)
        assert main(["data", "get", "two", "-o", str(tmp_path)]) == 0  # both of its parts
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'Two_a'}: two pictures, CC0\n{tmp_path / 'Two_b'}: two pictures, CC0\n"
    assert shown.err == f"finescale: {tmp_path / 'Two_b'}: 2 pictures, though Two_b has 3\n"
    assert main(["data", "get", "Tow_a", "-o", str(tmp_path)]) == 2
    assert "there is no data set 'Tow_a'; did you mean 'Two_a'?" in capsys.readouterr().err


def test_classifiers_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with serving(CONTENT) as (_, address):
        file = f"vgg16-{DIGEST[:8]}.pth"
        entry = replace(catalogue.BACKBONES["vgg16"], folder=address.removesuffix("set.zip"), file=file)
        monkeypatch.setitem(catalogue.BACKBONES, "vgg16", entry)
        assert main(["data", "get", "vgg16"]) == 0
    place = tmp_path / "finescale" / "backbones" / file
    assert capsys.readouterr().out == f"{place}: weights of vgg16\n"
    assert place.read_bytes() == CONTENT


def test_a_process_for_each_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("finescale.inference.machine.cores", lambda: -3)
    assert main(["data", "prepare", str(tmp_path), "-o", str(tmp_path / "store")]) == 2
    assert "--workers -3: should be 1 or more" in capsys.readouterr().err
