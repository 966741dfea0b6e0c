import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import models
from supcon_tf.errors import UserError
from supcon_tf.optimizers import LARS, apply_weight_decay
from tests.replicas import two_replicas

# Keras saves a variable by np.array, which NumPy 2.4 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WEIGHT_DECAY = 0.3
LEARNING_RATE = 0.1


def probed_model():
    """An encoder with a bias and batch normalisation, a projection head and a linear probe."""
    keras.utils.set_random_seed(0)
    x = images = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(5, 3, bias_initializer="ones", name="conv")(x)
    x = keras.layers.BatchNormalization(beta_initializer="ones", synchronized=True, name="conv_bn")(
        x
    )
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    return models.contrastive_model(
        encoder, image_shape=(4, 4, 3), projection=(6, 2), num_classes=3
    )


def decay_all_but_the_probe(model, optimizer, weight_decay=WEIGHT_DECAY):
    parts = models.model_parts(model)
    apply_weight_decay(
        optimizer,
        weight_decay,
        decayed=parts["encoder"].trainable_variables + parts["projection_head"].trainable_variables,
        others=parts["classifier"].trainable_variables,
    )


DECAYED = {
    "conv/kernel",
    "conv/bias",
    "projection_head_dense1/kernel",
    "projection_head_dense1/bias",
    "projection_head_dense2/kernel",
}
NOT_DECAYED = {"conv_bn/gamma", "conv_bn/beta", "classifier/kernel", "classifier/bias"}


@keras.saving.register_keras_serializable(package="test")
def first_coordinate(_, projection):
    return tf.reduce_mean(projection[..., 0], axis=1)


def data():
    images = np.random.default_rng(0).normal(size=(8, 2, 4, 4, 3)).astype("float32")
    labels = np.arange(8) % 3
    return images, {"projection": labels, "logits": labels}


def fit_one_step(model, optimizer, **compile_options):
    """Returns the loss that `fit` reports and the change of each trainable variable."""
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer, {"projection": first_coordinate, "logits": cross_entropy}, **compile_options
    )
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(*data(), batch_size=8, verbose=0).history
    moved = {
        variable.path: start - variable.numpy()
        for variable, start in zip(model.trainable_variables, before, strict=True)
    }
    return history["loss"][0], moved


def initial_weights():
    return {variable.path: variable.numpy() for variable in probed_model().trainable_variables}


def assert_decayed_step(loss, moved, plain_loss, plain):
    weights = initial_weights()
    assert moved.keys() == DECAYED | NOT_DECAYED
    for path, step in moved.items():
        extra = LEARNING_RATE * WEIGHT_DECAY * weights[path] if path in DECAYED else 0
        np.testing.assert_allclose(step, plain[path] + extra, rtol=1e-4, atol=1e-6)
    term = WEIGHT_DECAY / 2 * sum((weights[path] ** 2).sum() for path in DECAYED)
    assert term > 0.5
    assert loss == pytest.approx(plain_loss + term, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_only_decayed_variables_gain_weight_decay_times_weight(jit_compile):
    plain_loss, plain = fit_one_step(probed_model(), keras.optimizers.SGD(LEARNING_RATE))
    model, optimizer = probed_model(), keras.optimizers.SGD(LEARNING_RATE)
    decay_all_but_the_probe(model, optimizer)
    loss, moved = fit_one_step(model, optimizer, jit_compile=jit_compile)
    assert_decayed_step(loss, moved, plain_loss, plain)


def test_two_replicas_decay_like_one_device():
    plain_loss, plain = fit_one_step(probed_model(), keras.optimizers.SGD(LEARNING_RATE))
    with two_replicas().scope():
        model, optimizer = probed_model(), keras.optimizers.SGD(LEARNING_RATE)
        decay_all_but_the_probe(model, optimizer)
        loss, moved = fit_one_step(model, optimizer)
    assert_decayed_step(loss, moved, plain_loss, plain)


def test_lars_decays_by_itself_and_gives_the_others_plain_momentum():
    plain_loss, gradients = fit_one_step(probed_model(), keras.optimizers.SGD(1.0))
    model = probed_model()
    optimizer = LARS(LEARNING_RATE, trust_coefficient=0.01)
    decay_all_but_the_probe(model, optimizer)
    loss, moved = fit_one_step(model, optimizer)

    assert loss == pytest.approx(plain_loss, rel=1e-5)
    weights = initial_weights()
    for path, step in moved.items():
        expected = gradients[path]
        if path in DECAYED:
            expected = expected + WEIGHT_DECAY * weights[path]
            norms = np.linalg.norm(weights[path]), np.linalg.norm(expected)
            expected = expected * (0.01 * norms[0] / norms[1] if min(norms) > 0 else 1)
        np.testing.assert_allclose(step, LEARNING_RATE * expected, rtol=2e-3, atol=1e-6)


def test_lars_excludes_the_others_in_addition():
    optimizer = LARS(0.1, exclude=(r"/bias$",))
    decay_all_but_the_probe(probed_model(), optimizer)
    assert optimizer.get_config()["weight_decay"] == WEIGHT_DECAY
    assert optimizer.exclude == (r"/bias$", r"^classifier/bias$", r"^classifier/kernel$")


def test_lars_keeps_its_weight_decay_when_the_stage_has_none():
    optimizer = LARS(0.1, weight_decay=0.2)
    decay_all_but_the_probe(probed_model(), optimizer, weight_decay=0.0)
    assert optimizer.get_config()["weight_decay"] == 0.2


def test_applying_again_replaces_the_earlier_weight_decay():
    model = probed_model()
    decay_all_but_the_probe(model, keras.optimizers.SGD())
    assert len(model.losses) == len(DECAYED)
    decay_all_but_the_probe(model, keras.optimizers.SGD(), weight_decay=0.0)
    assert not model.losses
    decay_all_but_the_probe(model, keras.optimizers.SGD())
    decay_all_but_the_probe(model, LARS(0.1))
    assert not model.losses


def test_frozen_encoder_adds_no_weight_decay_to_the_next_model():
    model = probed_model()
    decay_all_but_the_probe(model, keras.optimizers.SGD())
    linear = models.classification_model(
        models.model_parts(model)["encoder"],
        image_shape=(4, 4, 3),
        num_classes=3,
        train_encoder=False,
    )
    assert not linear.losses


def test_keras_file_does_not_save_the_weight_decay(tmp_path):
    model = probed_model()
    decay_all_but_the_probe(model, keras.optimizers.SGD())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.losses
    decay_all_but_the_probe(loaded, keras.optimizers.SGD())
    assert float(sum(loaded.losses)) == pytest.approx(float(sum(model.losses)))


def test_negative_weight_decay_is_rejected():
    with pytest.raises(UserError, match="weight_decay must be a number >= 0, got -1"):
        apply_weight_decay(keras.optimizers.SGD(), -1, decayed=[])


def test_lars_with_another_weight_decay_is_rejected():
    with pytest.raises(UserError, match=r"already has weight_decay=0.2, got 0.1 as well"):
        apply_weight_decay(LARS(0.1, weight_decay=0.2), 0.1, decayed=[])


def test_built_lars_is_rejected():
    optimizer = LARS(0.1)
    optimizer.build([keras.Variable([1.0], name="kernel")])
    with pytest.raises(UserError, match="LARS must not be built"):
        apply_weight_decay(optimizer, 0.1, decayed=[])


def test_variables_with_the_same_path_are_rejected_for_lars():
    twins = [keras.Variable([1.0], name="twin") for _ in range(2)]
    with pytest.raises(UserError, match=r"both decayed and other variables: \{'twin'\}"):
        apply_weight_decay(LARS(0.1), 0.1, decayed=twins[:1], others=twins[1:])
