"""The model of parametric SupCon, alone in `fit` and as a stage builds its objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, models
from supcon_tf.data import sources
from supcon_tf.errors import UserError
from supcon_tf.training.objective import pretraining_objective


def model_of(num_classes=4):
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, activation="relu")])
    return models.parametric_model(
        encoder, image_shape=(8,), num_classes=num_classes, projection=(6, 5)
    )


def test_outputs_are_the_logits_and_the_projection_of_every_view():
    model = model_of()
    views = np.random.default_rng(0).normal(size=(3, 2, 8)).astype(np.float32)
    outputs = model(views)
    parts = models.model_parts(model)
    assert set(parts) == {"encoder", "projection_head", "classifier"}
    embedding = models.embedding_model(model)
    for view in range(2):
        features = embedding(views[:, view])
        expected = tf.concat([parts["classifier"](features), parts["projection_head"](features)], 1)
        np.testing.assert_allclose(
            outputs["logits_and_projection"][:, view], expected, rtol=1e-4, atol=1e-6
        )
    np.testing.assert_array_equal(outputs["logits"], outputs["logits_and_projection"][:, 0, :4])


def test_one_fit_trains_all_parts_and_the_classifier():
    keras.utils.set_random_seed(0)
    model = model_of()
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=128)
    views = (np.eye(8)[labels][:, None] + 0.2 * rng.normal(size=(128, 2, 8))).astype(np.float32)
    before = {
        name: [value.copy() for value in part.get_weights()]
        for name, part in models.model_parts(model).items()
    }
    model.compile(
        keras.optimizers.Adam(0.05),
        {"logits_and_projection": losses.ParametricSupConLoss(4, alpha=0.1)},
        metrics={"logits": "accuracy"},  # As a stage measures the classifier.
    )
    targets = {"logits_and_projection": labels, "logits": labels}
    history = model.fit(views, targets, batch_size=32, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.85 * history["loss"][0]
    assert np.mean(np.argmax(model.predict(views, verbose=0)["logits"], axis=1) == labels) > 0.95
    for name, part in models.model_parts(model).items():
        changed = [
            not np.array_equal(*pair) for pair in zip(before[name], part.get_weights(), strict=True)
        ]
        assert any(changed), name


def test_the_objective_trains_all_parts_by_one_loss():
    objective = pretraining_objective(
        model_of(10), losses.ParametricSupConLoss(10), sources.digits()
    )
    assert list(objective.losses) == ["logits_and_projection"]
    assert set(objective.trained_parts) == {"encoder", "projection_head", "classifier"}
    assert objective.classifies


@pytest.mark.parametrize(
    ("loss", "joint", "says"),
    [
        (losses.ParametricSupConLoss(4), None, "num_classes must be 10, the classes of 'digits', got 4"),
        (losses.ParametricSupConLoss(10), losses.CrossEntropyLoss(), "trains encoder and classifier alone"),
    ],
)  # fmt: skip
def test_another_number_of_classes_or_another_loss_is_rejected(loss, joint, says):
    with pytest.raises(UserError, match=says):
        pretraining_objective(model_of(10), loss, sources.digits(), joint_loss=joint)


def test_the_loss_names_the_model_that_it_needs():
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12)])
    model = models.contrastive_model(encoder, image_shape=(8,), num_classes=10)
    with pytest.raises(UserError, match=r"set pretrain\.run\.model = @models\.parametric_model"):
        pretraining_objective(model, losses.ParametricSupConLoss(10), sources.digits())
