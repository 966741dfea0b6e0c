"""The index command, and predict with an index."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from supcon_tf import index, predict
from supcon_tf.errors import UserError
from supcon_tf.export import calibrated_index
from supcon_tf.index import Index
from supcon_tf.search import model_checksum
from tests.commands.tiny_export import save_pixels, save_tiny_export

# Mean colours: the embeddings of the tiny model.
COLORS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return save_tiny_export(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of ten images, and folders of yellow and of grey images."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    others = {"yellow": (200, 200, 20), "grey": (99, 99, 99)}
    for name, color in {**COLORS, **others}.items():
        folder = root / ("photos" if name in COLORS else "others") / name
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = np.full((2, 2, 3), color) + rng.integers(-15, 16, 3)
            save_pixels(folder / f"{number}.png", pixels.astype(np.uint8))
    return root


def build(export, photos, output, *more):
    index.main([f"--export={export}", f"--images={photos}", f"--output={output}", *more])
    return output


def predict_with(export, built, output, *more):
    predict.main([f"--export={export}", f"--index={built}", f"--output={output}", *more])


def rows_of(file):
    with open(file, newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def built(export, photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("index") / "index"
    return build(export, photos / "photos", output, f"--unknown_images={photos / 'others'}")


def test_the_index_has_all_images_and_the_measured_detection(built, photos, capsys):
    loaded = Index.load(built)
    assert len(loaded) == 30
    assert set(loaded.labels) == set(COLORS)
    path = str(photos / "photos" / "red" / "3.png")
    assert loaded.labels[loaded.paths.index(path)] == "red"
    saved = json.loads((built / "index.json").read_text())["calibration"]
    assert (saved["num_images"], saved["num_unknown"]) == (30, 20)
    assert saved["match"]["precision"] == saved["match"]["recall"] == 1.0
    # Yellow and grey are far from the three classes.
    assert saved["detection"]["knn"] == {"auroc": 1.0, "fpr95": 0.0, "aupr": 1.0}


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_predict_writes_neighbors_matches_and_unknown_images(
    export, built, photos, tmp_path, suffix
):
    output = tmp_path / f"out{suffix}"
    predict_with(
        *(export, built, output, "--num_neighbors=2"),
        *(f"--images={photos / 'photos' / 'red'}", f"--images={photos / 'others' / 'yellow'}"),
    )
    if suffix == ".csv":
        rows = rows_of(output)
        assert [row["is_unknown"] for row in rows] == ["False"] * 10 + ["True"] * 10
        assert [row["is_match"] for row in rows[:10]] == ["True"] * 10
        # An image of the index is its own nearest neighbour.
        assert [row["neighbor_1_path"] for row in rows[:10]] == [row["path"] for row in rows[:10]]
        assert {row["neighbor_2_label"] for row in rows[:10]} == {"red"}
        assert [float(row["neighbor_1_similarity"]) for row in rows[:10]] == pytest.approx([1] * 10)
        assert "neighbor_3_path" not in rows[0]
        names = list(rows[0])
        assert names.index("is_unknown") == names.index("embedding_0") - 1
    else:
        with np.load(output) as file:
            written = dict(file)
        assert set(written) == {
            *("paths", "embeddings", "labels", "probabilities", "neighbor_paths"),
            *("neighbor_labels", "neighbor_similarities", "is_match", "unknown_scores"),
            "is_unknown",
        }
        assert written["neighbor_paths"].shape == (20, 2)
        assert written["is_unknown"].tolist() == [False] * 10 + [True] * 10
        scores = Index.load(built).unknown_scores(written["embeddings"])
        np.testing.assert_allclose(written["unknown_scores"], scores, atol=1e-3)


def test_a_class_that_is_left_out_is_unknown(export, photos, tmp_path, capsys):
    output = build(
        *(export, photos / "photos", tmp_path / "index"),
        *("--unknown_class=blue", "--unknown_score=mahalanobis", "--num_neighbors=3"),
    )
    loaded = Index.load(output)
    assert set(loaded.labels) == {"red", "green"}
    assert loaded.calibration.num_unknown == 10
    shown = capsys.readouterr().out
    assert "unknown: mahalanobis score > " in shown
    assert "10 unknown images, mahalanobis score: AUROC 1.000, FPR95 0.000" in shown
    assert f"done: 20 images of 2 classes in {str(output)!r}" in shown


def test_other_images_calibrate_and_an_index_is_replaced(export, photos, tmp_path, capsys):
    output = build(export, photos / "photos", tmp_path / "index")
    # All labels are wrong.
    for other, color in zip(["green", "blue", "red"], COLORS.values(), strict=True):
        for number in range(10):
            path = tmp_path / "swapped" / other / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_pixels(path, np.full((3, 3, 3), color, np.uint8) + np.uint8(number))
    build(
        *(export, photos / "photos", output),
        *(f"--calibration_images={tmp_path / 'swapped'}", "--approximate"),
    )
    shown = capsys.readouterr().out
    assert "no similarity reaches a precision of 0.95, highest 0.000: no image is called" in shown
    assert Index.load(output).calibration.num_images == 30
    assert (output / "graph.usearch").is_file()
    predict_with(
        *(export, output, tmp_path / "out.csv"),
        f"--images={photos / 'photos' / 'red'}",
    )
    assert {row["is_match"] for row in rows_of(tmp_path / "out.csv")} == {"False"}


@pytest.mark.parametrize("flag", ["--calibration_images", "--unknown_images"])
def test_images_that_are_in_the_index_are_refused(export, photos, tmp_path, flag):
    (tmp_path / "link").symlink_to(photos / "photos")
    with pytest.raises(
        UserError, match=f"{flag} has .*link.*0.png' and --images has .*0.png', the same image: l"
    ):
        build(export, photos / "photos", tmp_path / "index", f"{flag}={tmp_path / 'link'}")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("flag", ["--calibration_images", "--unknown_images"])
def test_copies_of_images_that_are_in_the_index_are_refused(export, photos, tmp_path, flag):
    for name in COLORS:
        (tmp_path / "copies" / name).mkdir(parents=True)
        shutil.copy(photos / "photos" / name / "3.png", tmp_path / "copies" / name / "new.png")
    with pytest.raises(
        UserError, match=f"{flag} has '.*new.png' and --images has '.*3.png', the same image: leav"
    ):
        build(export, photos / "photos", tmp_path / "index", f"{flag}={tmp_path / 'copies'}")
    assert not (tmp_path / "index").exists()


def test_copies_within_a_folder_are_counted(export, photos, tmp_path, capsys):
    shutil.copytree(photos / "photos", tmp_path / "images")
    for number in (3, 4):
        shutil.copy(
            tmp_path / "images" / "red" / f"{number}.png", tmp_path / f"images/red/z{number}.png"
        )
    # Not copies, but unreadable: a file without content.
    for name in ("red", "blue"):
        (tmp_path / "images" / name / "empty.png").touch()
    build(export, tmp_path / "images", tmp_path / "index")
    shown = capsys.readouterr().out
    assert "--images has 2 copies, such as " in shown
    assert "--images: 2 of 34 images are left out" in shown


def test_calibration_images_must_remain_and_classes_without_any_are_named(
    export, photos, tmp_path, capsys
):
    for name in ("red", "Blue"):
        (tmp_path / "test" / name).mkdir(parents=True)
        save_pixels(tmp_path / "test" / name / "a.png", np.full((4, 4, 3), 90, np.uint8))
    calibrated = f"--calibration_images={tmp_path / 'test'}"
    with pytest.raises(UserError, match=r"class 'Blue', which .*: did you mean 'blue'"):
        build(export, photos / "photos", tmp_path / "index", calibrated)
    shutil.rmtree(tmp_path / "test" / "Blue")
    with pytest.raises(UserError, match="has only classes that --unknown_class leaves out"):
        build(export, photos / "photos", tmp_path / "index", calibrated, "--unknown_class=red")
    build(export, photos / "photos", tmp_path / "index", calibrated)
    assert "2 of 3 classes have no calibration images, such as 'blue'" in capsys.readouterr().out


def test_calibration_images_and_images_must_both_have_labels(export, photos, tmp_path):
    flat, labelled = photos / "others" / "grey", photos / "photos"
    with pytest.raises(UserError, match="--calibration_images has no class folders, so that no"):
        build(export, labelled, tmp_path / "index", f"--calibration_images={flat}")
    with pytest.raises(UserError, match="--calibration_images has class folders and --images has"):
        build(export, flat, tmp_path / "index", f"--calibration_images={labelled}")


def test_one_class_folder_is_enough(export, photos, tmp_path, capsys):
    shutil.copytree(photos / "photos" / "red", tmp_path / "images" / "red")
    output = build(export, tmp_path / "images", tmp_path / "index")
    assert set(Index.load(output).labels) == {"red"}
    shown = capsys.readouterr().out
    assert "done: 10 images of 1 class in " in shown
    assert "match: no threshold, as the index has only one class" in shown
    # A subfolder beside the images is no class.
    shutil.copytree(photos / "photos" / "red", tmp_path / "flat")
    shutil.copytree(photos / "photos" / "red", tmp_path / "flat" / "thumbs")
    with pytest.raises(UserError, match=r"at least two class folders are needed .* only 'thumbs'"):
        build(export, tmp_path / "flat", tmp_path / "other")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no images in "):
        build(export, tmp_path / "none", tmp_path / "other")


@pytest.mark.parametrize("added", [True, False])
def test_a_class_that_has_changed_after_the_calibration_is_named(
    export, built, photos, tmp_path, capsys, added
):
    changed = Index.load(built)
    if added:
        changed.add([[9.0, 9, 9]], ["grey.png"], ["grey"])
    else:
        changed.remove([path for path in changed.paths if "/red/" in path])
    name = "grey" if added else "red"
    assert changed.changed_classes == [name]
    changed.save(tmp_path / "index")
    predict_with(
        export, tmp_path / "index", tmp_path / "a.csv", f"--images={photos / 'photos' / 'red'}"
    )
    assert (
        f"warning: the class '{name}' was added to the index or removed" in capsys.readouterr().out
    )
    with pytest.raises(
        UserError, match=f"the class '{name}' was added .* or removed .*: call cali"
    ):
        calibrated_index(str(tmp_path / "index"), export)
    changed.calibrate()
    assert changed.changed_classes == []


def test_a_class_smaller_than_the_number_of_neighbors_is_named(export, photos, tmp_path, capsys):
    shutil.copytree(photos / "photos", tmp_path / "images")
    for number in range(3, 10):
        (tmp_path / "images" / "red" / f"{number}.png").unlink()
    build(export, tmp_path / "images", tmp_path / "index", "--num_neighbors=4")
    warning = "warning: the class 'red' has at most k = 4 images"
    assert warning in capsys.readouterr().out
    new = f"--images={photos / 'photos' / 'red'}"
    predict_with(export, tmp_path / "index", tmp_path / "a.csv", new)
    assert warning in capsys.readouterr().out
    build(export, tmp_path / "images", tmp_path / "index", "--num_neighbors=2")
    assert "warning" not in capsys.readouterr().out


def test_calibration_images_of_other_classes_are_refused(export, photos, tmp_path):
    with pytest.raises(UserError, match="--calibration_images has the class 'grey', which the ind"):
        build(
            *(export, photos / "photos", tmp_path / "index"),
            f"--calibration_images={photos / 'others'}",
        )


def test_images_without_labels_are_searched(export, photos, tmp_path):
    output = build(export, photos / "photos" / "red", tmp_path / "index")
    assert set(Index.load(output).labels) == {""}
    predict_with(
        *(export, output, tmp_path / "out.csv"),
        f"--images={photos / 'photos' / 'red'}",
    )
    assert "is_match" not in rows_of(tmp_path / "out.csv")[0]


def test_an_index_of_another_model_is_refused(built, photos, tmp_path):
    other = save_tiny_export(tmp_path / "other")
    (other / "saved_model.pb").write_bytes((other / "saved_model.pb").read_bytes() + b"\0")
    with pytest.raises(
        UserError, match=r"is of another model than the one in .*build it again with that one"
    ):
        predict_with(other, built, tmp_path / "out.csv", f"--images={photos}")
    assert not (tmp_path / "out.csv").exists()


def test_predict_warns_of_an_index_that_does_not_record_its_model(export, tmp_path, capsys):
    unknown_model = Index(np.eye(3), ["a", "b", "c"])
    unknown_model.save(tmp_path / "index")
    predict.load_index(str(tmp_path / "index"), export)
    shown = capsys.readouterr().out
    assert shown.startswith("warning: the index in ")
    assert shown.count("\n") == 1
    assert "has no model checksum, so it may be of another model than the one in" in shown
    unknown_model.model_checksum = model_checksum(export)
    unknown_model.save(tmp_path / "index")
    predict.load_index(str(tmp_path / "index"), export)
    assert not capsys.readouterr().out


def test_an_index_of_other_embeddings_is_refused(export, photos, tmp_path):
    Index(np.ones((1, 4)), ["a.png"]).save(tmp_path / "index")
    with pytest.raises(UserError, match="embeddings of 4 numbers, got 3: use the model"):
        predict_with(export, tmp_path / "index", tmp_path / "out.csv", f"--images={photos}")
    assert not (tmp_path / "out.csv.partial").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--precision=2"], "--precision must be a number > 0 and <= 1, got 2"),
        (["--known_share=0"], "--known_share must be a number > 0"),
        (["--unknown_class=cat"], "no class 'cat' to leave out, the first classes are 'blue'"),
        ([f"--unknown_class={name}" for name in COLORS], "all classes are left out"),
        (["--unknown_class=red", "--unknown_images=x"], "--unknown_images or --unknown_class, not"),
        (["--unknown_images=missing"], "no image or folder 'missing'"),
        (["--calibration_images=missing"], "no folder 'missing'"),
        (["--images=missing"], "no folder 'missing'"),
        (["--export=missing"], "no SavedModel in 'missing'"),
        (["--output=."], "'.' has '.*', which is not a file of an index"),
        (["--images="], "--images is needed"),
    ],
)
def test_wrong_flags_are_rejected_in_one_line(export, photos, tmp_path, more, says):
    with pytest.raises(UserError, match=says) as raised:
        build(export, photos / "photos", tmp_path / "index", *more)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "index").exists()


def test_the_example_of_the_page_adds_a_class_whose_new_images_are_known(
    export, photos, tmp_path, capsys, monkeypatch
):
    page = Path(__file__).parents[2].joinpath("docs", "search.md").read_text()
    verdicts, added = re.findall(r"runs as a test. -->\n```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    for name, color in COLORS.items():
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        for number in range(4):
            save_pixels(folder / f"{number}.png", np.full((3, 3, 3), color, np.uint8) + number)
    folder = tmp_path / "new"
    folder.mkdir()
    save_pixels(folder / "red.png", np.full((2, 2, 3), (205, 20, 20), np.uint8))
    for number in range(16):
        save_pixels(
            folder / f"yellow_{number}.png", np.full((2, 2, 3), (200 + number, 200, 20), np.uint8)
        )
    build(
        *(export, photos / "photos", "index", "--calibration_images=test", "--precision=0.9"),
        *(f"--unknown_images={photos / 'others'}", "--num_neighbors=2"),
    )
    for name in ("new", "test"):
        predict_with(export, "index", f"{name}.npz", f"--images={name}")
    capsys.readouterr()
    exec(verdicts, scope := {})
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("new/red.png is red, as ")
    assert shown[1] == "new/yellow_0.png is of no known class"
    exec(added, scope)
    changed = Index.load("index")
    assert changed.labels.count("new class") == 16
    assert changed.changed_classes == changed.small_classes == []
    assert (changed.calibration.match.wanted_precision, changed.calibration.num_images) == (0.9, 12)
    save_pixels(tmp_path / "again.png", np.full((2, 2, 3), (207, 201, 20), np.uint8))
    predict_with(export, "index", "again.csv", "--images=again.png")
    [row] = rows_of("again.csv")
    assert (row["is_unknown"], row["neighbor_1_label"]) == ("False", "new class")


def test_importing_the_class_does_not_start_tensorflow():
    code = "import sys; from supcon_tf.index import Index; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
