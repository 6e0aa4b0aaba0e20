"""The command line as a whole: its version, its verbs, and what it says to what is none."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from finescale import __main__ as start
from finescale.cli.main import VERBS, main, told

QUOTE = '"' if sys.platform == "win32" else "'"


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"finescale {metadata.version('finescale')}\n"


def test_help_names_every_verb_and_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], *([verb] for verb in VERBS)):
        with pytest.raises(SystemExit) as leaving:
            main([*arguments, "--help"])
        assert leaving.value.code == 0
        said = capsys.readouterr().out
        assert said.startswith(" ".join(["usage: finescale", *arguments]))
        if not arguments:
            assert all(re.search(rf"^ +{verb}\b", said, re.MULTILINE) for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "usage", "said"),
    [
        ("", "", "the following arguments are required: VERB"),
        ("--bogus networks", "", "unrecognized arguments: --bogus"),
        ("networks --bogus", "networks", "unrecognized arguments: --bogus"),
        ("data get --bogus", "data get", "unrecognized arguments: --bogus"),
        ("upscale a.png --skale=2", "upscale", "unrecognized arguments: --skale=2; did you mean --scale?"),
        ("upscale a.png -scale 2", "upscale", "unrecognized arguments: -scale 2; did you mean --scale?"),
        ("resize a b --scale 2 -q 9", "resize", "unrecognized arguments: -q 9; did you mean --quality?"),
        ("resize a b --scale 2 -s2", "resize", "unrecognized arguments: -s2; did you mean --scale or --skip-existing?"),
        ("resize a b --scale 2 --suffix _hd", "resize", "unrecognized arguments: --suffix _hd"),
        ("resize a b c --scale 2", "resize", "unrecognized arguments: c"),
    ],
)
def test_what_is_unknown_is_refused_by_the_usage_of_its_verb(
    words: str, usage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(words.split())
    assert leaving.value.code == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    command = f"finescale {usage}".strip()
    assert first.startswith(f"usage: {command} [")
    assert last == f"{command}: error: {said}"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["upscail"], "; did you mean 'upscale'?"),
        (["frobnicate"], f" (known: {', '.join(VERBS)})"),
        (["a b.png", "--scale", "2"], f"; did you mean: finescale upscale {QUOTE}a b.png{QUOTE} --scale 2"),
        (["pictures"], "; did you mean: finescale upscale pictures"),
    ],
)
def test_a_first_word_that_is_no_verb(
    words: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a b.png").touch()
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert capsys.readouterr().err == f"finescale: there is no verb '{words[0]}'{hint}\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes whose reader is gone")
@pytest.mark.parametrize("words", [["data", "get"], ["networks"]])
def test_a_reader_that_has_seen_enough_is_no_traceback(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "finescale", *words], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_output_that_finds_no_room_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "finescale", "data", "get"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (1, "finescale: no space left on device\n")


class Slow(ModuleType):
    """A module in whose import somebody presses Ctrl-C."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("run", "module"), [(start.run, "finescale.cli.main"), (main, "finescale.cli.networks")])
def test_ctrl_c_at_the_very_start_is_told_in_a_word(
    run: Callable[[], int], module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["finescale", "networks"])
    monkeypatch.setitem(sys.modules, module, Slow(module))
    assert run() == 130
    assert capsys.readouterr() == ("", "finescale: interrupted\n")


def test_a_worker_of_a_frozen_program_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise SystemExit(7)

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr("multiprocessing.freeze_support", work)
    with pytest.raises(SystemExit, match="7"):
        start.run()


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX systems have them")
def test_a_console_of_windows_that_is_closed_ends_the_work_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGURG, raising=False)

    def work() -> None:
        handler = signal.getsignal(signal.SIGURG)
        assert callable(handler)
        handler(signal.SIGURG, None)

    with pytest.raises(SystemExit, match=str(128 + signal.SIGURG)):
        told(work)
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
