"""Several replicas and workers give the update, the logs and the run of one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import distribution, losses, models
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training.step import TrainingModel
from tests import replica_steps
from tests.replicas import two_replicas


def assert_same(some, others, *, atol):
    assert some.keys() == others.keys()
    for name in some:
        np.testing.assert_allclose(some[name], others[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    ("loss", "optimizer"),
    # The workers below use LARS.
    [pytest.param("simclr", "lars", marks=pytest.mark.slow), ("cross-entropy", "sgd")],
)
def test_one_step_on_two_replicas_equals_one_device(loss, optimizer):
    one, two = (
        replica_steps.trained(strategy, loss, optimizer, num_steps=1)
        for strategy in (tf.distribute.get_strategy(), two_replicas())
    )
    assert_same(one, two, atol=1e-6)


def test_twenty_steps_on_two_replicas_equal_one_device():
    one, two = (
        replica_steps.trained(strategy, "supcon dense", "momentum", num_steps=20)
        for strategy in (tf.distribute.get_strategy(), two_replicas())
    )
    assert_same(one, two, atol=1e-4)


@pytest.mark.parametrize(
    "labels",
    # tests/losses/test_replicas.py has class numbers.
    [
        pytest.param([0, 0, 1, 1, 0], marks=pytest.mark.slow),
        np.eye(2, dtype=bool)[[0, 0, 1, 1, 0]],
    ],
)
def test_uneven_first_batches_and_boolean_rows_train_like_one_device(labels):
    views = np.random.default_rng(0).normal(size=(5, 2, 12)).astype(np.float32)
    kernels = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((2, 12))
            model = models.ReplicatedModel(inputs, keras.layers.Dense(4)(inputs))
            # A batch of unknown size would stream, which takes longer to trace.
            model.compile(keras.optimizers.SGD(0.5), losses.SupConLoss(implementation="dense"))
        batch = tf.data.Dataset.from_tensor_slices((views, np.asarray(labels))).batch(5)
        start = model.get_weights()[0]
        model.fit(batch, shuffle=False, verbose=0)
        kernels.append(model.get_weights()[0])
        assert np.abs(kernels[-1] - start).max() > 1e-2
    np.testing.assert_allclose(*kernels, rtol=0, atol=1e-6)


def processes(arguments, *, workers=1):
    """Starts a module in several processes, the workers of a cluster."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    started = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, **({"TF_CONFIG": json.dumps(task)} if workers > 1 else {})}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def test_one_step_on_two_workers_equals_one_device(tmp_path):
    output, case = tmp_path / "steps.npz", "supcon streaming, lars"
    arguments = ["tests.replica_steps", str(output), "--strategy=multi_worker", f"--case={case}"]
    started = processes(arguments, workers=2)
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    alone = replica_steps.trained(tf.distribute.get_strategy(), *case.split(", "), num_steps=1)
    others = np.load(output)
    assert_same(alone, {name.split(": ")[1]: others[name] for name in others}, atol=1e-6)


# Faster tests have a step of two workers, the message of a survivor, and a run that continues.
@pytest.mark.slow
def test_two_workers_train_one_run_and_resume_after_one_died(image_folder, tmp_path):
    workdir = tmp_path / "run"
    bindings = [
        f"sources.folder.root = '{image_folder}'",
        "experiment.run.stages = ('pretrain',)",
        "distribution.strategy.name = 'multi_worker'",
        "models.contrastive_model.encoder = @keras.Sequential()",
        "keras.Sequential.layers = [@keras.layers.Conv2D(), @keras.layers.GlobalMaxPooling2D()]",
        "keras.layers.Conv2D.filters = 8",
        "keras.layers.Conv2D.kernel_size = 3",
        "models.contrastive_model.projection = (16,)",
        "pretrain.run.batch_size = 8",
        "pretrain.run.augmentation = @views.identity",
        "views.Preprocessing.image_px = 16",
    ]
    command = [
        "supcon_tf.train", "--gin_file=folder/supcon.gin", f"--workdir={workdir}",
        *(f"--gin_param={binding}" for binding in bindings),
    ]  # fmt: skip
    folder = RunDir(workdir)
    chief, worker = processes([*command, "--gin_param=pretrain.run.epochs = 20"], workers=2)
    deadline = time.monotonic() + 120
    while len(folder.curve("pretrain")) < 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    worker.send_signal(signal.SIGKILL)
    _, message = chief.communicate(timeout=300)
    worker.communicate()
    done = len(folder.curve("pretrain"))
    assert 1 <= done < 20
    assert chief.returncode == 2
    assert "another worker died in pretrain" in message.splitlines()[-1]

    started = processes([*command, "--gin_param=pretrain.run.epochs = 20"], workers=2)
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "continuing from step" in said[0][0]
    assert [record["epoch"] for record in folder.curve("pretrain")] == list(range(1, 21))
    assert set(folder.metrics()) == {"pretrain"}
    # Only the chief reports progress, and no other worker writes files.
    assert "epoch 20/20" in said[0][0]
    assert "epoch" not in said[1][0]
    assert {path.name for path in workdir.iterdir()} == {
        "checkpoints", "config.gin", "curves.json", "export", "test_split.npz", "metrics.json",
        "report.html", "tensorboard", "views.png", "data", "checksums.json", "encoders.json",
    }  # fmt: skip


def small_model(strategy, optimizer, **options):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = models.contrastive_model(
            replica_steps.encoder(), image_shape=(8, 8, 3), projection=(8,)
        )
        trained = TrainingModel(model.input, model.output, **options)
        trained.compile(optimizer, losses.SupConLoss(implementation="dense"))
    return trained


def test_clip_norm_on_two_replicas_clips_the_whole_gradient():
    views = np.random.default_rng(0).normal(size=(8, 2, 8, 8, 3)).astype(np.float32)
    batch = tf.data.Dataset.from_tensors((views, np.arange(8) % 3))
    weights = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        with strategy.scope():
            optimizer = keras.optimizers.SGD(1.0)
        model = small_model(strategy, optimizer, clip_norm=0.01)
        start = [variable.numpy() for variable in model.trainable_variables]
        model.fit(
            distribution.distribute_batches(strategy, lambda *_: batch, 0, 1),
            steps_per_epoch=1,
            shuffle=False,
            verbose=0,
        )
        weights.append([variable.numpy() for variable in model.trainable_variables])
        step = np.concatenate([(a - b).ravel() for a, b in zip(start, weights[-1], strict=True)])
        np.testing.assert_allclose(np.linalg.norm(step), 0.01, rtol=1e-4)
    for one, two in zip(*weights, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        ({"global_clipnorm": 1.0}, {}, "global_clipnorm = 1.0 .* 2 replicas: each would clip"),
        (
            {"gradient_accumulation_steps": 2},
            {},
            "gradient_accumulation_steps = 2 of sgd.* does not work on 2 replicas",
        ),
        (
            {"use_ema": True, "ema_overwrite_frequency": 3},
            {},
            "ema_overwrite_frequency = 3 of sgd.* does not work on 2 replicas",
        ),
        ({}, {"steps_per_execution": 2}, "steps_per_execution = 2 does not work on 2 replicas"),
        ({}, {"jit_compile": True}, "jit_compile = True does not work on 2 replicas"),
    ],
)
def test_settings_that_are_wrong_on_replicas_are_rejected(optimizer, settings, message):
    model = small_model(two_replicas(), "sgd")
    with two_replicas().scope():
        model.compile(keras.optimizers.SGD(0.1, **optimizer), losses.SupConLoss(), **settings)
    with pytest.raises(UserError, match=message):
        model.fit(np.zeros((4, 2, 8, 8, 3)), np.zeros(4, int), verbose=0)


def test_settings_inside_a_multi_optimizer_are_checked_too():
    model = small_model(two_replicas(), "sgd")
    with two_replicas().scope():
        optimizers = keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {"conv/.*": keras.optimizers.Adam(clipvalue=1.0)}
        )
        model.compile(keras.optimizers.MultiOptimizer(optimizers), losses.SupConLoss())
    with pytest.raises(UserError, match=r"clipvalue = 1.0 of adam.* does not work on 2 replicas"):
        model.make_train_function()


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5),
        pytest.param(
            lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), marks=pytest.mark.slow
        ),
        # This optimizer copies the weights when it is built.
        lambda: keras.optimizers.ScheduleFreeAdamW(0.01),
    ],
    ids=["ema", "weight_decay", "schedule_free"],
)
def test_optimizers_with_more_state_train_on_two_replicas_like_one_device(optimizer):
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 4)).astype("float32")
    weights = []
    for strategy in (tf.distribute.get_strategy(), two_replicas()):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            inputs = keras.Input((4,))
            model = models.ReplicatedModel(inputs, keras.layers.Dense(3)(inputs))
            model.compile(optimizer(), "mse")
        start = model.get_weights()[0]
        model.fit(x, x[:, :3] ** 2, batch_size=8, shuffle=False, verbose=0)
        weights.append(model.get_weights()[0])
        # Two steps of at most 0.01, and the decay.
        assert 1e-3 < np.abs(weights[-1] - start).max() < 0.03
    np.testing.assert_allclose(*weights, rtol=0, atol=1e-6)


def test_optimizer_created_outside_of_the_scope_is_rejected():
    """The optimizer's step count is not mirrored: each replica adds one, so a schedule runs twice as fast."""
    with two_replicas().scope():
        model = small_model(two_replicas(), "sgd")
    model.compile(keras.optimizers.SGD(0.1), losses.SupConLoss())
    with pytest.raises(UserError, match=r"sgd.* was created outside of the scope"):
        model.fit(np.zeros((4, 2, 8, 8, 3)), np.zeros(4, int), verbose=0)


def test_loss_scaling_on_replicas_is_rejected():
    with two_replicas().scope():
        model = small_model(two_replicas(), "sgd")
        scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        model.compile(scaling, losses.SupConLoss())
    with pytest.raises(UserError, match="mixed_float16 does not work on 2 replicas"):
        model.make_train_function()


def test_batch_that_does_not_split_over_replicas_is_rejected():
    seven = tf.data.Dataset.from_tensors(tf.zeros([7, 3]))
    with pytest.raises(UserError, match="a multiple of its 2 replicas, got 7 rows"):
        distribution.distribute_batches(two_replicas(), lambda *_: seven, 0, 1)


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.AbortedError])
def test_worker_that_dies_between_epochs_is_a_one_line_error(error, tmp_path):
    def stage_of_a_survivor(folder):
        raise error(None, None, "Collective ops is aborted by: Connection reset by peer")

    with pytest.raises(UserError, match="another worker died in linear: start the same"):
        experiment.run(
            RunDir(tmp_path), stages=("linear",), configured=lambda _: stage_of_a_survivor
        )


def test_multi_worker_requires_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match="reads the cluster from TF_CONFIG, which is not set"):
        distribution.strategy("multi_worker")


def test_multi_worker_names_a_wrong_tf_config(monkeypatch):
    for config in ("{", '{"cluster": {"worker": ["localhost:2222"]}}'):
        monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(UserError, match=r"workers of TF_CONFIG, got '\{"):
            distribution.strategy("multi_worker")


def test_tpu_requires_a_tpu(monkeypatch):
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(UserError, match="no TPU was found with TPU_NAME = None"):
        distribution.strategy("tpu")


def test_cpu_replicas_are_rejected_after_the_first_operation():
    tf.zeros([])
    with pytest.raises(UserError, match="cpu_replicas = 3 must be set before TensorFlow's first"):
        distribution.strategy("mirrored", cpu_replicas=3)


def test_strategy_is_created_once_and_unknown_names_are_rejected():
    assert distribution.strategy("one_device") is distribution.strategy(name="one_device")
    assert distribution.strategy("auto") is distribution.strategy("auto", cpu_replicas=1)
    assert distribution.is_chief(distribution.strategy("auto"))
    with pytest.raises(UserError, match=r"must be one of .* got 'two'"):
        distribution.strategy("two")
    with pytest.raises(UserError, match=r"cpu_replicas is for .* got 2 for 'auto'"):
        distribution.strategy("auto", cpu_replicas=2)
