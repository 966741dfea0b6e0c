"""Checkpoints: damaged ones are passed over or named, and an interrupted epoch is continued."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.errors import Stopped, UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training.signals import Signals
from tests.replicas import two_replicas
from tests.training.test_loop import counting_model, numbered_steps, train_counting


def kernel(model):
    return model.layers[-1].kernel.numpy()


def sending(number, *, after):
    """Sends this process a signal after a number of steps."""
    steps = itertools.count(1)

    def send(batch, logs):
        if next(steps) == after:
            os.kill(os.getpid(), number)

    return [lambda steps: keras.callbacks.LambdaCallback(on_train_batch_end=send)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights and the curve after three epochs that end after 2, 5 and 7 steps."""
    folder, model = tmp_path_factory.mktemp("whole"), counting_model(3.0)
    train_counting(model, folder, [])
    return kernel(model), untimed(folder)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train_counting(
            counting_model(3.0),
            folder,
            [],
            checkpoint_steps=1,
            callbacks=sending(signal.SIGTERM, after=4),
        )
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run with checkpoints after steps 2, 3 and 4 of 7."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def untimed(folder):
    timed = ("seconds", "images_per_second")
    curve = RunDir(folder).curve("pretrain")
    return [{k: v for k, v in record.items() if k not in timed} for record in curve]


def checkpoints(folder, kind="last"):
    return sorted(path.name for path in (folder / "checkpoints/pretrain" / kind).iterdir())


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def empty(file):
    file.write_bytes(b"")


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def assert_continues(folder, whole, *, steps):
    model, seen = counting_model(), []
    train_counting(model, folder, seen)
    assert seen == steps
    np.testing.assert_array_equal(kernel(model), whole[0])
    assert untimed(folder) == whole[1]


STATE, INDEX, DATA = "state.json", "variables.index", "variables.data-00000-of-00001"


@pytest.mark.parametrize(
    ("name", "damage"),
    # Each file and each damage; a changed bit of each file.
    [
        pytest.param(
            name, damage, marks=() if damage is flip or (name, damage) in fast else pytest.mark.slow
        )
        for fast in [{(DATA, truncate), (STATE, empty), (INDEX, os.remove)}]
        for name, damage in itertools.product(
            (STATE, INDEX, DATA), (truncate, empty, flip, os.remove)
        )
    ],
)
def test_the_newest_intact_checkpoint_is_used(stopped, whole, damage, name, capsys):
    damage(stopped / "checkpoints/pretrain/last/ckpt-4" / name)
    capsys.readouterr()
    assert_continues(stopped, whole, steps=[3, 4, 5, 6])
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert f"last/ckpt-4' is damaged ({'' if damage is not os.remove else 'no'}" in first
    assert first.endswith(": the one before it is used")
    assert second == "pretrain: continuing from step 3"


def test_a_run_without_an_intact_checkpoint_is_not_started_again(stopped):
    last = stopped / "checkpoints/pretrain/last"
    for index in last.glob("*/variables.index"):
        flip(index)
    with pytest.raises(UserError, match=r"no checkpoint in .*last' is intact: .*ckpt-4' is damag"):
        train_counting(counting_model(), stopped, [])
    for path in (*last.glob("*/*"), *last.iterdir()):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(UserError, match="has 1 epochs of pretrain, but no checkpoints"):
        train_counting(counting_model(), stopped, [])


def test_remains_of_an_interrupted_checkpoint_are_removed(stopped, whole):
    last = stopped / "checkpoints/pretrain/last"
    for name in ("partial", "ckpt-6_temp"):
        (last / name).mkdir()
        (last / name / "variables.index").write_text("half of it")
    assert_continues(stopped, whole, steps=[4, 5, 6])
    assert checkpoints(stopped) == ["ckpt-4", "ckpt-5", "ckpt-7"]


def saved_by_an_older_version(folder, steps):
    """Checkpoints as version 0.1.0 wrote them."""
    model, step = counting_model(3.0), tf.Variable(0, dtype=tf.int64)
    saved = tf.train.Checkpoint(
        step=step,
        model=[variable.value for variable in model.variables],
        optimizer=[variable.value for variable in model.optimizer.variables],
    )
    manager = tf.train.CheckpointManager(saved, folder / "checkpoints/pretrain/last", 3)
    for number in steps:
        batches = numbered_steps([])(int(step), number)
        model.fit(batches, shuffle=False, verbose=0)
        step.assign(number)
        manager.save(checkpoint_number=number)
    RunDir(folder).set_curve("pretrain", [{"epoch": 1, "step": 2, "loss": 1.0}])


def test_checkpoints_of_an_older_version_are_continued(tmp_path, whole, capsys):
    saved_by_an_older_version(tmp_path, [2, 5])
    last = tmp_path / "checkpoints/pretrain/last"
    (last / "checkpoint").unlink()
    flip(last / "ckpt-5.data-00000-of-00001")
    model, seen = counting_model(), []
    train_counting(model, tmp_path, seen)
    assert seen == [2, 3, 4, 5, 6]
    assert "ckpt-5.index' is damaged (" in capsys.readouterr().out
    np.testing.assert_array_equal(kernel(model), whole[0])
    assert checkpoints(tmp_path) == [
        "ckpt-2.data-00000-of-00001", "ckpt-2.index", "ckpt-5", "ckpt-7"
    ]  # fmt: skip


def change_a_digit(file):
    file.write_text(file.read_text().replace('"epoch": 1', '"epoch": 3'))


@pytest.mark.parametrize("damage", [truncate, empty, change_a_digit, os.remove])
def test_a_damaged_curve_is_restored_from_the_checkpoints(stopped, whole, damage):
    damage(stopped / "curves.json")
    assert_continues(stopped, whole, steps=[4, 5, 6])


@pytest.mark.parametrize("damage", [truncate, os.remove])
def test_the_curve_of_a_finished_run_is_restored_too(stopped, damage):
    run_dir = RunDir(stopped)
    run_dir.set_metrics("pretrain", {"seconds": 1.0})
    before = run_dir.curve("pretrain")
    damage(stopped / "curves.json")
    experiment.run(run_dir, stages=("pretrain",), configured=lambda _: print)
    assert run_dir.curve("pretrain") == before != []


def test_a_damaged_checkpoint_of_the_best_epoch_is_named_before_training(tmp_path):
    accuracies = iter([0.9, 0.5, 0.4])
    train_counting(counting_model(), tmp_path, [], epochs=2, accuracy=lambda: next(accuracies))
    flip(tmp_path / "checkpoints/pretrain/best/ckpt-2/variables.index")
    with pytest.raises(UserError, match=r"remove '.*best' to choose among the later epochs"):
        train_counting(counting_model(), tmp_path, [], accuracy=lambda: next(accuracies))


def test_a_full_disk_keeps_the_earlier_checkpoints(stopped, whole, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tf.train.Checkpoint, "write", full)
        with pytest.raises(UserError, match=r"cannot save .*No space left on device; when there"):
            train_counting(counting_model(), stopped, [])
    assert checkpoints(stopped) == ["ckpt-2", "ckpt-3", "ckpt-4"]
    assert_continues(stopped, whole, steps=[4, 5, 6])


def test_a_run_directory_that_is_gone_is_not_made_again(tmp_path):
    folder = tmp_path / "run"

    def move(batch, logs):
        if batch == 0:
            folder.rename(tmp_path / "away")

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=move)
    with pytest.raises(UserError, match=r"run directory '.*run' is gone"):
        train_counting(counting_model(), folder, [], callbacks=[lambda steps: callback])
    assert not folder.exists()


def test_an_interrupted_epoch_logs_the_loss_of_all_its_steps_on_two_replicas(tmp_path):
    def made(folder, **options):
        strategy = two_replicas()
        with strategy.scope():
            model = counting_model(
                3.0, rate=keras.optimizers.schedules.ExponentialDecay(0.01, 9, 1)
            )

        def steps(start, stop):
            values = np.arange(2 * start, 2 * stop, dtype=np.float32)[:, None] % 7
            dataset = tf.data.Dataset.from_tensor_slices((values, values)).batch(2)
            return strategy.experimental_distribute_dataset(
                dataset.map(lambda image, label: (image, {"logits": label}))
            )

        train_counting(
            model, folder, [], steps=steps, num_examples=12, epochs=1, strategy=strategy, **options
        )
        return untimed(folder)

    expected = made(tmp_path / "whole")
    with pytest.raises(Stopped):
        made(tmp_path / "parts", callbacks=sending(signal.SIGINT, after=2))
    assert made(tmp_path / "parts") == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_step_and_stops(tmp_path, whole, number):
    with pytest.raises(Stopped, match=f"by {number.name} after step 4 of pretrain, which") as error:
        train_counting(counting_model(3.0), tmp_path, [], callbacks=sending(number, after=4))
    assert error.value.number == number
    assert checkpoints(tmp_path) == ["ckpt-2", "ckpt-4"]
    assert_continues(tmp_path, whole, steps=[4, 5, 6])


def test_sigusr1_saves_the_step_and_goes_on(tmp_path, capsys):
    train_counting(counting_model(), tmp_path, [], callbacks=sending(signal.SIGUSR1, after=4))
    assert checkpoints(tmp_path) == ["ckpt-4", "ckpt-5", "ckpt-7"]
    assert "pretrain: saved at step 4" in capsys.readouterr().out


def test_checkpoints_after_a_number_of_steps(tmp_path):
    train_counting(
        counting_model(), tmp_path, [], checkpoint_steps=2, epochs=2, num_examples=20,
        checkpoints_to_keep=9,
    )  # fmt: skip
    assert checkpoints(tmp_path) == ["ckpt-10", "ckpt-2", "ckpt-4", "ckpt-5", "ckpt-7", "ckpt-9"]


def test_handlers_are_restored_and_ignored_signals_stay_ignored():
    before = signal.getsignal(signal.SIGTERM)
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.stop is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.stop == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, time\n"
        "from supcon_tf.training.signals import Signals\n"
        "with Signals():\n"
        "    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):\n"
        "        os.kill(os.getpid(), number)\n"
        "    time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert ended.returncode == 128 + signal.SIGINT


def test_the_state_of_a_checkpoint_is_readable(stopped):
    state = json.loads((stopped / "checkpoints/pretrain/last/ckpt-4/state.json").read_text())
    assert state["step"] == 4
    assert [record["step"] for record in state["curve"]] == [2]
