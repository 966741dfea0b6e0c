"""Encoders from elsewhere: which ones the stages accept, and the errors for others."""

import keras
import pytest

from supcon_tf.errors import UserError
from supcon_tf.training.encoder_io import load_encoder, load_parts

SHAPE = (8, 8, 3)


def images_to_vectors(*, channels=3, pool=True):
    inputs = keras.Input((None, None, channels))
    outputs = keras.layers.Conv2D(4, 3)(inputs)
    if pool:
        outputs = keras.layers.GlobalAveragePooling2D()(outputs)
    return keras.Model(inputs, outputs)


def vectors_to_vectors():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])


def two_inputs():
    first, second = keras.Input((4,)), keras.Input((4,))
    return keras.Model([first, second], keras.layers.Add()([first, second]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (vectors_to_vectors(), r"must take images \[height, width, channels\], it takes \(5,\)"),
        (two_inputs(), "must have one input and one output, got 2 and 1"),
        (images_to_vectors(channels=1), "takes images of 1 channels, these have 3"),
        (images_to_vectors(pool=False), "end it with a global pooling layer"),
    ],
)
def test_models_that_do_not_map_the_images_to_vectors_are_rejected(model, message, tmp_path):
    model.save(tmp_path / "encoder.keras")
    with pytest.raises(UserError, match=message):
        load_encoder(tmp_path / "encoder.keras", image_shape=SHAPE)


def test_images_of_any_size_are_accepted_by_a_fully_convolutional_encoder(tmp_path):
    images_to_vectors().save(tmp_path / "encoder.keras")
    encoder = load_encoder(tmp_path / "encoder.keras", image_shape=SHAPE)
    assert encoder.output_shape == (None, 4)


def test_a_file_that_is_not_a_model_is_a_one_line_error(tmp_path):
    (tmp_path / "broken.keras").write_text("no model")
    with pytest.raises(UserError, match=r"broken\.keras' cannot be loaded: ") as error:
        load_encoder(tmp_path / "broken.keras", image_shape=SHAPE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("parts", ["encoder", (), ("head",)])
def test_unknown_parts_are_rejected(parts, tmp_path):
    with pytest.raises(UserError, match="parts to load must be some of"):
        load_parts(images_to_vectors(), tmp_path, parts)
