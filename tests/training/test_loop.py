"""The epoch loop and whole runs: steps, results, files, and resuming after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from supcon_tf.data import sources, views
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training import loop
from supcon_tf.training.batches import resolve_normalization
from tests.fitting import fit_steps
from tests.small_runs import SMALL, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photos):
    """A finished run on `photos`."""
    folder = RunDir(tmp_path_factory.mktemp("run") / "here")
    run(folder.root, *settings_of(photos))
    return folder, photos


def settings_of(root):
    return (
        f"sources.folder.root = '{root}'",
        "pretrain.run.augmentation = @views.simclr",
        "views.simclr.strength = 0.1",
        'views.Preprocessing.normalization = "measure"',
        "pretrain.run.snapshot_every = 1",
        "pretrain.run.callbacks = (@pretrain/keras.callbacks.CSVLogger(),)",
        f"pretrain/keras.callbacks.CSVLogger.filename = '{root.parent}/pretrain.csv'",
        "linear.run.callbacks = (@linear/keras.callbacks.CSVLogger(),)",
        f"linear/keras.callbacks.CSVLogger.filename = '{root.parent}/linear.csv'",
    )


def test_a_finished_run_has_all_files(finished):
    folder, _ = finished
    names = {path.name for path in folder.root.iterdir()}
    assert names >= {
        "config.gin", "metrics.json", "report.html", "checkpoints", "tensorboard", "export",
    }  # fmt: skip
    metrics = folder.metrics()
    assert set(metrics) == {"pretrain", "linear"}
    for stage in ("pretrain", "linear"):
        assert metrics[stage]["seconds"] > 0
        assert metrics[stage]["images_per_second"] > 0
        for classifier in ("knn", "prototype", "soft_neighbor"):
            assert 0 <= metrics[stage][f"{classifier}_top_1"] <= 1
    assert metrics["linear"]["top_5"] == 1.0
    # Both classes have the same number of images.
    assert metrics["linear"]["mean_per_class"] == pytest.approx(metrics["linear"]["top_1"])
    retrieval = {"recall_at_1", "mean_average_precision_at_r"}
    assert metrics["pretrain"]["intervals"].keys() == retrieval
    assert metrics["linear"]["intervals"].keys() == retrieval | {
        *("top_1", "negative_log_likelihood", "brier_score", "worst_class", "aurc", "augrc"),
    }
    for stage in ("pretrain", "linear"):
        for name, (low, high) in metrics[stage]["intervals"].items():
            assert low <= high
            assert name in metrics[stage]
    assert "temperature" not in metrics["linear"]  # There is no validation split.
    assert not (folder.export / "temperature.json").exists()
    assert metrics["linear"]["worst_class"] <= metrics["linear"]["mean_per_class"]


def test_keras_callbacks_of_both_stages_get_the_measures_of_each_epoch(finished):
    folder, root = finished
    for stage in ("pretrain", "linear"):
        with (root.parent / f"{stage}.csv").open() as file:
            rows = list(csv.DictReader(file))
        curve = folder.curve(stage)
        assert [int(row["epoch"]) + 1 for row in rows] == [record["epoch"] for record in curve]
        for row, record in zip(rows, curve, strict=True):
            # CSVLogger adds an empty column val_NAME to each one.
            names = [name for name in row if name != "epoch" and not name.startswith("val_")]
            logged = {name: float(row[name]) for name in names}
            assert logged == {k: v for k, v in record.items() if k not in ("epoch", "step")}


def test_tensorboard_has_the_results_on_the_test_split(finished):
    folder, _ = finished
    for stage, names in (("pretrain", {"test_loss", "knn_top_1"}), ("linear", {"top_1", "top_5"})):
        events = EventAccumulator(str(folder.tensorboard(stage))).Reload()
        scalars = {tag: events.Tensors(tag)[-1] for tag in events.Tags()["tensors"]}
        assert names <= scalars.keys()
        results = folder.metrics()[stage]
        for name in names:
            assert scalars[name].step == folder.curve(stage)[-1]["step"]
            assert tf.make_ndarray(scalars[name].tensor_proto) == np.float32(results[name])


def test_measured_normalization_is_kept_with_the_run(finished):
    folder, root = finished
    means, deviations = folder.normalization()
    # The pixels of an image are all 210 or all 40, on the scale [-1, 1].
    is_bright = sources.folder(str(root)).train.labels == 0
    pixels = np.where(is_bright, 210, 40) / 127.5 - 1
    np.testing.assert_allclose(means, pixels.mean(), atol=1e-6)
    np.testing.assert_allclose(deviations, pixels.std(), atol=1e-6)


def test_an_easy_task_is_learned(finished):
    folder, _ = finished
    assert folder.metrics()["linear"]["knn_top_1"] == 1.0


def test_a_snapshot_is_the_model_after_its_epoch(finished):
    folder, _ = finished
    first, second = folder.curve("pretrain")
    assert 0 <= first["knn_top_1"] <= 1
    # The second epoch is the last one.
    assert second["knn_top_1"] == folder.metrics()["pretrain"]["knn_top_1"]
    early, late, final = (
        np.concatenate([weights.ravel() for weights in model.get_weights()])
        for model in (
            keras.saving.load_model(folder.model("pretrain", epoch), compile=False)
            for epoch in (1, 2, None)
        )
    )
    np.testing.assert_array_equal(late, final)
    assert np.abs(early - final).max() > 0


def test_a_finished_run_is_not_repeated(finished, capsys):
    folder, root = finished
    before = folder.metrics()
    run(folder.root, *settings_of(root))
    assert folder.metrics() == before
    assert "pretrain: finished before" in capsys.readouterr().out


def test_changed_settings_in_the_same_directory_are_rejected(finished):
    folder, root = finished
    with pytest.raises(
        ValueError, match=r"holds a run with other settings, views\.simclr\.strength = 0\.1"
    ):
        run(folder.root, *settings_of(root), "views.simclr.strength = 0.2")


def test_the_linear_stage_takes_an_encoder_trained_elsewhere(finished, tmp_path, results_only):
    folder, root = finished
    for encoder in (folder.root, folder.model("pretrain")):
        there = RunDir(tmp_path / encoder.name)
        # A run directory has the measured constants; a file does not.
        normalization = "'measure'" if encoder.is_dir() else folder.normalization()
        run(
            there.root,
            f"sources.folder.root = '{root}'",
            f"views.Preprocessing.normalization = {normalization}",
            "experiment.run.stages = ('linear',)",
            f"linear.run.encoder = '{encoder}'",
        )
        assert there.metrics()["linear"]["knn_top_1"] == folder.metrics()["linear"]["knn_top_1"]
    with pytest.raises(UserError, match="would differ from what the encoder"):
        resolve_normalization(
            RunDir(tmp_path),
            views.Preprocessing(16, normalization="measure"),
            None,
            network=keras.Sequential(),
            encoder=folder.model("pretrain"),
        )
    with pytest.raises(UserError, match=r"takes images \(16, 16, 3\), got \(24, 24, 3\)"):
        run(
            tmp_path / "other",
            f"sources.folder.root = '{root}'",
            "experiment.run.stages = ('linear',)",
            f"linear.run.encoder = '{folder.root}'",
            "views.Preprocessing.image_px = 24",
        )


def test_each_stage_takes_the_settings_of_its_batches(photos, tmp_path, results_only):
    with pytest.raises(ValueError, match="multiple of samples_per_class, got 8 and 3"):
        run(
            tmp_path / "run",
            f"sources.folder.root = '{photos}'",
            "pretrain.run.epochs = 1",
            "linear/pipeline.training_batches.samples_per_class = 3",
        )


def test_a_stage_takes_the_settings_of_its_step(photos, tmp_path, results_only):
    source = f"sources.folder.root = '{photos}'"
    bindings = [
        source,
        "experiment.run.stages = ('pretrain',)",
        "pretrain.run.epochs = 1",
        "optimizers.warmup_schedule.base_learning_rate = 1e6",
        "pretrain.run.clip_norm = 1e-9",
        "pretrain.run.gradient_cache_chunk = 4",
        'pretrain.run.precision = "mixed_bfloat16"',
    ]
    run(tmp_path / "run", *bindings)
    model = keras.saving.load_model(RunDir(tmp_path / "run").model("pretrain"), compile=False)
    head = model.get_layer("projection_head")
    assert head.layers[1].compute_dtype == "bfloat16"
    # Without clipping, a step at this rate would have moved it far away.
    assert np.std(head.trainable_variables[0]) == pytest.approx(0.01, rel=0.3)
    with pytest.raises(ValueError, match=r"gradient_cache_chunk must divide batch_size = 8, got 3"):
        run(tmp_path / "other", *bindings, "pretrain.run.gradient_cache_chunk = 3")


def test_the_linear_stage_does_not_change_the_encoder(finished):
    folder, _ = finished
    pretrained = keras.saving.load_model(folder.model("pretrain"), compile=False)
    linear = keras.saving.load_model(folder.model("linear"), compile=False)
    left = {variable.path: variable.numpy() for variable in linear.variables}
    compared = 0
    for variable in pretrained.get_layer("embedding").variables:
        (same,) = [values for path, values in left.items() if path.endswith(variable.path)]
        np.testing.assert_array_equal(same, variable.numpy())
        compared += 1
    assert compared == 6  # Kernel and bias, and batch normalisation's four.


def test_fine_tuning_follows_pretraining(finished, tmp_path, results_only):
    folder, root = finished
    there = RunDir(tmp_path / "tuned")
    there.root.mkdir()
    there.set_metrics("robustness", {"seconds": 1.0})  # Results of another classifier.
    run(
        there.root,
        f"sources.folder.root = '{root}'",
        "experiment.run.stages = ('finetune',)",
        f"finetune.run.encoder = '{folder.root}'",
        "views.Preprocessing.normalization = 'measure'",  # The constants of the encoder.
        "finetune.run.epochs = 3",
        "finetune.run.batch_size = 8",
        "finetune/optimizers.warmup_schedule.base_learning_rate = 0.5",
        "sources.folder.validation_share = 0.25",
    )
    assert there.metrics().keys() == {"finetune"}
    results = there.metrics()["finetune"]
    assert results["top_1"] >= 0.5
    assert results["temperature"] > 0
    for measure in ("negative_log_likelihood", "expected_calibration_error"):
        assert results[measure] != results[f"calibrated_{measure}"]
    curve = there.curve("finetune")
    assert len(curve) == 3
    assert all(0 <= record["validation_accuracy"] <= 1 for record in curve)


def test_pretraining_with_cross_entropy_gives_a_classifier(photos, tmp_path):
    there = RunDir(tmp_path / "ce")
    run(
        there.root,
        f"sources.folder.root = '{photos}'",
        "experiment.run.stages = ('pretrain',)",
        "pretrain.run.model = @models.classification_model",
        "pretrain.run.loss = @keras.losses.SparseCategoricalCrossentropy()",
        "keras.losses.SparseCategoricalCrossentropy.from_logits = True",
    )
    results = there.metrics()["pretrain"]
    assert {"top_1", "top_5", "knn_top_1"} <= set(results)
    assert (there.export / "labels.txt").read_text() == "bright\ndark\n"


def counting_model(kernel=None, rate=0.01):
    """A model with one weight: this one, or a random one."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, {"logits": keras.layers.Dense(1, use_bias=False)(inputs)})
    # Keras builds the metrics in the first step.
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9), {"logits": "mse"}, metrics={"logits": ["mae"]}
    )
    model.optimizer.build(model.trainable_variables)
    if kernel is not None:
        model.layers[-1].kernel.assign([[kernel]])
    return model


def numbered_steps(seen, *, broken_at=None):
    def steps(start, stop):
        seen.extend(range(start, stop))
        values = np.arange(start, stop, dtype=np.float32)[:, None, None] % 7
        if broken_at is not None:
            values[np.arange(start, stop) == broken_at] = np.nan
        dataset = tf.data.Dataset.from_tensor_slices((values, values))
        return dataset.map(lambda image, label: (image, {"logits": label}))

    return steps


def train_counting(model, folder, seen, *, broken_at=None, steps=None, **options):
    settings = {"epochs": 3, "batch_size": 4, "num_examples": 10, **options}
    fit_steps(model, steps or numbered_steps(seen, broken_at=broken_at), folder, **settings)


def test_epochs_need_not_be_whole_steps(tmp_path):
    seen = []
    train_counting(counting_model(), tmp_path, seen)
    # 2.5 steps an epoch: the epochs end after 2, 5 and 7 steps.
    assert seen == list(range(7))
    assert [record["step"] for record in RunDir(tmp_path).curve("pretrain")] == [2, 5, 7]


class Recorder(keras.callbacks.Callback):
    """Records its calls."""

    def __init__(self):
        super().__init__()
        self.calls, self.logs = [], []

    def on_train_begin(self, logs=None):
        self.calls.append(("train", self.params["epochs"]))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch", epoch))

    def on_train_batch_end(self, batch, logs=None):
        assert logs["loss"] >= 0
        self.calls.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("end", epoch))
        self.logs.append(logs)

    def on_train_end(self, logs=None):
        self.calls.append("end")


@pytest.mark.parametrize("one_pipeline", [True, False])
def test_callbacks_see_the_epochs_of_the_stage(tmp_path, one_pipeline):
    recorder, made, steps = Recorder(), Recorder(), []

    def make(steps):
        assert steps == 7
        return made

    def train(**options):
        train_counting(
            counting_model(1.0), tmp_path, steps, one_pipeline=one_pipeline,
            accuracy=lambda: 0.25, **options,
        )  # fmt: skip

    train(callbacks=(recorder, make))
    # 2.5 steps an epoch: the epochs end after 2, 5 and 7 steps.
    assert recorder.calls == made.calls
    assert recorder.calls == [
        ("train", 3), ("epoch", 0), 0, 1, ("end", 0), ("epoch", 1), 0, 1, 2, ("end", 1),
        ("epoch", 2), 0, 1, ("end", 2), "end",
    ]  # fmt: skip
    curve = RunDir(tmp_path).curve("pretrain")
    assert [
        {"epoch": n + 1, "step": s, **logs}
        for n, s, logs in zip(range(3), (2, 5, 7), recorder.logs)
    ] == curve
    assert curve[0]["validation_accuracy"] == 0.25


def test_a_callback_of_another_kind_is_rejected(tmp_path):
    with pytest.raises(
        UserError, match=r"pretrain\.run\.callbacks must be Keras callbacks, or .* 3"
    ):
        train_counting(counting_model(), tmp_path, [], callbacks=(lambda steps: 3,))


@pytest.mark.parametrize("images", [0, 22, 10**6])
def test_one_fit_for_several_epochs_equals_one_fit_per_epoch(tmp_path, monkeypatch, images):
    def made(folder, **options):
        model, calls, accuracies = counting_model(3.0), [], []

        def accuracy():
            accuracies.append(float(model.layers[-1].kernel[0, 0]))
            return accuracies[-1]

        steps = numbered_steps([])

        def counted(start, stop):
            calls.append((start, stop))
            return steps(start, stop)

        train_counting(model, folder, [], epochs=4, steps=counted, accuracy=accuracy, **options)
        curve = RunDir(folder).curve("pretrain")
        timed = ("seconds", "images_per_second")
        untimed = [{k: v for k, v in record.items() if k not in timed} for record in curve]
        assert all(record[name] > 0 for record in curve for name in timed)
        return untimed, accuracies, calls

    *many, calls_of_many = made(tmp_path / "many", one_pipeline=False)
    monkeypatch.setattr(loop, "IMAGES_PER_PIPELINE", images)
    *one, calls = made(tmp_path / "one")
    assert one == many
    assert calls_of_many == [(0, 2), (2, 5), (5, 7), (7, 10)]
    # 22 images are five whole steps.
    assert calls == {0: calls_of_many, 22: [(0, 5), (5, 10)], 10**6: [(0, 10)]}[images]


def test_a_run_in_two_parts_equals_a_run_in_one(tmp_path):
    whole, first = counting_model(3.0), counting_model(3.0)
    train_counting(whole, tmp_path / "whole", [])
    train_counting(first, tmp_path / "parts", [], epochs=2)
    seen = []
    second = counting_model()
    train_counting(second, tmp_path / "parts", seen)
    assert seen == [5, 6]
    np.testing.assert_array_equal(second.layers[-1].kernel.numpy(), whole.layers[-1].kernel.numpy())
    assert len(RunDir(tmp_path / "parts").curve("pretrain")) == 3


def test_a_checkpoint_within_an_epoch_is_continued_to_its_end(tmp_path):
    whole, first = counting_model(3.0), counting_model(3.0)
    train_counting(whole, tmp_path / "whole", [])
    with pytest.raises(ValueError, match="at step 5"):
        train_counting(first, tmp_path / "parts", [], broken_at=4, checkpoint_minutes=0.0)
    second, seen = counting_model(), []
    train_counting(second, tmp_path / "parts", seen)
    # The second epoch has steps 2 to 4; two of them were saved.
    assert seen == [4, 5, 6]
    np.testing.assert_array_equal(second.layers[-1].kernel.numpy(), whole.layers[-1].kernel.numpy())
    records = RunDir(tmp_path / "parts").curve("pretrain")
    assert [record["step"] for record in records] == [2, 5, 7]


def test_a_finished_epoch_is_saved_after_its_record(tmp_path):
    def accuracy():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train_counting(counting_model(), tmp_path, [], checkpoint_minutes=0.0, accuracy=accuracy)
    seen = []
    train_counting(counting_model(), tmp_path, seen)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_measures_see_averaged_weights(tmp_path):
    model, averages, kernels = counting_model(), [], []
    averaging = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5)
    model.compile(averaging, {"logits": "mse"})
    averaging.build(model.trainable_variables)

    def accuracy():
        averages.append(averaging._model_variables_moving_average[0].numpy())
        kernels.append(model.layers[-1].kernel.numpy())
        return 0.5

    train_counting(model, tmp_path, [], accuracy=accuracy)
    assert len(kernels) == 3
    np.testing.assert_array_equal(kernels, averages)


def averaging_model(kernel=None):
    model = counting_model(kernel)
    averaging = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5)
    model.compile(averaging, {"logits": "mse"})
    averaging.build(model.trainable_variables)
    return model


def test_averages_follow_all_steps_and_do_not_change_the_training(tmp_path):
    plain, kernels = counting_model(3.0), []
    plain.compile(keras.optimizers.Adam(0.01), {"logits": "mse"})
    plain.optimizer.build(plain.trainable_variables)
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernels.append(plain.layers[-1].kernel.numpy())
    )
    train_counting(plain, tmp_path / "plain", [], callbacks=[lambda steps: keep])
    expected = kernels[0]
    for kernel in kernels[1:]:
        expected = 0.5 * expected + 0.5 * kernel

    whole = averaging_model(3.0)
    train_counting(whole, tmp_path / "whole", [], one_pipeline=False)
    np.testing.assert_allclose(whole.layers[-1].kernel.numpy(), expected, rtol=1e-6)

    train_counting(averaging_model(3.0), tmp_path / "parts", [], epochs=2)
    for seen in ([5, 6], []):  # The rest, and a run that was killed before it saved its results.
        model, steps = averaging_model(), []
        train_counting(model, tmp_path / "parts", steps)
        assert steps == seen
        np.testing.assert_array_equal(
            model.layers[-1].kernel.numpy(), whole.layers[-1].kernel.numpy()
        )


def test_the_best_epoch_is_kept_with_its_averages(tmp_path):
    model, kernels, accuracies = averaging_model(3.0), [], iter([0.2, 0.9, 0.5])

    def accuracy():
        kernels.append(model.layers[-1].kernel.numpy())
        return next(accuracies)

    train_counting(model, tmp_path, [], accuracy=accuracy)
    np.testing.assert_array_equal(model.layers[-1].kernel.numpy(), kernels[1])


def test_too_short_input_is_reported(tmp_path):
    steps = numbered_steps([])
    with (
        pytest.raises(UserError, match="pretrain ended after step 6 of 7: its input was too"),
        pytest.warns(UserWarning, match="ran out of data"),
    ):
        train_counting(
            counting_model(), tmp_path, [], steps=lambda start, stop: steps(start, stop - 1)
        )


def test_the_loss_scale_of_float16_is_restored(tmp_path):
    def scaling_model():
        model = counting_model()
        scaling = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.01), initial_scale=4.0, dynamic_growth_steps=2
        )
        model.compile(scaling, {"logits": "mse"})
        return model

    # Doubled after every second step of seven; the second part has two of these steps.
    train_counting(scaling_model(), tmp_path, [], epochs=2)
    model, seen = scaling_model(), []
    train_counting(model, tmp_path, seen)
    assert seen == [5, 6]
    assert float(model.optimizer.dynamic_scale) == 4.0 * 2**3
    assert int(model.optimizer.step_counter) == 1


def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_advice(tmp_path):
    with pytest.raises(ValueError, match=r"loss is nan at step 4 of pretrain .* try a lower"):
        train_counting(counting_model(), tmp_path, [], broken_at=3)
    # The earlier checkpoint is still there to resume from.
    seen = []
    train_counting(counting_model(), tmp_path, seen)
    assert seen == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("ckpt; No space left on device", UserError, "no space left to save"),
        ("OOM when allocating tensor", UserError, "pretrain.run.batch_size = 4: lower it"),
    ],
)
def test_full_disk_and_full_memory_have_different_errors(tmp_path, said, kind, advice):
    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, said)

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=full)
    with pytest.raises(kind, match=advice):
        train_counting(counting_model(), tmp_path, [], callbacks=[lambda steps: callback])


def test_the_weights_of_the_best_epoch_on_validation_are_kept(tmp_path):
    model = counting_model()
    kernels, accuracies = [], iter([0.2, 0.9, 0.5])

    def accuracy():
        kernels.append(model.layers[-1].kernel.numpy())
        return next(accuracies)

    train_counting(model, tmp_path, [], accuracy=accuracy)
    np.testing.assert_array_equal(model.layers[-1].kernel.numpy(), kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_a_validation_split_may_be_added_later(tmp_path):
    train_counting(counting_model(), tmp_path, [], epochs=1)
    train_counting(counting_model(), tmp_path, [], accuracy=lambda: 0.5)
    curve = RunDir(tmp_path).curve("pretrain")
    assert [record.get("validation_accuracy") for record in curve] == [None, 0.5, 0.5]


def test_only_the_last_checkpoints_are_kept(tmp_path):
    train_counting(counting_model(), tmp_path, [], epochs=6, checkpoints_to_keep=2)
    kept = sorted(path.name for path in (tmp_path / "checkpoints/pretrain/last").iterdir())
    assert kept == ["ckpt-12", "ckpt-15"]


def test_a_killed_run_continues_from_its_checkpoint(tmp_path, photos):
    workdir = tmp_path / "killed"
    bindings = [*SMALL, f"sources.folder.root = '{photos}'", "pretrain.run.epochs = 400"]
    command = [
        sys.executable, "-m", "supcon_tf.train", "--gin_file=folder/supcon.gin",
        f"--workdir={workdir}", *(f"--gin_param={binding}" for binding in bindings),
    ]  # fmt: skip
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(RunDir(workdir).curve("pretrain")) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    done = len(RunDir(workdir).curve("pretrain"))
    assert 2 <= done < 400
    second = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    said = ""
    for line in second.stdout:
        said = line
        if "continuing from step" in line:
            break
    second.kill()
    second.communicate()
    steps = [record["step"] for record in RunDir(workdir).curve("pretrain")]
    assert int(said.split()[-1]) in steps[done - 2 :]


def test_robustness_must_be_the_last_stage(tmp_path):
    folder = RunDir(tmp_path)
    folder.set_metrics("robustness", {"seconds": 1.0})
    with pytest.raises(ValueError, match="must have 'robustness' last"):
        experiment.run(folder, stages=("robustness", "linear"), configured=lambda _: print)


def test_a_failed_stage_keeps_earlier_results(tmp_path):
    folder = RunDir(tmp_path)
    folder.set_metrics("robustness", {"seconds": 1.0})

    def failing(_):
        raise ValueError("a setting")

    with pytest.raises(ValueError, match="a setting"):
        experiment.run(folder, stages=("linear",), configured=lambda _: failing)
    assert "robustness" in folder.metrics()


def test_a_killed_writer_leaves_metrics_intact(tmp_path):
    folder = RunDir(tmp_path)
    folder.set_metrics("pretrain", {"loss": 1.0})
    folder.set_metrics("linear", {"top_1": 0.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "pretrain": {"loss": 1.0},
        "linear": {"top_1": 0.5},
    }
    assert not list(tmp_path.glob("*.partial"))
