"""SavedModels as classifiers: input and output names, input size and range, scores."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.evaluation.classifiers import saved_model

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


def export(path, *, outputs=("probabilities",), spec=None, signature="serving_default"):
    """The mean of each channel as scores, under these names."""
    spec = spec or tf.TensorSpec([None, None, None, 3], tf.uint8, "images")

    @tf.function(input_signature=[spec])
    def serve(images):
        means = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2])
        return dict.fromkeys(outputs, means)

    module = tf.Module()
    tf.saved_model.save(module, str(path), signatures={signature: serve})
    return path


def means(images, low=0.0, high=255.0):
    return (low + (high - low) * (images / 255.0)).mean(axis=(1, 2))


def test_probabilities_stay_unchanged_and_logits_get_a_softmax(tmp_path):
    np.testing.assert_allclose(
        saved_model(export(tmp_path / "a")).probabilities(IMAGES), means(IMAGES), rtol=1e-5
    )
    logits = means(IMAGES)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    for name, options in (
        ("logits", {}),
        ("predictions", {"scores": "logits"}),
        ("probabilities", {"scores": "logits"}),
    ):
        model = saved_model(export(tmp_path / name, outputs=(name,)), **options)
        assert model.num_classes == 3
        np.testing.assert_allclose(model.probabilities(IMAGES), expected, rtol=1e-4)


@pytest.mark.parametrize("pixel_range", [(0, 1), (-1, 1), (0, 255)])
def test_a_float_input_gets_its_pixel_range(tmp_path, pixel_range):
    spec = tf.TensorSpec([None, 8, 8, 3], tf.float32, "x")
    model = saved_model(export(tmp_path, spec=spec), pixel_range=pixel_range)
    expected = means(IMAGES, *pixel_range)
    np.testing.assert_allclose(model.probabilities(IMAGES), expected, rtol=1e-4)


def test_an_input_of_fixed_size_gets_the_resized_centre(tmp_path):
    spec = tf.TensorSpec([None, 4, 4, 3], tf.uint8, "x")
    model = saved_model(export(tmp_path, spec=spec))
    # Wide images whose centre square is bright: the dark sides are cut off.
    wide = np.zeros((1, 16, 48, 3), np.uint8)
    wide[:, :, 12:36] = 200
    np.testing.assert_allclose(model.probabilities(wide), 200, atol=1)
    # Images of one colour keep it, for any sizes in a batch.
    sizes = [(9, 5), (4, 4), (31, 64)]
    mixed = [np.full((*size, 3), 10 * n, np.uint8) for n, size in enumerate(sizes)]
    np.testing.assert_allclose(model.probabilities(mixed)[:, 0], [0, 10, 20], atol=0.5)


@pytest.mark.parametrize(
    ("exported", "options", "message"),
    [
        ({"signature": "classify"}, {}, r"no signature 'serving_default': .*one of \['classify'\]"),
        ({}, {"input_key": "x"}, r"no input 'x': set classifiers.saved_model.input_key to one of \['images'\]"),
        ({}, {"output_key": "scores"}, r"no output 'scores': .* one of \['probabilities'\]"),
        ({"outputs": ("a", "b")}, {}, r"has several outputs: set .*output_key to one of \['a', 'b'\]"),
        ({"outputs": ("a",)}, {}, "may be probabilities or logits: set .*scores to"),
        ({"outputs": ("embedding",)}, {}, 'no class scores: put "linear"'),
        ({"outputs": ("embedding", "projection")}, {}, 'no class scores: put "linear"'),
        ({}, {"scores": "softmax"}, "scores must be one of .* got 'softmax'"),
        ({"spec": tf.TensorSpec([None, 4, 4, 3], tf.float32, "x")}, {}, r"pixel_range to \(0, 1\)"),
        *(
            ({"spec": tf.TensorSpec([None, 4, 4, 3], tf.float32, "x")}, {"pixel_range": wrong}, r"\(black, white\) with black < white")
            for wrong in (1, (1, 0), (0, 1, 2), ("0", "1"), "01")
        ),
        ({}, {"pixel_range": (0, 1)}, "takes uint8: remove"),
        ({"spec": tf.TensorSpec([None, 4, 4, 3], tf.int32, "x")}, {}, "must be uint8 or floats, got int32"),
        ({"spec": tf.TensorSpec([1, 4, 4, 3], tf.uint8, "x")}, {}, r"images \[B, H, W, 3\] of any B, got \(1, 4, 4, 3\)"),
    ],
)  # fmt: skip
def test_unknown_names_and_missing_options_are_rejected_with_the_known_ones(
    tmp_path, exported, options, message
):
    with pytest.raises(UserError, match=message):
        saved_model(export(tmp_path, **exported), **options)


def test_a_model_of_several_labels_per_image_is_rejected(tmp_path):
    with pytest.raises(UserError, match="gives several labels per image, and this stage measures"):
        saved_model(export(tmp_path, outputs=("logits", "probabilities", "labels")))


def test_missing_model_is_rejected(tmp_path):
    with pytest.raises(UserError, match="no SavedModel in"):
        saved_model(tmp_path)
