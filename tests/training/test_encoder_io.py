"""Encoders from elsewhere: which ones the stages accept, and the errors for others."""

import time

import keras
import pytest

from supcon_tf.errors import UserError
from supcon_tf.training.encoder_io import encoder_digest, load_encoder, load_parts

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


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "changed"])
def test_a_damaged_model_is_a_one_line_error(damage, tmp_path):
    file = tmp_path / "encoder.keras"
    images_to_vectors().save(file)
    data = bytearray(file.read_bytes())
    data[300:303] = b"\xff\xff\xff"
    whole = file.read_bytes()
    content = {"empty": b"", "cut": whole[:-10], "text": b"no model", "changed": data}[damage]
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"encoder\.keras' (is damaged|cannot be loaded)") as raised:
        load_encoder(file, image_shape=SHAPE)
    assert "\n" not in str(raised.value)


def test_a_digest_is_of_layers_and_weights(tmp_path):
    file, model = tmp_path / "encoder.keras", images_to_vectors()
    model.save(file)
    content, digest = file.read_bytes(), encoder_digest(file)
    time.sleep(1.1)  # The file has its date in seconds.
    model.save(file)
    assert file.read_bytes() != content
    assert encoder_digest(file) == digest
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.save(file)
    assert encoder_digest(file) != digest


def test_python_code_in_a_model_is_not_run(tmp_path):
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Lambda(lambda images: images[:, 0, 0])(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "encoder.keras")
    with pytest.raises(
        UserError, match=r"cannot be loaded: .*function. is a Python lambda"
    ) as raised:
        load_encoder(tmp_path / "encoder.keras", image_shape=SHAPE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("parts", ["encoder", (), ("head",)])
def test_unknown_parts_are_rejected(parts, tmp_path):
    with pytest.raises(UserError, match="parts to load must be some of"):
        load_parts(images_to_vectors(), tmp_path, parts)
