"""Class centres from a classifier's weights: values, training, saving, replicas."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError
from supcon_tf.training.objective import pretraining_objective
from tests.losses import family_reference
from tests.replicas import two_replicas

LABELS = np.arange(24) % 3
VIEWS = np.random.default_rng(0).normal(size=(24, 2, 8)).astype(np.float32)
VIEWS += 2 * np.eye(8, dtype=np.float32)[LABELS][:, None]


def source_of(labels):
    split = IndexedSplit(np.array(labels), lambda number: number)
    return sources.Source("mine", ("a", "b", "c"), split, split)


def model_of(*, batch_norm=True, **options):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, activation="relu")])
    head = functools.partial(models.balanced_classifier, projection=(7, 4), batch_norm=batch_norm)
    return models.contrastive_model(
        encoder,
        image_shape=(8,),
        num_classes=3,
        projection=(4,),
        classification_head=head,
        stop_classifier_gradient=False,
        **options,
    )


def objective_of(model):
    return pretraining_objective(
        model,
        # Batches of unknown size would stream, which takes longer to trace.
        losses.BalancedSupConLoss(temperature=0.3, implementation="dense"),
        source_of(LABELS),
        weight=0.35,
        joint_loss=losses.CrossEntropyLoss(log_prior="source"),
    )


def compiled(model):
    objective = objective_of(model)
    model.compile(
        keras.optimizers.SGD(0.3),
        dict(objective.losses),
        loss_weights=dict(objective.weights),
        jit_compile=False,
    )
    return model


def fit(model, epochs=1):
    targets = {"projection": LABELS, "logits": LABELS}
    return model.fit(VIEWS, targets, batch_size=24, epochs=epochs, shuffle=False, verbose=0).history


def test_centers_are_the_head_of_each_class_weights():
    classifier = models.find_balanced_classifier(model_of(batch_norm=False))
    first, last = (layer.numpy() for layer in classifier.center_head.weights[::2])
    bias = classifier.center_head.weights[1].numpy()
    expected = np.maximum(classifier.kernel.numpy().T @ first + bias, 0) @ last
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.centers(), expected, rtol=1e-4, atol=1e-6)
    features = np.float32([[1, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(classifier(features), classifier.kernel.numpy()[:1], rtol=1e-6)


def test_the_loss_of_a_batch_is_the_weighted_sum_of_both_equations():
    model = model_of(batch_norm=False)
    centers = models.find_balanced_classifier(model).centers().numpy()
    outputs = model(VIEWS)
    balanced = family_reference.balanced(LABELS, outputs["projection"], centers, temperature=0.3)
    # All classes have the same prior, which a softmax does not see.
    scores = outputs["logits"].numpy().astype(np.float64)
    chosen = scores[np.arange(24), LABELS]
    cross_entropy = np.log(np.exp(scores).sum(axis=1)) - chosen
    expected = 0.35 * balanced.mean() + cross_entropy.mean()
    assert fit(compiled(model))["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_fit_trains_every_part():
    model = model_of()
    before = [variable.numpy() for variable in model.trainable_variables]
    history = fit(compiled(model), epochs=10)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert len(before) == 2 + 1 + 2 + 4  # Encoder, projection head, classifier, its centre head.
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert np.abs(old - variable.numpy()).max() > 0, variable.path
    # The batch statistics of the centre head are used and kept.
    assert "center_head_bn1/moving_mean" in [v.path for v in model.non_trainable_variables]


def test_two_replicas_give_the_update_of_one():
    weights = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            model = compiled(model_of())
        fit(model, epochs=2)
        weights.append(model.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)


def test_a_saved_model_keeps_its_centers(tmp_path):
    model = model_of()
    fit(compiled(model))
    model(VIEWS)  # In inference mode.
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    classifier = models.find_balanced_classifier(loaded)
    expected = models.find_balanced_classifier(model).centers()
    np.testing.assert_allclose(classifier.centers(), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(loaded(VIEWS)["logits"], model(VIEWS)["logits"], rtol=1e-5)


def test_the_objective_trains_the_classifier_and_classifies():
    objective = objective_of(model_of())
    assert objective.weights == {"projection": 0.35, "logits": 1.0}
    assert set(objective.trained_parts) == {"encoder", "projection_head", "classifier"}
    assert objective.classifies


@pytest.mark.parametrize(
    ("model", "joint", "labels", "says"),
    [
        (
            lambda: models.contrastive_model(
                keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)]),
                image_shape=(8,),
                num_classes=3,
            ),
            losses.CrossEntropyLoss(),
            LABELS,
            r"set models\.contrastive_model\.classification_head = @models\.balanced_classifier",
        ),
        (model_of, None, LABELS, r"set pretrain\.run\.classification_loss"),
        (
            model_of,
            losses.BinaryCrossEntropyLoss(),
            np.eye(3, dtype=int),
            "BalancedSupConLoss is for one label per image",
        ),
    ],
)
def test_a_model_without_centers_or_without_their_training_is_rejected(model, joint, labels, says):
    with pytest.raises(UserError, match=says):
        pretraining_objective(
            model(), losses.BalancedSupConLoss(), source_of(labels), joint_loss=joint
        )


def test_a_classifier_of_zeros_has_no_centers():
    with pytest.raises(UserError, match="zero_init must be False with class centres"):
        model_of(zero_init_classifier=True)
