"""The completion scripts, in the shells themselves."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finescale.cli.main import main, parser
from finescale.completion import script


def bash(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    file = tmp_path / "completion.bash"
    file.write_text(script(parser(), "bash"))
    quoted = " ".join(f"'{word}'" for word in words)
    ask = f"source {file}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
    function = "$(complete -p finescale | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    done = subprocess.run(
        ["bash", "-c", f"{ask}{function} finescale '{words[-1]}' '{words[-2]}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_offers_verbs_options_networks_and_files(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").touch()
    (tmp_path / "photo.jpg").touch()
    assert {"serve", "score"} <= set(bash(tmp_path, "finescale", "s"))
    assert bash(tmp_path, "finescale", "serve", "--no") == ["--no-browser"]
    assert "sa-rcan-light" in bash(tmp_path, "finescale", "upscale", "--network", "sa-")
    assert bash(tmp_path, "finescale", "upscale", "--network", "mi") == ["mine.safetensors"]
    assert bash(tmp_path, "finescale", "completion", "z") == ["zsh"]
    assert bash(tmp_path, "finescale", "upscale", "ph") == ["photo.jpg"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_well_formed_and_name_the_networks(tmp_path: Path, shell: str) -> None:
    text = script(parser(), shell)
    assert "sa-rcan-light" in text
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed: its script is only looked at")
    file = tmp_path / "script"
    file.write_text(text)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_lines_end_as_bash_of_windows_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, newline="\r\n"))
    assert main(["completion", "bash"]) == 0
    assert written.getvalue().count(b"\n") > 9
    assert b"\r" not in written.getvalue()
