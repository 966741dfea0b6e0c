"""What is watched of the projections during training, and the advice that follows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.evaluation import projection_measures
from supcon_tf.training.batches import TrainingData
from supcon_tf.training.objective import pretraining_objective
from supcon_tf.training.projection_watch import ProjectionWatch
from tests.fitting import training_config


def encoder():
    layers = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def watch_of(loss, *, batch_size=32, num_views=2, epochs=40, **options):
    source = sources.digits()
    data = TrainingData(source, views.Preprocessing(8), views.identity, training_batches)
    network = models.contrastive_model(
        encoder(), image_shape=(8, 8, 3), num_views=num_views, num_classes=10, projection=(16,)
    )
    config = training_config(epochs=epochs, batch_size=batch_size, seed=3, **options)
    return ProjectionWatch(network, pretraining_objective(network, loss, source), data, config)


def test_measures_are_of_the_same_batch_each_time():
    watch = watch_of(losses.SupConLoss())
    measures = watch.measures()
    assert watch.measures() == measures
    batches = training_batches(
        watch._data.source.train, preprocessing=views.Preprocessing(8), augmentation=views.identity,
        num_views=2, batch_size=32, num_classes=10, seed=3,
    )  # fmt: skip
    ((images, labels),) = batches(0, 1).as_numpy_iterator()
    projections = watch._network(tf.constant(images), training=False)["projection"]
    expected = projection_measures(projections.numpy(), labels)
    assert measures == pytest.approx(expected, rel=1e-5)


def test_projections_with_nan_have_no_measures_and_no_advice():
    watch = watch_of(losses.SupConLoss())
    kernel = models.model_parts(watch._network)["projection_head"].trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    assert watch.measures() == {}
    assert watch.advise({"epoch": 5, "loss": 0.1}) is None


def test_a_single_view_is_not_watched():
    assert watch_of(losses.SupConLoss(), batch_size=2, num_views=1).is_possible
    assert not watch_of(losses.SupConLoss(), batch_size=1, num_views=1).is_possible


def record(**changed):
    return {"epoch": 5, "loss": 0.1, "effective_rank": 9.0, **changed}


# 64 identical rows: each of the 63 others has the same similarity.
CHANCE = {
    losses.SupConLoss(): 0.1 * np.log(63),
    losses.SupConLoss(summation="inside", scale_by_temperature=False): np.log(63),
    losses.SimCLRLoss(): np.log(63),
}


@pytest.mark.parametrize("loss", CHANCE)
def test_a_loss_that_does_not_fall_gets_one_line_of_advice(loss):
    watch = watch_of(loss)
    assert watch.advise(record(loss=0.98 * CHANCE[loss])) is None
    assert watch.advise(record(loss=CHANCE[loss], epoch=2)) is None
    assert f"near that of identical projections, {CHANCE[loss]:.4f}" in watch.advise(
        record(loss=0.995 * CHANCE[loss])
    )
    assert watch.advise(record(loss=CHANCE[loss])) is None


def test_a_collapse_gets_one_line_of_advice():
    watch = watch_of(losses.SupConLoss(), epochs=200)
    assert watch.advise(record(effective_rank=1.2, epoch=19)) is None
    assert "have collapsed (effective rank 1.20)" in watch.advise(
        record(effective_rank=1.2, epoch=20)
    )


def test_models_without_projections_are_not_watched():
    source = sources.digits()
    network = models.classification_model(encoder(), image_shape=(8, 8, 3), num_classes=10)
    objective = pretraining_objective(network, losses.CrossEntropyLoss(), source)
    data = TrainingData(source, views.Preprocessing(8), views.identity, training_batches)
    config = training_config(epochs=1, batch_size=8)
    assert not ProjectionWatch(network, objective, data, config).is_possible
