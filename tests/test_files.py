"""Files are written whole or not at all, keep what they were, and leave nothing behind."""

import copy
import os
import pickle
import stat
import subprocess
import sys
import threading

import pytest
from support import quantized

from rindle import RindleError
from rindle.files import write_file


def test_a_file_that_is_replaced_keeps_its_mode_and_a_new_one_has_the_umasks(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"before")
    old.chmod(0o640)
    write_file(old, b"after")
    assert old.read_bytes() == b"after" and stat.S_IMODE(old.stat().st_mode) == 0o640
    plain = tmp_path / "plain"
    plain.touch()
    write_file(new, b"")
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there/file", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_file(link, b"after")
    assert link.is_symlink() and target.read_bytes() == b"after"


def test_the_umask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("another thread would make files with it"))
    write_file(tmp_path / "file", b"x")


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(tmp_path):
    path = tmp_path / "m.rindle"
    code = (
        "import os, sys, rindle.files as f\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
        "f.write_file(sys.argv[1], b'half')"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1 and not path.exists()
    (killed,) = tmp_path.iterdir()
    mine = killed.with_name(killed.name.replace(killed.name.split(".")[-4], str(os.getpid())))
    mine.touch()
    other = killed.with_name(killed.name.replace(".m.rindle.", ".n.rindle."))
    other.touch()
    write_file(path, b"whole")
    assert {one.name for one in tmp_path.iterdir()} == {path.name, mine.name, other.name}


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path):
    path = tmp_path / "file"
    texts = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in texts and list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_file(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_stream_is_neither_copied_nor_pickled_and_says_how():
    stream = quantized("gru", "int8").stream()
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(RindleError, match=r"save\(\)"):
            way(stream)
