"""The images of a run: changes are named, and the test split stays."""

import dataclasses
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import sources
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training.run_data import run_images


@pytest.fixture
def images(tmp_path):
    """A folder of two classes of twenty files; nothing decodes them."""
    root = tmp_path / "photos"
    for number in range(40):
        file = root / ("bright" if number % 2 else "dark") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"image %d" % number)
    return root


def source_of(root, **options):
    return sources.folder(str(root), check_images=False, **options)


def names(split):
    return {f"{Path(path).parent.name}/{Path(path).name}" for path in split.paths}


@pytest.fixture
def run_dir(tmp_path):
    return RunDir(tmp_path / "run")


def started(run_dir, source, stage="pretrain"):
    """Records the images of a stage, which then has a checkpoint."""
    run_dir.root.mkdir(exist_ok=True)
    assert run_images(run_dir, stage, source) is source
    (run_dir.checkpoints(stage) / "last").mkdir(parents=True)
    return source


def added_to_test(root, before):
    """Adds images to a class until the test split has a new one; returns the new ones."""
    new = set()
    for number in range(100, 130):
        shutil.copy(root / "dark" / "00.png", root / "dark" / f"{number}.png")
        new.add(f"dark/{number}.png")
    assert names(source_of(root).test) > names(before.test)
    return new


def test_unchanged_images_are_accepted(images, run_dir):
    started(run_dir, source_of(images, validation_share=0.2))
    again = source_of(images, validation_share=0.2)
    for stage in ("pretrain", "linear", "robustness"):
        assert run_images(run_dir, stage, again) is again


def relabel(images):
    (images / "bright/01.png").rename(images / "dark/01.png")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: shutil.copy(root / "dark/00.png", root / "dark/new.png"), "1 added .*dark/n"),
        (lambda root: (root / "dark/02.png").unlink(), r"1 removed \(first 'dark/02.png'\)"),
        (relabel, r"1 added \(first 'dark/01.png'\), 1 removed \(first 'bright/01.png'\)"),
    ],
)
def test_changed_images_are_rejected_with_what_changed(images, run_dir, change, says):
    started(run_dir, source_of(images))
    change(images)
    with pytest.raises(UserError, match=f"of 'photos' have changed since .*: {says}.*; restore"):
        run_images(run_dir, "pretrain", source_of(images))


def test_another_label_of_an_image_is_a_change(images, run_dir):
    source = started(run_dir, source_of(images))
    train = source.train
    other = dataclasses.replace(train, labels=np.r_[1 - train.labels[:2], train.labels[2:]])
    with pytest.raises(UserError, match=r"2 relabelled \(first"):
        run_images(run_dir, "pretrain", dataclasses.replace(source, train=other))


def test_accepted_changes_keep_the_test_split_at_every_later_start(images, run_dir, capsys):
    before = started(run_dir, source_of(images, validation_share=0.2))
    new = added_to_test(images, before)
    gone = min(names(before.test))
    (images / gone).unlink()
    changed = source_of(images, validation_share=0.2)
    accepting = dataclasses.replace(run_dir, keep_test_split=True)
    after = run_images(accepting, "pretrain", changed)
    assert "pretrain: 30 added (first 'dark/100.png'), 1 removed" in capsys.readouterr().out
    assert names(after.test) == names(before.test) - {gone}
    assert names(after.validation) >= names(before.validation)
    everything = names(after.train) | names(after.test) | names(after.validation)
    assert everything == names(changed.train) | names(changed.test) | names(changed.validation)
    assert names(changed.test) & new <= names(after.train)
    # From here on these are the images of the run, for this stage and for later ones.
    for stage in ("pretrain", "linear", "robustness"):
        later = run_images(run_dir, stage, source_of(images, validation_share=0.2))
        assert names(later.test) == names(after.test)


def test_images_of_other_splits_are_read(images, run_dir):
    before = started(run_dir, source_of(images, validation_share=0.2))
    added_to_test(images, before)
    accepting = dataclasses.replace(run_dir, keep_test_split=True)
    after = run_images(accepting, "pretrain", source_of(images, validation_share=0.2))
    for split in (after.train, after.test, after.validation):
        for number, path in enumerate(split.paths):
            image, label = split.example(tf.constant(number, tf.int64))
            assert image.numpy() == Path(path).read_bytes()
            assert after.class_names[int(label)] == Path(path).parent.name


def test_a_later_stage_may_train_on_other_images_but_not_test_on_others(images, run_dir):
    source = source_of(images)
    before = started(run_dir, sources.subset(source, per_class=3))
    assert run_images(run_dir, "linear", source) is source
    added_to_test(images, before)
    with pytest.raises(UserError, match=r"have changed since this run started: \d+ added"):
        run_images(run_dir, "linear", source_of(images))


def test_an_evaluation_leaves_out_images_that_the_run_did_not_test_on(images, run_dir, capsys):
    before = started(run_dir, source_of(images))
    added_to_test(images, before)
    assert names(run_images(run_dir, "robustness", source_of(images)).test) == names(before.test)
    assert "added (first 'dark/1" in capsys.readouterr().out
    (images / min(names(before.test))).unlink()
    with pytest.raises(UserError, match="1 removed"):
        run_images(run_dir, "robustness", source_of(images))


def test_changed_arrays_are_rejected(tmp_path, run_dir):
    def source(count):
        pixels = np.zeros([count, 8, 8, 3], np.uint8)
        np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(count) % 2)
        return sources.arrays(str(tmp_path / "set.npz"))

    started(run_dir, source(20))
    run_images(run_dir, "pretrain", source(20))
    with pytest.raises(UserError, match=r"train 16, test 4 before, train 24, test 6 now; restore"):
        run_images(run_dir, "pretrain", source(30))


def test_a_new_class_is_rejected(images, run_dir):
    started(run_dir, source_of(images))
    shutil.copytree(images / "dark", images / "gloomy")
    with pytest.raises(UserError, match="the classes of 'photos' have changed since pretrain"):
        run_images(run_dir, "pretrain", source_of(images))


def test_a_folder_run_of_an_older_version_is_rejected(images, run_dir):
    (run_dir.checkpoints("pretrain") / "last").mkdir(parents=True)
    with pytest.raises(UserError, match="older version, which chose the test split of 'photos'"):
        run_images(run_dir, "linear", source_of(images))
    digits = sources.digits()
    assert run_images(run_dir, "linear", digits) is digits


@pytest.mark.parametrize("content", [b"", b"{}", b"\x1f\x8b half"])
def test_a_damaged_record_is_named(images, run_dir, content):
    started(run_dir, source_of(images))
    (run_dir.data / "pretrain.json.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"data/pretrain\.json\.gz' is damaged \(.*remove it"):
        run_images(run_dir, "pretrain", source_of(images))
    (run_dir.data / "pretrain.json.gz").unlink()
    run_images(run_dir, "pretrain", source_of(images))


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"spoiled")])
def test_images_that_are_spoiled_while_a_stage_runs_are_named(images, run_dir, spoil):
    source = source_of(images)
    started(run_dir, source)
    file = Path(source.train.paths[3])

    def stage(_):
        spoil(file)
        tf.io.decode_image(file.read_bytes() if file.exists() else b"")

    with pytest.raises(UserError, match=f"1 images of pretrain can no longer .* {str(file)!r}"):
        experiment.run(run_dir, stages=("pretrain",), configured=lambda _: stage)


def test_an_error_that_no_image_explains_keeps_its_traceback(images, run_dir):
    started(run_dir, source_of(images))
    with pytest.raises(tf.errors.InvalidArgumentError):
        experiment.run(
            run_dir, stages=("pretrain",), configured=lambda _: lambda _: tf.io.decode_image(b"")
        )


@pytest.mark.parametrize(
    ("damaged", "repeated"),
    [("pretrain", ["pretrain", "linear"]), ("linear", ["linear"]), ("none", [])],
)
def test_a_damaged_model_is_made_again_with_what_follows(run_dir, damaged, repeated, capsys):
    stages, ran = ("pretrain", "linear"), []
    run_dir.export.mkdir(parents=True)
    for stage in stages:
        run_dir.checkpoints(stage).mkdir(parents=True)
        with zipfile.ZipFile(run_dir.model(stage), "w") as archive:
            archive.writestr("weights", "12345678")
        run_dir.set_metrics(stage, {"seconds": 1.0})
        if stage == damaged:
            file = run_dir.model(stage)
            file.write_bytes(file.read_bytes().replace(b"12345678", b"12345679"))
    experiment.run(
        run_dir,
        stages=stages,
        configured=lambda function: lambda _: ran.append(function.__module__.split(".")[-1]),
    )
    assert ran == repeated
    assert ("is damaged: it is made again" in capsys.readouterr().out) == bool(repeated)
