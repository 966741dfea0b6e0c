import keras
import numpy as np
import pytest
from keras import layers

from supcon_tf import models
from supcon_tf.errors import UserError

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype("float32")


def network(*first, shape=(None, None, 3), last=()):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *first, layers.Conv2D(4, 3), *last])


def test_encoder_of_a_saved_model_of_this_package_is_taken_without_its_heads(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = models.resnet(18, width=1 / 16, stem="cifar")
    models.contrastive_model(encoder, image_shape=(8, 8, 3)).save(tmp_path / "a.keras")
    loaded = models.pretrained(str(tmp_path / "a.keras"))
    np.testing.assert_array_equal(loaded(IMAGES), encoder(IMAGES))


def test_what_a_run_froze_trains_again_in_the_next_one(tmp_path):
    encoder = models.resnet(18, width=1 / 16, stem="cifar")
    model = models.contrastive_model(encoder, image_shape=(8, 8, 3))
    count = len(encoder.trainable_variables)
    encoder.get_layer("stem_conv").trainable = False
    encoder.get_layer("group2_block1_bn1").trainable = False
    model.save(tmp_path / "a.keras")
    assert len(models.pretrained(str(tmp_path / "a.keras")).trainable_variables) == count


def test_feature_maps_of_a_saved_model_are_averaged(tmp_path):
    model = network()
    model.save(tmp_path / "a.keras")
    loaded = models.pretrained(str(tmp_path / "a.keras"))
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES).numpy().mean((1, 2)), atol=1e-6)


def test_images_are_resized_to_the_size_that_a_saved_model_takes(tmp_path):
    network(shape=(16, 12, 3), last=[layers.Flatten()]).save(tmp_path / "a.keras")
    loaded = models.pretrained(str(tmp_path / "a.keras"))
    assert loaded(IMAGES).shape == (2, 14 * 10 * 4)
    with pytest.raises(UserError, match=r"image_px must be left out: .* 16 x 12 only, got 16"):
        models.pretrained(str(tmp_path / "a.keras"), image_px=16)


def test_model_for_bytes_is_rejected_unless_it_scales_from_our_range(tmp_path):
    divide = layers.Rescaling(1 / 255)
    by_mean = layers.Normalization(mean=[123.0, 117.0, 104.0], variance=[3600.0] * 3)
    for first in (
        [divide],
        [layers.Resizing(8, 8), layers.RandomFlip(), divide],
        [layers.Rescaling([1 / 255] * 3)],
        [by_mean],
    ):
        network(*first).save(tmp_path / "a.keras")
        with pytest.raises(
            UserError, match=r"takes 0\.\.\.255, .*: put keras.layers.Rescaling\(12"
        ):
            models.pretrained(str(tmp_path / "a.keras"))
    network(layers.Rescaling(127.5, offset=127.5), divide).save(tmp_path / "a.keras")
    assert models.pretrained(str(tmp_path / "a.keras"))(IMAGES).shape == (2, 4)


def test_files_that_hold_no_encoder_are_rejected(tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(tmp_path / "dense.keras")
    network(layers.Lambda(lambda x: x)).save(tmp_path / "lambda.keras")
    for file, message in [
        ("gone.keras", "no file .*gone.keras': name a .keras file"),
        ("text.keras", "is damaged, or no Keras model"),
        (
            "dense.keras",
            r"must map images \[B, H, W, 3\] to .*, it has .* \(None, 4\), \(None, 2\)",
        ),
        ("lambda.keras", "cannot be loaded: .*"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            models.pretrained(str(tmp_path / file))
        assert "\n" not in str(raised.value)
