"""The audit command on a run with a tiny model."""

import csv
import re
import shutil

import numpy as np
import pytest

from supcon_tf import audit
from supcon_tf.errors import UserError
from supcon_tf.json_files import write_checksums
from supcon_tf.run_dir import RunDir
from tests.commands.tiny_export import save_pixels, save_tiny_export

CONFIG = """from __gin__ import dynamic_registration
from supcon_tf.data import sources
from supcon_tf.stages import pretrain

pretrain.run.source = {source}
{more}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Red and blue photos in a run's folder; "red/wrong.png" is blue, "blue/copy.png" a copy."""
    root = tmp_path_factory.mktemp("audited")
    rng = np.random.default_rng(0)
    for name, color in {"red": (200, 40, 40), "blue": (40, 40, 200)}.items():
        folder = root / "images" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = np.array(color) + rng.integers(-40, 41, (8, 8, 3))
            save_pixels(folder / f"{number}.png", pixels.astype(np.uint8))
    pixels = np.array((40, 40, 200)) + rng.integers(-40, 41, (8, 8, 3))
    save_pixels(root / "images" / "red" / "wrong.png", pixels.astype(np.uint8))
    shutil.copy(root / "images" / "red" / "3.png", root / "images" / "blue" / "copy.png")
    path = root / "run"
    path.mkdir()
    more = f"sources.folder.root = {str(root / 'images')!r}"
    (path / "config.gin").write_text(CONFIG.format(source="@sources.folder()", more=more))
    save_tiny_export(path / "export")
    RunDir(path).set_metrics("pretrain", {"loss": 1.0})
    return path


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_planted_findings_are_in_the_tables_and_on_the_page(run, tmp_path, capsys):
    audit.main([f"--workdir={run}", "--num_neighbors=5", f"--output={tmp_path / 'found'}"])
    images = run.parent / "images"
    pairs = rows_of(tmp_path / "found" / "duplicates.csv")
    names = {(pair["path_1"], pair["path_2"]) for pair in pairs}
    original, copy = str(images / "red" / "3.png"), str(images / "blue" / "copy.png")
    assert names in ({(original, copy)}, {(copy, original)})
    assert {pairs[0]["label_1"], pairs[0]["label_2"]} == {"red", "blue"}
    errors = {
        row["path"]: row["suggestion"] for row in rows_of(tmp_path / "found" / "label_errors.csv")
    }
    assert errors == {str(images / "red" / "wrong.png"): "blue", copy: "red"}
    page = (tmp_path / "found" / "audit.html").read_text()
    assert page.count("data:image/webp;base64,") == 4
    assert "different labels" in page
    assert "http://" not in page
    assert "26 images: 1 pairs of near-duplicates, 2 likely label errors" in capsys.readouterr().out


def test_arrays_of_pixels_are_named_by_split_and_number(run, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.gin").write_text(CONFIG.format(source="@sources.digits()", more=""))
    shutil.copytree(run / "export", path / "export")
    RunDir(path).set_metrics("pretrain", {"loss": 1.0})
    audit.main([f"--workdir={path}", "--duplicate_similarity=0.99"])
    names = [row["path_1"] for row in rows_of(path / "audit" / "duplicates.csv")]
    assert names
    assert all(re.fullmatch(r"(train|test) \d+", name) for name in names)


def with_other_labels(path):
    labels = path / "export" / "labels.txt"
    labels.write_text("cat\ndog\n")
    write_checksums(path / "export")
    labels.write_text("dog\ncat\n")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: (path / "config.gin").unlink(), "no run in .* makes one"),
        (lambda path: shutil.rmtree(path / "export"), "no trained model in .* continues it"),
        (
            lambda path: (path / "config.gin").write_text(CONFIG.split("\n")[0]),
            "no source of the images of pretrain in",
        ),
        (
            lambda path: (path / "config.gin").write_text("import os\n"),
            "--trust",
        ),
        (lambda path: (path / "metrics.json").unlink(), "no results of a finished stage"),
        (with_other_labels, "labels.txt' has changed since it was written"),
    ],
)
def test_runs_that_cannot_be_audited_are_refused_in_one_line(run, tmp_path, change, says):
    path = tmp_path / "run"
    shutil.copytree(run, path)
    change(path)
    with pytest.raises(UserError, match=says) as raised:
        audit.main([f"--workdir={path}"])
    assert "\n" not in str(raised.value)
    assert not (path / "audit").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--workdir is needed"),
        (
            ["--workdir=x", "--duplicate_similarity=2"],
            "--duplicate_similarity must be a number > 0 and <= 1",
        ),
    ],
)
def test_wrong_flags_are_rejected(arguments, says):
    with pytest.raises(UserError, match=says):
        audit.main(arguments)
