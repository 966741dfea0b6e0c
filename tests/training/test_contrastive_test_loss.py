"""The contrastive loss on the test split."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.contrastive_test_loss import contrastive_test_loss
from supcon_tf.training.objective import Objective
from tests.fitting import training_config

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    layers = [keras.Input(SHAPE), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    return models.contrastive_model(
        keras.Sequential(layers), image_shape=SHAPE, projection=(4,), num_classes=10
    )


@pytest.fixture(scope="module")
def data():
    return TrainingData(
        sources.digits(), views.Preprocessing(SHAPE[0]), views.identity, training_batches
    )


@pytest.mark.parametrize(
    "rows_at_a_time",
    # 64 does not divide the batch of 200.
    [pytest.param(25, marks=pytest.mark.slow), 64, pytest.param(200, marks=pytest.mark.slow)],
)
def test_the_loss_is_the_mean_over_whole_batches_of_the_test_split(network, data, rows_at_a_time):
    loss = losses.SupConLoss()
    config = training_config(epochs=1, batch_size=200)
    objective = Objective({"projection": loss}, {}, ())
    found = contrastive_test_loss(network, objective, data, config, rows_at_a_time=rows_at_a_time)
    batches = training_batches(
        data.source.test, preprocessing=data.preprocessing, augmentation=data.augmentation,
        num_views=2, batch_size=200, num_classes=10, seed=0,
    )(0, 2)  # fmt: skip
    # Inference mode, and two whole batches of the 450 images.
    expected = [
        loss(labels, network(images, training=False)["projection"]) for images, labels in batches
    ]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_custom_loss_gets_the_labels_that_keras_gives_it(network, data):
    class Custom(keras.losses.Loss):
        input = "projection"

        def call(self, y_true, y_pred):
            # Keras casts labels to floats.
            return 0.5 * y_true + 0.0 * y_pred[:, 0, 0]

    objective = Objective({"projection": Custom()}, {}, ())
    config = training_config(epochs=1, batch_size=450)
    found = contrastive_test_loss(network, objective, data, config, rows_at_a_time=450)
    assert found == pytest.approx(0.5 * data.source.test.labels.mean(), rel=1e-5)


def test_too_little_memory_is_reported(network, data, capsys):
    class Full(losses.SupConLoss):
        def call(self, y_true, y_pred):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    objective = Objective({"projection": Full()}, {}, ())
    config = training_config(epochs=1, batch_size=50)
    assert contrastive_test_loss(network, objective, data, config, rows_at_a_time=50) is None
    assert "no test_loss, a batch of 50 needs too much memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("loss", "batch_size"),
    [
        ({"logits": losses.CrossEntropyLoss()}, 64),
        ({"projection": losses.SemiSupervisedLoss()}, 64),
        ({"projection": losses.SupConLoss()}, 451),
    ],
)
def test_other_objectives_and_too_few_images_have_no_test_loss(network, data, loss, batch_size):
    config = training_config(epochs=1, batch_size=batch_size)
    objective = Objective(loss, {}, ())
    assert contrastive_test_loss(network, objective, data, config, rows_at_a_time=64) is None
