"""The lock of a run directory, and who may take it over."""

import json
import os
import socket
import subprocess
import sys

import pytest

from supcon_tf import run_lock, train
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir

OWNER = {"owner": "ada", "host": "elsewhere", "pid": 4242, "since": "2026-01-02", "boot": "other"}


def test_a_second_run_in_a_directory_is_rejected_by_the_name_of_the_first(tmp_path):
    with RunDir(tmp_path).lock():
        expected = f"in use by process {os.getpid()} of .* on {socket.gethostname()}, since 2"
        with pytest.raises(UserError, match=expected):
            train.main(["--gin_file=digits/supcon.gin", f"--workdir={tmp_path}"])
        assert not (tmp_path / "config.gin").exists()
    with RunDir(tmp_path).lock():
        pass


def test_a_killed_process_leaves_no_lock(tmp_path, capsys):
    file = tmp_path / "run.lock"
    code = (
        "import os, pathlib; from supcon_tf import run_lock\n"
        f"with run_lock.hold(pathlib.Path({str(file)!r})): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    left = json.loads(file.read_text())
    with RunDir(tmp_path).lock():
        assert json.loads(file.read_text())["pid"] == os.getpid()
    assert f"left by process {left['pid']} of {left['owner']}" in capsys.readouterr().out
    assert not file.exists()


def test_the_lock_of_another_machine_is_not_taken_over(tmp_path):
    file = tmp_path / "run.lock"
    file.write_text(json.dumps(OWNER))
    with (
        pytest.raises(UserError, match="process 4242 of ada on elsewhere, since 2026-01-02: if"),
        RunDir(tmp_path).lock(),
    ):
        pass
    assert json.loads(file.read_text()) == OWNER
    file.unlink()
    with RunDir(tmp_path).lock():
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({**OWNER, "host": None})])
def test_a_damaged_lock_of_no_process_is_replaced(tmp_path, text):
    file = tmp_path / "run.lock"
    file.write_text(text.replace("null", json.dumps(socket.gethostname())))
    with run_lock.hold(file):
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_without_locks_of_the_file_system_a_living_process_keeps_the_directory(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run_lock, "_try_lock", lambda _: None)
    with RunDir(tmp_path).lock(), pytest.raises(UserError, match="in use by process"):
        RunDir(tmp_path).lock().__enter__()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = {**OWNER, "host": socket.gethostname(), "pid": ended.pid}
    (tmp_path / "run.lock").write_text(json.dumps(here))
    with RunDir(tmp_path).lock():
        pass


def test_only_the_chief_of_several_workers_locks(tmp_path):
    with RunDir(tmp_path).lock(), RunDir(tmp_path, is_chief=False).lock():
        pass
