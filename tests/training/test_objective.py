"""The losses that a stage minimises, and what they take from the source and the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.errors import UserError
from supcon_tf.training.objective import classification_objective, pretraining_objective


def source_of(labels, num_classes=3):
    split = IndexedSplit(np.array(labels), lambda number: number)
    return sources.Source("mine", tuple("abcdef"[:num_classes]), split, split)


LONG_TAILED = source_of([0] * 6 + [1] * 3 + [2])
LOG_PRIOR = np.log([0.6, 0.3, 0.1])


def encoder():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, activation="relu")])


def test_log_prior_source_is_the_shares_of_the_classes_in_the_training_images():
    logit_adjusted = losses.CrossEntropyLoss(log_prior="source", label_smoothing=0.1)
    loss = classification_objective(logit_adjusted, LONG_TAILED).losses["logits"]
    np.testing.assert_allclose(loss.log_prior, LOG_PRIOR)
    assert loss.label_smoothing == 0.1
    parametric = pretraining_objective(
        models.parametric_model(encoder(), image_shape=(8,), num_classes=3),
        losses.ParametricSupConLoss(3, log_prior="source"),
        LONG_TAILED,
    )
    np.testing.assert_allclose(parametric.losses["logits_and_projection"].log_prior, LOG_PRIOR)
    joint = pretraining_objective(
        models.contrastive_model(encoder(), image_shape=(8,), num_classes=3),
        losses.SupConLoss(),
        LONG_TAILED,
        joint_loss=logit_adjusted,
    )
    np.testing.assert_allclose(joint.losses["logits"].log_prior, LOG_PRIOR)
    assert joint.losses["logits"].ignore_class == -1


def test_a_loss_that_is_scaled_by_its_temperature_is_announced(capsys):
    model = models.contrastive_model(encoder(), image_shape=(8,), num_classes=3)
    says = "pretrain: the loss is shown times its temperature, 0.2\n"
    for options, expected in (
        ({"temperature": 0.2}, says),
        ({"temperature": 0.2, "scale_by_temperature": False}, ""),
        ({"temperature": 1.0}, ""),
    ):
        pretraining_objective(model, losses.SupConLoss(**options), LONG_TAILED)
        assert capsys.readouterr().out == expected


def test_log_prior_counts_the_images_of_a_long_tailed_subset():
    subset = sources.subset(sources.digits(), imbalance=10.0)
    counts = np.bincount(subset.train.labels)
    np.testing.assert_allclose(subset.log_prior, np.log(counts / counts.sum()))
    assert counts[0] >= 10 * counts[9]


STREAMED = StreamedSplit(4, lambda seed: tf.data.Dataset.from_tensors((0, 1)).repeat(4))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (sources.Source("stream", ("a", "b"), STREAMED, STREAMED), "'stream' is streamed: set log"),
        (source_of([-1, -1], num_classes=0), "those of 'mine' have none"),
        (source_of([[1, 0, 1], [0, 1, 0]]), "those of 'mine' may have several"),
        (source_of([0, 2, 2]), "of each class, 'mine' has none of 'b'"),
    ],
)
def test_log_prior_of_a_source_without_counts_is_one_line(source, says):
    with pytest.raises(UserError, match=says) as error:
        source.log_prior  # noqa: B018
    assert "\n" not in str(error.value)
