import keras
import numpy as np
import pytest

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.models.encoders.input_scaling import from_bytes, from_mean_and_deviation

BYTES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("float32")
IMAGES = BYTES / np.float32(127.5) - 1


def test_scaling_by_mean_and_deviation_is_that_of_pixels():
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = (BYTES / 255 - mean) / deviation
    np.testing.assert_allclose(
        from_mean_and_deviation(mean, deviation)(IMAGES), expected, atol=1e-5
    )


def test_scaling_to_bytes_is_that_of_pixels():
    np.testing.assert_allclose(from_bytes()(IMAGES), BYTES, atol=1e-4)
    np.testing.assert_allclose(from_bytes(1 / 128, 127)(IMAGES), (BYTES - 127) / 128, atol=1e-6)


def test_scaling_for_blue_first_reverses_the_channels_last():
    layer = models.InputScaling([1, 2, 3], [4, 5, 6], bgr=True)
    assert layer(np.ones((1, 1, 1, 3))).numpy().ravel().tolist() == [9, 7, 5]
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    np.testing.assert_array_equal(copy(IMAGES), layer(IMAGES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 127.5}, "scale must be three numbers, got 127.5"),
        ({"offset": [1.0]}, r"offset must be three numbers, got \[1.0\]"),
        ({"scale": [1.0, 2.0, "3"]}, "scale must be a number, got '3'"),
        ({"bgr": "False"}, "bgr must be True or False, got 'False'"),
    ],
)
def test_scaling_by_other_values_is_rejected(arguments, message):
    with pytest.raises(UserError, match=message):
        models.InputScaling(**{"scale": [1.0] * 3, "offset": [0.0] * 3, **arguments})


def test_scaling_stays_in_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        scaled = from_bytes()(IMAGES)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(scaled, BYTES, atol=1e-4)


def test_encoder_of_a_contrastive_model_is_saved_and_loaded(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = models.pretrained("efficientnet_lite0", weights=None, image_px=32)
    model = models.contrastive_model(encoder, image_shape=(8, 8, 3), projection=(4,))
    model.save(tmp_path / "a.keras")
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    views = np.random.default_rng(0).uniform(-1, 1, (2, 2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(views), model(views))
    # image_px resizes: equal images of another size have equal features.
    constant = [np.full((1, side, side, 3), 0.5, "float32") for side in (8, 16)]
    np.testing.assert_allclose(*map(encoder, constant), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "efficientnet_b0"},
            "name must be .*, got 'efficientnet_b0'; did you mean 'EfficientNetB0'",
        ),
        (
            {"name": "xyz"},
            "name must be .*, got 'xyz'; known are efficientnet_lite0, ConvNeXtBase, .*, Xception",
        ),
        ({"name": "a.pth"}, "got 'a.pth'; write 'torch:a.pth' for a PyTorch checkpoint"),
        ({"name": "torch:a.pth"}, "no file 'a.pth': name a PyTorch checkpoint"),
        (
            {"name": "a.keras", "weights": None},
            "weights must be left out for the file 'a.keras', got None",
        ),
        ({"name": ""}, "name must be text such as 'efficientnet_lite0', got ''"),
        ({"weights": 3}, "weights must be text such as 'imagenet', got 3"),
        ({"weights": "gone.pth"}, "no file 'gone.pth'"),
        ({"image_px": 0}, "image_px must be an integer >= 1, got 0"),
    ],
)
def test_wrong_options_are_rejected(arguments, message):
    with pytest.raises(UserError, match=message):
        models.pretrained(**{"name": "efficientnet_lite0", **arguments})
