"""Freezing first layers and batch normalisation of an encoder."""

import keras
import numpy as np
import pytest

from supcon_tf import models, optimizers
from supcon_tf.errors import UserError
from supcon_tf.training.encoder_io import load_encoder
from tests.replicas import two_replicas

SHAPE = (8, 8, 3)


def block(x, name):
    x = keras.layers.Conv2D(4, 3, name=f"{name}_conv")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def nested_encoder():
    """A backbone inside a model, as of pretrained weights with preprocessing."""
    images = keras.Input(SHAPE)
    backbone = keras.Model(images, block(block(images, "block1"), "block2"), name="backbone")
    inputs = keras.Input(SHAPE)
    x = backbone(keras.layers.Rescaling(127.5, name="scale")(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(block(x, "last")))


def paths(encoder):
    return [variable.path for variable in encoder.trainable_variables]


def images(count=16):
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype("float32")


def test_the_last_layer_of_a_name_and_all_before_it_are_frozen():
    encoder = nested_encoder()
    models.freeze(encoder, through="block1")
    assert paths(encoder) == [
        "block2_conv/kernel", "block2_conv/bias", "block2_bn/gamma", "block2_bn/beta",
        "last_conv/kernel", "last_conv/bias", "last_bn/gamma", "last_bn/beta",
    ]  # fmt: skip
    models.freeze(encoder, through="block2_relu")
    assert all(path.startswith("last") for path in paths(encoder))


def test_the_number_of_a_block_is_read_to_its_end():
    inputs = keras.Input(SHAPE)
    encoder = keras.Model(inputs, block(block(block(inputs, "block1"), "block2"), "block10"))
    models.freeze(encoder, through="block1")
    assert {path.split("_")[0] for path in paths(encoder)} == {"block2", "block10"}
    with pytest.raises(UserError, match="'bl1'"):
        models.freeze(encoder, through="bl1")


def test_frozen_batch_normalisation_uses_its_averages_and_keeps_them():
    encoder = nested_encoder()
    before = encoder.get_weights()
    in_training = encoder(images(), training=True)
    encoder.set_weights(before)
    expected = encoder(images(), training=False)
    assert not np.allclose(in_training, expected, atol=1e-2)
    models.freeze(encoder, batch_norm=True)
    np.testing.assert_allclose(encoder(images(), training=True), expected, rtol=1e-6)
    for weight, start in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, start)
    assert [path.split("_")[1] for path in paths(encoder)] == ["conv/kernel", "conv/bias"] * 3


def test_the_encoder_of_a_run_is_loaded_without_frozen_layers(tmp_path):
    encoder = nested_encoder()
    before = paths(encoder)
    models.freeze(encoder, through="block2", batch_norm=True)
    model = models.contrastive_model(encoder, image_shape=SHAPE, projection=(4,))
    model.save(tmp_path / "model.keras")
    encoder.save(tmp_path / "encoder.keras")
    assert paths(load_encoder(tmp_path / "model.keras", image_shape=SHAPE)) == before
    # What the user froze in a model of their own stays frozen.
    assert paths(load_encoder(tmp_path / "encoder.keras", image_shape=SHAPE)) == paths(encoder)


def test_wrong_names_are_rejected():
    encoder = nested_encoder()
    with pytest.raises(UserError, match="starts with 'blok', known are block1_conv, block1_bn, "):
        models.freeze(encoder, through="blok")
    with pytest.raises(UserError, match="freeze_through must be"):
        models.freeze(encoder, through=2)
    plain = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()], name="plain")
    with pytest.raises(UserError, match="'plain' has no batch normalisation to freeze"):
        models.freeze(plain, batch_norm=True)


def test_two_replicas_train_a_partly_frozen_encoder_as_one_does():
    def trained():
        keras.utils.set_random_seed(0)
        encoder = nested_encoder()
        model = models.contrastive_model(encoder, image_shape=SHAPE, projection=(4,))
        models.freeze(encoder, through="block1", batch_norm=True)
        optimizer = optimizers.LARS(0.5, use_ema=True, ema_momentum=0.5)
        optimizer.build(model.trainable_variables)
        parts = {name: part.trainable_variables for name, part in models.model_parts(model).items()}
        optimizers.multiply_learning_rates(
            optimizer, model.trainable_variables, {"encoder": 0.1}, parts=parts
        )
        model.compile(optimizer, "mse")
        targets = np.tile(np.float32([1, 0, 0, 0]), (16, 2, 1))
        x = np.stack([images(), -images()], axis=1)
        model.fit(x, targets, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model.get_weights()

    expected = trained()
    with two_replicas().scope():
        got = trained()
    for weight, same in zip(got, expected, strict=True):
        np.testing.assert_allclose(weight, same, rtol=1e-4, atol=1e-6)
