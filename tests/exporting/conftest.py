"""A small trained model, its run directory, and images."""

import keras
import numpy as np
import pytest

from supcon_tf import models
from supcon_tf.data.views import Preprocessing
from supcon_tf.evaluation.saved_model import save_serving_model, serving_model

NORMALIZATION = ((0.1, 0.0, -0.1), (0.5, 0.4, 0.6))
PREPROCESSING = Preprocessing(image_px=8, normalization=NORMALIZATION)


@pytest.fixture(scope="package")
def model():
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(48, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    trained = models.contrastive_model(
        encoder, image_shape=(8, 8, 3), projection=(16, 8), num_classes=3
    )
    return serving_model(trained)


@pytest.fixture(scope="package")
def workdir(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    save_serving_model(
        root / "export",
        model,
        preprocessing=PREPROCESSING,
        class_names=("cat", "dog", "owl"),
        temperature=1.5,
    )
    return root


def photos(height, width, count=3):
    """Noise, uint8 [count, height, width, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)
