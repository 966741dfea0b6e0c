"""Files that are written completely or not at all."""

import errno
import os

import numpy as np
import pytest

from supcon_tf.errors import UserError
from supcon_tf.files import expanded, replacing, write_text
from supcon_tf.json_files import read_json
from supcon_tf.run_dir import RunDir


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError()])
def test_a_file_whose_writing_fails_keeps_its_old_content(tmp_path, error):
    file = tmp_path / "report.html"
    write_text(file, "old")

    def write_half():
        with replacing(file) as partial:
            partial.write_text("half of")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_full_disk_is_an_error_with_the_name_of_the_file(tmp_path):
    file = tmp_path / "curves.json"
    with pytest.raises(OSError, match="No space left") as error, replacing(file):
        # So it is raised by a write, without the name.
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(file)


def test_arrays_keep_the_suffix_that_numpy_needs(tmp_path):
    RunDir(tmp_path).save_scored_split(labels=np.arange(3))
    assert os.listdir(tmp_path) == ["test_split.npz"]


@pytest.mark.parametrize("content", [b"", b'{"pretrain": {"lo', b"[1]", b"\xff\xfe\x00"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    file = tmp_path / "metrics.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.json' is damaged \(.*\): remove it, and the"):
        read_json(file)


def test_a_path_with_a_nul_character_is_rejected():
    with pytest.raises(UserError, match=r"must not have a NUL character, got 'a\\x00b'"):
        expanded("a\0b")
