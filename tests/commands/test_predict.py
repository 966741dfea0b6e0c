"""Predict: bad images, names, interruptions and labels do not lose or change predictions."""

import csv
import os
import sys

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins import projector

from supcon_tf import predict
from supcon_tf.errors import UserError
from supcon_tf.evaluation import prediction
from supcon_tf.evaluation.temperature import write_temperature
from tests.commands.tiny_export import NAMES, TinyExport, save_image, save_tiny_export


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return save_tiny_export(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(6):
        save_image(root / f"{number}.png", number % 3)
    return root


def arrays_of(file):
    """The arrays of an .npz file, which is closed."""
    with np.load(file) as opened:
        return dict(opened)


def run(export, images, output, *more):
    predict.main([f"--export={export}", f"--images={images}", f"--output={output}", *more])


def test_a_bad_image_in_a_batch_loses_only_itself(export, images, tmp_path, capsys):
    whole = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(whole[: len(whole) // 2])
    (images / "3.png").write_bytes(b"")
    run(export, images, tmp_path / "out.npz")
    written = arrays_of(tmp_path / "out.npz")
    assert [os.path.basename(path) for path in written["paths"]] == [
        *("0.png", "2.png", "4.png", "5.png"),
    ]
    # Names are split at line feeds only: the third class is the third line.
    assert list(written["labels"]) == [NAMES[0], NAMES[2], NAMES[1], NAMES[2]]
    shown = capsys.readouterr()
    for name in ("1.png", "3.png"):
        assert f"{name}', which cannot be read as an image" in shown.err
    # The reason itself, not the first line of TensorFlow's report.
    assert "1.png', which cannot be read as an image: Invalid PNG. " in shown.err
    assert "done: 4 images" in shown.out
    assert "2 left out" in shown.out


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_paths_that_are_not_utf_8_are_kept(export, images, tmp_path, suffix):
    path = os.path.join(os.fsencode(images), b"caf\xe9.png")
    save_image(path, 1)
    output = tmp_path / f"out{suffix}"
    run(export, images, output)
    if suffix == ".npz":
        assert path in [os.fsencode(name) for name in arrays_of(output)["paths"]]
    else:
        assert any("caf\\udce9.png,dog" in row for row in output.read_text().split("\n"))


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_an_interruption_keeps_the_predictions_so_far(
    export, images, tmp_path, monkeypatch, suffix
):
    output = tmp_path / f"out{suffix}"
    output.write_text("of an earlier command")
    read = prediction.read_encoded

    def read_until_ctrl_c(path):
        if path.endswith("4.png"):
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(prediction, "read_encoded", read_until_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        run(export, images, output, "--batch_size=2")
    assert output.read_text() == "of an earlier command"
    partial = tmp_path / f"out{suffix}.partial"
    if suffix == ".csv":
        assert partial.read_text().count("\n") == 1 + 4
    else:
        assert len(arrays_of(partial / "part_000000.npz")["paths"]) == 4
    monkeypatch.undo()
    run(export, images, output)
    assert not partial.exists()


def test_the_batch_size_does_not_change_the_file(export, images, tmp_path, monkeypatch):
    from supcon_tf.evaluation import prediction_files

    run(export, images, tmp_path / "whole.npz")
    monkeypatch.setattr(prediction_files, "IMAGES_PER_PART", 2)
    run(export, images, tmp_path / "parts.npz", "--batch_size=1")
    whole, parts = (arrays_of(tmp_path / f"{name}.npz") for name in ("whole", "parts"))
    assert set(whole) == set(parts) == {"paths", "embeddings", "labels", "probabilities"}
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"cat\ndog\n", "a line for each of the model's 3 classes, got 2"),
        (b"cat\nd\xf6g\nowl\n", "is not UTF-8 text"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_rejected_first(
    export, images, tmp_path, content, says
):
    labels = export / "labels.txt"
    before = labels.read_bytes()
    labels.write_bytes(content)
    try:
        with pytest.raises(UserError, match=says):
            run(export, images, tmp_path / "out.npz")
    finally:
        labels.write_bytes(before)
    assert not (tmp_path / "out.npz.partial").exists()


def test_an_export_without_the_signature_is_rejected(images, tmp_path):
    module = TinyExport()
    tf.saved_model.save(module, str(tmp_path / "other"), signatures={"another": module.answer})
    with pytest.raises(UserError, match="no signature 'serving_jpeg'"):
        run(tmp_path / "other", images, tmp_path / "out.npz")


def test_a_model_that_uses_files_is_refused_unless_it_is_trusted(export, images, tmp_path):
    written = str(tmp_path / "written")

    module = TinyExport()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])
    def answer(encoded):
        tf.io.write_file(written, "text")
        return module.answer(encoded)

    stranger = tmp_path / "stranger"
    tf.saved_model.save(module, str(stranger), signatures={"serving_jpeg": answer})
    (stranger / "labels.txt").write_bytes((export / "labels.txt").read_bytes())
    with pytest.raises(UserError, match=r"has the operation WriteFile, .*--trust if you trust"):
        run(stranger, images, tmp_path / "out.npz")
    assert not os.path.exists(written)
    run(stranger, images, tmp_path / "out.npz", "--trust")
    assert os.path.exists(written)


def test_a_parquet_file_has_the_rows_of_the_csv_file(export, images, tmp_path, monkeypatch):
    from supcon_tf.evaluation import prediction_files

    monkeypatch.setattr(prediction_files, "IMAGES_PER_PART", 2)
    save_image(os.path.join(os.fsencode(images), b"caf\xe9.png"), 1)
    run(export, images, tmp_path / "out.csv")
    run(export, images, tmp_path / "out.parquet", "--batch_size=1")
    run(export, images, tmp_path / "out.npz")
    written = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("path", "label"):
        assert written[name] == [row[name] for row in rows]
    np.testing.assert_array_equal(
        np.float32(written["probability"]), [np.float32(row["probability"]) for row in rows]
    )
    arrays = arrays_of(tmp_path / "out.npz")
    np.testing.assert_array_equal(np.float32(written["embedding"]), arrays["embeddings"])
    np.testing.assert_array_equal(np.float32(written["probabilities"]), arrays["probabilities"])
    assert list(written) == ["path", "label", "probability", "probabilities", "embedding"]
    assert not (tmp_path / "out.parquet.partial").exists()


def test_an_interrupted_parquet_file_can_be_read(tmp_path):
    from supcon_tf.evaluation.prediction_files import open_writer

    outputs = {"embedding": np.ones((1, 2), np.float32)}

    def write():
        with open_writer(tmp_path / "out.parquet") as writer:
            writer.add(["a.png"], outputs)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet.partial").to_pylist()
    assert rows == [{"path": "a.png", "embedding": [1.0, 1.0]}]


def test_a_parquet_file_without_pyarrow_names_what_to_install(
    export, images, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"a \.parquet file needs pyarrow .*: pip install pyarrow"):
        run(export, images, tmp_path / "out.parquet")


def test_the_projector_files_have_a_point_and_a_picture_of_each_image(export, images, tmp_path):
    (images / "3.png").write_bytes(b"")  # Unreadable, so that it is in no file.
    (images / "4.png").rename(images / "4\t.png")
    folder = tmp_path / "map"
    run(export, images, tmp_path / "out.npz", f"--projector={folder}", "--batch_size=2")
    arrays = arrays_of(tmp_path / "out.npz")
    [embeddings] = text_format.Parse(
        (folder / "projector_config.pbtxt").read_text(), projector.ProjectorConfig()
    ).embeddings
    tensors = np.loadtxt(folder / embeddings.tensor_path, delimiter="\t")
    np.testing.assert_allclose(tensors, arrays["embeddings"], rtol=1e-6)
    lines = (folder / embeddings.metadata_path).read_text().split("\n")
    assert lines[0].split("\t") == ["path", "label", "probability", "folder"]
    rows = [line.split("\t") for line in lines[1:-1]]
    assert [row[0] for row in rows] == [path.replace("\t", " ") for path in arrays["paths"]]
    assert {row[3] for row in rows} == {"images"}
    # Six images, so three pictures to a row, and two rows for the five that can be read.
    assert list(embeddings.sprite.single_image_dim) == [48, 48]
    sprite = tf.io.decode_png((folder / embeddings.sprite.image_path).read_bytes()).numpy()
    assert sprite.shape == (2 * 48, 3 * 48, 3)
    centres = sprite[24::48, 24::48].reshape(-1, 3)  # [6, 3]
    assert centres.max(axis=1).tolist() == [200] * 5 + [0]
    assert centres[:5].argmax(axis=1).tolist() == [0, 1, 2, 1, 2]
    assert not (tmp_path / "map.partial").exists()


def test_the_projector_needs_a_new_directory(export, images, tmp_path):
    with pytest.raises(UserError, match="is not empty: give a new directory"):
        run(export, images, tmp_path / "out.npz", f"--projector={images}")


def test_the_pictures_of_many_images_fit_into_one():
    from supcon_tf.evaluation.projector_files import MAX_SPRITE_PX, picture_px

    assert [picture_px(per_row) for per_row in (1, 170, 171, 8192, 10**4)] == [48, 48, 47, 1, 1]
    assert 171 * picture_px(171) <= MAX_SPRITE_PX


def test_calibrated_probabilities_are_scaled_by_the_temperature_of_the_export(images, tmp_path):
    export = save_tiny_export(tmp_path / "model")
    with pytest.raises(UserError, match=r"model' has no temperature: .*validation_share"):
        run(export, images, tmp_path / "out.npz", "--calibrated")
    write_temperature(export, 2.0)
    run(export, images, tmp_path / "plain.npz")
    run(export, images, tmp_path / "calibrated.npz", "--calibrated")
    plain, calibrated = (arrays_of(tmp_path / f"{name}.npz") for name in ("plain", "calibrated"))
    # The channels are 200, 10 and 10.
    assert plain["probabilities"][0] == pytest.approx(np.array([200, 10, 10]) / 220)
    roots = np.sqrt([200, 10, 10])
    assert calibrated["probabilities"][0] == pytest.approx(roots / roots.sum())
    assert calibrated["probabilities"].dtype == np.float32
    for name in ("labels", "embeddings"):
        np.testing.assert_array_equal(calibrated[name], plain[name])
