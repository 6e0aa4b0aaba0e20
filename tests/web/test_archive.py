"""The archive of results, as other programs read it."""

import io
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from finescale.web.archive import PIECE, archive


def test_what_is_made_is_read_by_others(tmp_path: Path) -> None:
    contents = [b"small", b"", bytes(range(256)) * (2 * PIECE // 256) + b"more", b"last"]
    names = ["\u00fc.png", "a.PNG", "A.png", "a.png"]
    for i, content in enumerate(contents):
        (tmp_path / str(i)).write_bytes(content)
    pieces = list(archive([(name, tmp_path / str(i)) for i, name in enumerate(names)]))
    assert max(map(len, pieces)) < 2 * PIECE  # none is held as a whole
    data = b"".join(pieces)
    read = ZipFile(io.BytesIO(data))
    assert read.testzip() is None
    assert read.namelist() == ["\u00fc.png", "a.PNG", "A (2).png", "a (3).png"]  # on every file system
    assert [read.read(name) for name in read.namelist()] == contents
    assert read.infolist()[0].external_attr >> 16 == 0o100644
    if unzip := shutil.which("unzip"):
        (tmp_path / "all.zip").write_bytes(data)
        subprocess.run([unzip, "-tqq", tmp_path / "all.zip"], check=True)


def test_a_file_that_is_gone_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    with pytest.raises(FileNotFoundError):
        list(archive([("a.png", tmp_path / "a"), ("b.png", tmp_path / "b")]))
