"""Files that appear whole or not at all."""

import os
import sys
from pathlib import Path

import pytest

from finescale import atomic
from finescale.atomic import check_target, new_file
from finescale.errors import FinescaleError, TakenError


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_pipes_and_devices_are_not_replaced_by_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FinescaleError, match="pipe: is a pipe or a device"), new_file(pipe, overwrite=True):
        pass
    assert pipe.is_fifo()


def test_on_disks_without_links_nothing_is_replaced_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "operation not permitted")  # as Linux says of FAT

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "a"
    with new_file(path) as file:
        file.write(b"first")
    with pytest.raises(TakenError, match="b: already exists"), new_file(tmp_path / "b") as file:  # noqa: PT012
        file.write(b"second")
        path.rename(tmp_path / "b")  # it appears meanwhile
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("b", b"first")]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_that_cannot_be_written_are_told_before_the_work(tmp_path: Path, overwrite: bool) -> None:
    sealed = Path("/proc/self")  # also for the superuser
    if not sealed.is_dir() or os.access(sealed, os.W_OK):
        sealed = tmp_path / "sealed"
        sealed.mkdir(mode=0o500)
        if os.access(sealed, os.W_OK):
            pytest.skip("this system lets this user write everywhere")
    with pytest.raises(FinescaleError, match="no file can be written there"):
        check_target(sealed / "a.json", overwrite)


def test_who_has_a_file_open_for_a_moment_is_waited_for_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    replace, refusals = os.replace, [1, 2, 3]

    def scanned(source: Path, target: Path) -> None:
        if refusals:
            refusals.pop()
            raise PermissionError(13, "another process has it open")
        replace(source, target)

    monkeypatch.setattr(os, "replace", scanned)
    monkeypatch.setattr(atomic, "_PATIENCE", 0)
    with pytest.raises(FinescaleError, match="b: cannot be written"), new_file(tmp_path / "b", overwrite=True):
        pass
    monkeypatch.setattr(atomic, "_PATIENCE", 9)
    atomic.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"
    assert not refusals
