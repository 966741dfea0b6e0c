"""The contrastive loss on the test split."""

import keras
import numpy as np
import pytest

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


def test_it_is_the_mean_loss_over_whole_batches_of_the_test_split(network, data):
    loss = losses.SupConLoss()
    config = training_config(epochs=1, batch_size=200)
    found = contrastive_test_loss(
        network, Objective({"projection": loss}, {}, ()), data, config, rows_at_a_time=64
    )
    batches = training_batches(
        data.source.test, preprocessing=data.preprocessing, augmentation=data.augmentation,
        num_views=2, batch_size=200, num_classes=10, seed=0,
    )(0, 2)  # fmt: skip
    # Inference mode, and two whole batches of the 450 images.
    expected = [
        loss(labels, network(images, training=False)["projection"]) for images, labels in batches
    ]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_small_test_split_is_one_batch(network, data):
    small = sources.Source(
        "small", data.source.class_names, data.source.train, data.source.test.take(np.arange(20))
    )
    few = TrainingData(small, data.preprocessing, data.augmentation, training_batches)
    config = training_config(epochs=1, batch_size=256)
    objective = Objective({"projection": losses.SupConLoss()}, {}, ())
    found = contrastive_test_loss(network, objective, few, config, rows_at_a_time=64)
    assert np.isfinite(found)


@pytest.mark.parametrize(
    "loss", [{"logits": losses.CrossEntropyLoss()}, {"projection": losses.SemiSupervisedLoss()}]
)
def test_other_objectives_have_none(network, data, loss):
    config = training_config(epochs=1, batch_size=64)
    objective = Objective(loss, {}, ())
    assert contrastive_test_loss(network, objective, data, config, rows_at_a_time=64) is None
