"""The outputs of an exported model, its class names and empty batches."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from supcon_tf import models
from supcon_tf.data.views import Preprocessing
from supcon_tf.errors import UserError
from supcon_tf.evaluation.saved_model import save_serving_model, serving_model
from supcon_tf.evaluation.untrusted_model import check_untrusted_model

PREPROCESSING = Preprocessing(image_px=8)
NAMES = ("cat", "dog", "owl")
SHAPE = (8, 8, 3)


def encoder():
    return keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Conv2D(5, 3), keras.layers.GlobalAveragePooling2D()]
    )


def contrastive(**options):
    return models.contrastive_model(encoder(), image_shape=SHAPE, projection=(4, 2), **options)


def signatures(path, model, class_names=NAMES, **options):
    save_serving_model(
        path,
        serving_model(model, **options),
        preprocessing=PREPROCESSING,
        class_names=class_names,
        **options,
    )
    check_untrusted_model(path)
    loaded = tf.saved_model.load(str(path))
    return loaded, loaded.signatures["serving_default"], loaded.signatures["serving_jpeg"]


def photos(count):
    noise = np.random.default_rng(0).integers(0, 256, (count, 12, 10, 3), np.uint8)
    return tf.constant(noise), tf.constant([tf.io.encode_png(image).numpy() for image in noise])


def test_a_contrastive_model_gives_embedding_and_projection(tmp_path):
    model = contrastive()
    _, from_images, from_files = signatures(tmp_path / "export", model, class_names=None)
    images, encoded = photos(3)
    views = PREPROCESSING.evaluation_view(images)
    # [B, H, W, C] -> two equal views [B, 2, H, W, C]
    projection = model(tf.stack([views, views], axis=1), training=False)[:, 0]
    for outputs in (from_images(images=images), from_files(encoded=encoded)):
        assert set(outputs) == {"embedding", "projection"}
        np.testing.assert_allclose(outputs["projection"], projection, rtol=1e-5, atol=1e-6)
        assert outputs["embedding"].shape == (3, 5)


def test_an_auxiliary_classifier_is_not_exported(tmp_path):
    _, serve, _ = signatures(tmp_path / "export", contrastive(num_classes=3), class_names=None)
    assert set(serve(images=photos(1)[0])) == {"embedding", "projection"}


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_classifier_gives_logits_probabilities_and_labels(tmp_path, multi_label):
    model = models.classification_model(encoder(), image_shape=SHAPE, num_classes=3)
    _, serve, _ = signatures(tmp_path / "export", model, multi_label=multi_label)
    images, _ = photos(3)
    outputs = serve(images=images)
    logits = model(PREPROCESSING.evaluation_view(images), training=False)["logits"].numpy()
    np.testing.assert_allclose(outputs["logits"], logits, rtol=1e-5, atol=1e-6)
    exponentials = np.exp(logits)
    if multi_label:
        assert set(outputs) == {"embedding", "logits", "probabilities", "labels"}
        probabilities = exponentials / (1 + exponentials)
        np.testing.assert_array_equal(outputs["labels"], probabilities >= 0.5)
    else:
        assert set(outputs) == {"embedding", "logits", "probabilities", "label"}
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        np.testing.assert_array_equal(outputs["label"], logits.argmax(axis=1))
    np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 10), (8, 8), (0, 0)])
def test_an_empty_batch_has_empty_outputs(tmp_path, size):
    model = contrastive(num_classes=3)
    _, from_images, from_files = signatures(tmp_path / "export", model)
    expected = {"embedding": (0, 5), "projection": (0, 2), "logits": (0, 3)}
    expected |= {"probabilities": (0, 3), "label": (0,)}
    images = tf.zeros([0, *size, 3], tf.uint8)
    for outputs in (from_images(images=images), from_files(encoded=tf.zeros([0], tf.string))):
        assert {name: tuple(values.shape) for name, values in outputs.items()} == expected


def test_prepared_pixels_give_the_outputs_of_their_images(tmp_path):
    model = models.classification_model(encoder(), image_shape=SHAPE, num_classes=3)
    loaded, from_images, _ = signatures(tmp_path / "export", model)
    from_pixels = loaded.signatures["serving_pixels"]
    images, _ = photos(3)
    expected, outputs = (
        from_images(images=images),
        from_pixels(pixels=PREPROCESSING.evaluation_view(images)),
    )
    assert set(outputs) == set(expected)
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-6)
    assert from_pixels(pixels=tf.zeros([0, *SHAPE]))["embedding"].shape == (0, 5)


@pytest.mark.parametrize("mark", ["\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_class_name_with_a_line_break_is_rejected(tmp_path, mark):
    model = models.classification_model(encoder(), image_shape=SHAPE, num_classes=3)
    with pytest.raises(UserError, match=r"must not have line breaks, got 'a.*b'"):
        signatures(tmp_path / "export", model, class_names=("c", f"a{mark}b", "d"))
    assert not (tmp_path / "export").exists()


def test_class_names_are_written_in_utf_8(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONUTF8", "0")
    model = models.classification_model(encoder(), image_shape=SHAPE, num_classes=2)
    signatures(tmp_path / "export", model, class_names=("Käse", "日本"))
    assert (tmp_path / "export" / "labels.txt").read_bytes() == "Käse\n日本\n".encode()


def test_images_with_a_palette_are_served_in_colour(tmp_path):
    model = contrastive()
    _, from_images, from_files = signatures(tmp_path / "export", model, class_names=None)
    image = Image.fromarray(photos(1)[0][0].numpy()).quantize(16)
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    expected = from_images(images=np.asarray(image.convert("RGB"))[None])
    served = from_files(encoded=tf.constant([buffer.getvalue()]))
    np.testing.assert_allclose(served["embedding"], expected["embedding"], rtol=1e-5)
