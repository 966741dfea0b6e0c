"""The exported model: the same numbers as Keras, alone in a process, and over folders."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import export, models, predict
from supcon_tf.data.views import Preprocessing
from supcon_tf.errors import UserError
from supcon_tf.evaluation.saved_model import save_serving_model
from supcon_tf.evaluation.scorer import Scorer
from supcon_tf.run_dir import RunDir

PREPROCESSING = Preprocessing(image_px=16)


@pytest.fixture(scope="module")
def scorer():
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model = models.classification_model(encoder, image_shape=(16, 16, 3), num_classes=3)
    return Scorer(model, preprocessing=PREPROCESSING, batch_size=4, stage="testing").model


@pytest.fixture(scope="module")
def workdir(scorer, tmp_path_factory):
    folder = RunDir(tmp_path_factory.mktemp("run"))
    save_serving_model(
        folder.export, scorer, preprocessing=PREPROCESSING, class_names=("cat", "dog", "owl")
    )
    return folder.root


def photos(count, height=30, width=40):
    noise = tf.random.stateless_uniform([count, height, width, 3], [3, 4], 0, 256, tf.int32)
    return tf.cast(noise, tf.uint8)


def test_both_signatures_return_the_outputs_of_keras(scorer, workdir):
    loaded = tf.saved_model.load(str(workdir / "export"))
    images = photos(3)
    expected = scorer(PREPROCESSING.evaluation_view(images))
    from_images = loaded.signatures["serving_default"](images=images)
    encoded = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    from_files = loaded.signatures["serving_jpeg"](encoded=encoded)
    for outputs in (from_images, from_files):
        for name in ("embedding", "probabilities"):
            np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)
        assert outputs["label"].dtype == tf.int64
        np.testing.assert_array_equal(
            outputs["label"], np.argmax(expected["probabilities"], axis=1)
        )


def test_an_encoder_alone_exports_embeddings_only(scorer, tmp_path):
    save_serving_model(tmp_path / "export", scorer, preprocessing=PREPROCESSING, class_names=None)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    assert set(loaded.signatures["serving_default"](images=photos(1))) == {"embedding"}
    assert not (tmp_path / "export" / "labels.txt").exists()


def test_the_export_needs_tensorflow_only(workdir, tmp_path):
    output = tmp_path / "model"
    export.main([f"--workdir={workdir}", f"--output={output}"])
    code = (
        "import sys, tensorflow as tf\n"
        f"model = tf.saved_model.load({str(output)!r})\n"
        "images = tf.zeros([2, 50, 60, 3], tf.uint8)\n"
        "print(model.signatures['serving_default'](images=images)['label'].shape)\n"
        "print('supcon_tf' in sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["(2,)", "False"]
    assert (output / "labels.txt").read_text() == "cat\ndog\nowl\n"
    with pytest.raises(UserError, match="is not empty: give a new directory"):
        export.main([f"--workdir={workdir}", f"--output={output}"])


@pytest.fixture
def picture_folder(tmp_path):
    root = tmp_path / "pictures"
    (root / "below").mkdir(parents=True)
    for number, image in enumerate(photos(5)):
        place = root / "below" if number % 2 else root
        (place / f"{number}.png").write_bytes(tf.io.encode_png(image[: 20 + number]).numpy())
    return root


def test_predict_writes_paths_embeddings_and_labels(scorer, workdir, picture_folder, tmp_path):
    output = tmp_path / "out.npz"
    predict.main(
        [
            f"--export={workdir / 'export'}",
            f"--images={picture_folder}",
            f"--output={output}",
            "--batch_size=2",
        ]
    )
    with np.load(output, allow_pickle=False) as file:
        written = dict(file)
    assert set(written) == {"paths", "embeddings", "labels", "probabilities"}
    assert len(written["paths"]) == 5
    for path, embedding, label in zip(
        written["paths"], written["embeddings"], written["labels"], strict=True
    ):
        image = tf.io.decode_image(Path(path).read_bytes())
        expected = scorer(PREPROCESSING.evaluation_view(image)[None])
        np.testing.assert_allclose(embedding, expected["embedding"][0], atol=1e-5)
        assert label == ("cat", "dog", "owl")[int(tf.argmax(expected["probabilities"][0]))]


def test_predict_reports_and_leaves_out_unreadable_images(
    workdir, picture_folder, tmp_path, capsys
):
    (picture_folder / "broken.jpg").write_bytes(b"no image")
    (picture_folder / "gone.jpg").symlink_to(picture_folder / "nowhere.jpg")
    for name in ("folder.jpg", "folder.npz"):
        (picture_folder / name).mkdir()
    output = tmp_path / "out.csv"
    predict.main(
        [f"--export={workdir / 'export'}", f"--images={picture_folder}", f"--output={output}"]
    )
    rows = output.read_text().splitlines()
    assert rows[0].startswith("path,label,probability,embedding_0,")
    assert len(rows) == 6
    shown = capsys.readouterr()
    assert "broken.jpg', which cannot be read as an image" in shown.err
    # A broken link.
    assert "gone.jpg" in shown.out
    with pytest.raises(ValueError, match="--output must be a file that can be written"):
        predict.main(
            [
                f"--export={workdir / 'export'}",
                f"--images={picture_folder}",
                f"--output={picture_folder / 'folder.npz'}",
            ]
        )
    with pytest.raises(ValueError, match="none of the 1 images can be read"):
        predict.main(
            [
                f"--export={workdir / 'export'}",
                f"--images={picture_folder / 'broken.jpg'}",
                f"--output={output}",
            ]
        )
