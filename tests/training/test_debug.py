"""`train --debug` names the operation that makes the first NaN, and keeps its batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import losses, train
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training import debug
from tests.fitting import fit_steps
from tests.small_runs import SMALL


@pytest.fixture
def debugging():
    debug.enable()
    yield
    debug.disable()


def steps(start, stop):
    """Images [2, 1] of the number of the step; step 3 has a negative one."""
    numbers = tf.data.Dataset.range(start, stop)
    return numbers.map(
        lambda n: (tf.ones([2, 1]) * tf.where(n == 3, -1.0, 1.0), tf.ones([2, 1]) * tf.cast(n, tf.float32))
    )  # fmt: skip


def model_of_logarithms():
    inputs = keras.Input((1,))
    rows = keras.layers.Dense(1, kernel_initializer="ones")(keras.ops.log(inputs))
    model = keras.Model(inputs, rows)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def test_the_operation_of_the_first_nan_is_named_and_its_batch_is_kept(debugging, tmp_path):
    with pytest.raises(
        UserError, match=r"step 4 of pretrain has NaN or infinity from Log, .*npz'$"
    ):
        fit_steps(
            model_of_logarithms(), steps, tmp_path, num_examples=8, batch_size=2, epochs=2, seed=0
        )
    with np.load(RunDir(tmp_path).debug_batch("pretrain", 4)) as batch:
        assert batch["inputs"].tolist() == [[-1.0], [-1.0]]
        assert batch["labels"].tolist() == [[3.0], [3.0]]


def test_without_debug_the_message_names_the_loss_and_the_learning_rate(tmp_path):
    with pytest.raises(
        UserError, match=r"the loss is nan at step 4 of pretrain \(learning rate 0, seed 7\)"
    ):
        fit_steps(
            model_of_logarithms(), steps, tmp_path, num_examples=8, batch_size=2, epochs=2, seed=7
        )


def test_a_run_without_nan_is_not_stopped(photos, tmp_path, results_only):
    root, stages = f"sources.folder.root = '{photos}'", "experiment.run.stages = ('pretrain',)"
    options = [f"--gin_param={binding}" for binding in (*SMALL, root, stages)]
    try:
        train.main(["--gin_file=folder/supcon.gin", f"--workdir={tmp_path}", "--debug", *options])
    finally:
        debug.disable()
    assert RunDir(tmp_path).metrics().keys() == {"pretrain"}
    assert not list(tmp_path.glob("debug_*"))


def test_losses_have_no_nan_of_their_own(debugging):
    projections = tf.constant(np.random.default_rng(0).normal(size=(6, 2, 4)), tf.float32)
    labels = np.array([0, 1, 2, 2, 0, 5])
    for loss, classes in (
        # One part of a semi-supervised loss has no samples here.
        (losses.SemiSupervisedLoss(labelled=losses.SuNCEtLoss()), labels),
        (losses.SemiSupervisedLoss(labelled=losses.TripletLoss()), np.full(6, -1)),
        (losses.TripletLoss(), labels),
        (losses.SupConLoss(summation="inside", denominator="one_positive"), labels),
        (losses.SupConLoss(denominator="only_negatives", implementation="streaming"), labels),
    ):
        in_graph = tf.function(lambda y, z, loss=loss: loss(y, z), autograph=False)
        with tf.GradientTape() as tape:
            tape.watch(projections)
            value = in_graph(classes, projections)
        gradient = tf.convert_to_tensor(tape.gradient(value, projections))
        assert np.isfinite(gradient).all()
