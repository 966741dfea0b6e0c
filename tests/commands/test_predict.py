"""Predict: bad images, names, interruptions and labels do not lose or change predictions."""

import os

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import predict
from supcon_tf.errors import UserError
from supcon_tf.evaluation import prediction
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


def run(export, images, output, *more):
    predict.main([f"--export={export}", f"--images={images}", f"--output={output}", *more])


def test_a_bad_image_in_a_batch_loses_only_itself(export, images, tmp_path, capsys):
    whole = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(whole[: len(whole) // 2])
    (images / "3.png").write_bytes(b"")
    run(export, images, tmp_path / "out.npz")
    written = np.load(tmp_path / "out.npz")
    assert [os.path.basename(path) for path in written["paths"]] == [
        *("0.png", "2.png", "4.png", "5.png"),
    ]
    # Names are split at line feeds only: the third class is the third line.
    assert list(written["labels"]) == [NAMES[0], NAMES[2], NAMES[1], NAMES[2]]
    shown = capsys.readouterr()
    for name in ("1.png", "3.png"):
        assert f"{name}', which cannot be read as an image" in shown.err
    assert "done: 4 images" in shown.out
    assert "2 left out" in shown.out


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_paths_that_are_not_utf_8_are_kept(export, images, tmp_path, suffix):
    path = os.path.join(os.fsencode(images), b"caf\xe9.png")
    save_image(path, 1)
    output = tmp_path / f"out{suffix}"
    run(export, images, output)
    if suffix == ".npz":
        assert path in [os.fsencode(name) for name in np.load(output)["paths"]]
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
        assert len(np.load(partial / "part_000000.npz")["paths"]) == 4
    monkeypatch.undo()
    run(export, images, output)
    assert not partial.exists()


def test_the_batch_size_does_not_change_the_file(export, images, tmp_path, monkeypatch):
    from supcon_tf.evaluation import prediction_files

    run(export, images, tmp_path / "whole.npz")
    monkeypatch.setattr(prediction_files, "IMAGES_PER_PART", 2)
    run(export, images, tmp_path / "parts.npz", "--batch_size=1")
    whole, parts = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "parts"))
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
