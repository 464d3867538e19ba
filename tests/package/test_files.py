"""Files are the old ones or the new ones, nobody's but the one that was meant; a folder has one owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fastdraw import files
from fastdraw.files import OwnedError, append_to, owned, sweep, write_atomically, write_together

posix = pytest.mark.skipif(sys.platform == "win32", reason="links, devices and locks of POSIX systems")


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    for data in (b"one", b"", b"two" * 10**6):
        write_atomically(tmp_path / "file.json", data)
        assert (tmp_path / "file.json").read_bytes() == data
    assert os.listdir(tmp_path) == ["file.json"]
    write_atomically(tmp_path / ("long" * 60), b"x")


def test_many_writers_tear_nothing(tmp_path: Path) -> None:
    """Each writes the file again and again, while it is read: always one writer's whole text."""
    path, seen, errors = tmp_path / "file", set(), []
    texts = [bytes([65 + i]) * (200_000 + i) for i in range(4)]

    def work(text: bytes) -> None:
        try:
            for _ in range(12):
                write_atomically(path, text)
        except OSError as error:
            errors.append(error)

    write_atomically(path, texts[0])
    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.add(path.read_bytes())
    assert not errors
    assert seen <= set(texts)
    assert os.listdir(tmp_path) == ["file"]


@posix
def test_links_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the file's own name, at the old fixed temporary name, and at the very name that is drawn."""
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_bytes(b"precious")
    folder.mkdir()
    monkeypatch.setattr(os, "urandom", bytes)
    for name in ("file.json", ".file.part.json"):
        (folder / name).symlink_to(victim)
    write_atomically(folder / "file.json", b"new")
    assert (folder / "file.json").read_bytes() == b"new"
    assert not (folder / "file.json").is_symlink()
    (folder / f".fastdraw-{'0' * 16}.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomically(folder / "file.json", b"newer")
    (folder / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        append_to(folder / "log")
    (folder / files.LOCK).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"), owned(folder):
        pass
    (folder / files.LOCK).unlink()
    os.link(victim, folder / files.LOCK)
    with owned(folder):
        pass
    assert victim.read_bytes() == b"precious"
    assert (folder / "file.json").read_bytes() == b"new"


@posix
def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    device = os.stat("/dev/null")
    write_atomically(Path("/dev/null"), b"nothing")
    assert os.path.samestat(device, os.stat("/dev/null"))
    (tmp_path / "null").symlink_to("/dev/null")
    write_atomically(tmp_path / "null", b"nothing")
    assert (tmp_path / "null").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
    write_atomically(tmp_path / "pipe", b"through")
    assert reader.communicate(timeout=30)[0] == b"through"
    assert (tmp_path / "pipe").is_fifo()
    # Whatever stdout is, a file too.
    code = "from pathlib import Path; from fastdraw.files import write_atomically as w; w(Path('/dev/stdout'), b'said')"
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"said"
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"x")
    assert sorted(os.listdir(tmp_path)) == ["null", "out", "pipe"]


@posix
def test_a_new_file_has_the_rights_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.chmod(0o600)
    write_atomically(path, b"two")
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_that_go_together_are_replaced_together(tmp_path: Path, no_space: Any) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_together({one: b"1", other: b"1"})
    no_space(after=2)
    with pytest.raises(OSError, match="No space left") as caught:
        write_together({one: b"2", other: b"2"})
    assert caught.value.filename == str(other)
    assert one.read_bytes() == other.read_bytes() == b"1"
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from fastdraw.files import owned
with owned(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(600)
"""


@posix
def test_a_folder_has_one_owner_until_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        with (
            pytest.raises(OwnedError, match=f"out: expected a folder .* got {folder}: process {holder.pid} on"),
            owned(folder),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    # A kill frees it.
    with owned(folder):
        with pytest.raises(OwnedError, match=f"process {os.getpid()} on"), owned(folder):
            pass
        (folder / "file").write_bytes(b"")
    assert os.listdir(folder) == ["file"]
    # One that was made for nothing is not left behind; one that was there is.
    with owned(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with owned(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").is_dir()


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = files._written(tmp_path / "file", b"half")
    others = [".fastdraw-notes", ".file.part.json", "file", ".fastdraw-0123.part"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    sweep(tmp_path)
    assert not left.exists()
    assert sorted(os.listdir(tmp_path)) == sorted(others)
