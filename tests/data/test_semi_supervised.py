"""Semi-supervised training: labelled subsets, joint batches, multi-crop, and whole runs."""

import dataclasses
import functools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from supcon_tf import distribution
from supcon_tf.data import mixing, multi_crop, semi_supervised, sources, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.batches import StepBatches, TrainingData
from supcon_tf.training.config import TrainingConfig
from tests.replicas import two_replicas
from tests.small_runs import run

CROPS = ((16, 2, (0.3, 1.0)), (8, 3, (0.1, 0.3)))


@pytest.fixture(scope="module")
def source():
    """Sixty images of three classes; the pixels of an image are its number."""
    images = np.broadcast_to(np.arange(60)[:, None, None, None], (60, 4, 4, 3)).astype(np.uint8)
    pixels = tf.constant(images)
    split = IndexedSplit(
        np.arange(60) % 3, lambda number: tf.gather(pixels, number), reads_batches=True
    )
    return sources.Source("numbers", ("a", "b", "c"), split, split.take(np.arange(3)))


def numbers_of(images):
    """The numbers of these images."""
    return np.rint((np.asarray(images)[:, 0, 0, 0, 0] + 1) * 127.5).astype(int)


def batches_of(source, labelled, **options):
    options = {"batch_size": 8, "labelled_classes": 2, "samples_per_class": 2, "seed": 0} | options
    return semi_supervised.batches(
        source.train,
        labelled=labelled,
        num_classes=3,
        num_views=2,
        preprocessing=views.Preprocessing(4),
        augmentation=views.identity,
        **options,
    )


def test_labelled_subset_depends_on_seed_and_fraction(source):
    chosen = [
        numbers_of(np.stack([image for image, _ in part.train.in_order()])[:, None] / 127.5 - 1)
        for part in (
            sources.subset(source, fraction=0.1),
            sources.subset(source, fraction=0.1),
            sources.subset(source, per_class=2),
            sources.subset(source, fraction=0.1, seed=1),
        )
    ]
    assert np.bincount(chosen[0] % 3).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    np.testing.assert_array_equal(chosen[0], chosen[2])
    assert set(chosen[0]) != set(chosen[3])
    # The part of a class is rounded and never empty.
    assert sources.subset(source, fraction=0.01).train.num_examples == 3
    assert sources.subset(source, fraction=1.0).train.num_examples == 60
    assert sources.subset(source, fraction=0.1).test is source.test


def test_labelled_subset_can_be_listed_by_number_or_name(source, tmp_path):
    listed = tmp_path / "labelled.txt"
    listed.write_text("7\n3\n\n")
    assert sources.subset(source, list_file=str(listed)).train.labels.tolist() == [0, 1]
    paths = tuple(f"/data/{'xyz'[i % 3]}/{i // 3}.jpg" for i in range(60))
    named = dataclasses.replace(source, train=dataclasses.replace(source.train, paths=paths))
    listed.write_text("y/2.jpg\n/data/z/0.jpg\n3\n")
    part = sources.subset(named, list_file=str(listed)).train
    assert part.paths == ("/data/z/0.jpg", "/data/x/1.jpg", "/data/y/2.jpg")
    for line, message in (("2.jpg", "names 3 of 60"), ("60", "names 0"), ("", "is empty")):
        listed.write_text(f"{line}\n")
        with pytest.raises(UserError, match=message):
            sources.subset(named, list_file=str(listed))
    with pytest.raises(UserError, match="no list_file"):
        sources.subset(source, list_file=str(tmp_path / "none.txt"))
    with pytest.raises(
        ValueError, match="give one of first, per_class, fraction, list_file and imbalance, got"
    ):
        sources.subset(source, list_file="a.txt", fraction=0.1)
    with pytest.raises(UserError, match=r"must be a number > 0 and <= 1, got 1.5"):
        sources.subset(source, fraction=1.5)


def test_a_batch_joins_an_unlabelled_and_a_balanced_labelled_batch(source):
    labelled = sources.subset(source, per_class=4)
    known = {int(image[0, 0, 0]) for image, _ in labelled.train.in_order()}
    plain = training_batches(
        source.train, batch_size=8, num_classes=3, num_views=2, seed=0,
        preprocessing=views.Preprocessing(4), augmentation=views.identity,
    )  # fmt: skip
    for (images, labels), (unlabelled, _) in zip(
        batches_of(source, labelled)(0, 8), plain(0, 8), strict=True
    ):
        labels, numbers = labels.numpy(), numbers_of(images)
        assert images.shape == (12, 2, 4, 4, 3)
        np.testing.assert_array_equal(images[labels < 0], unlabelled)
        own = labels[labels >= 0]
        assert sorted(np.unique(own, return_counts=True)[1]) == [2, 2]
        np.testing.assert_array_equal(numbers[labels >= 0] % 3, own)
        assert set(numbers[labels >= 0]) <= known
        assert len(set(numbers[labels >= 0])) == 4


def test_a_step_can_be_made_alone_and_hosts_share_both_parts(source):
    labelled = sources.subset(source, per_class=4)
    whole = list(batches_of(source, labelled)(0, 5).as_numpy_iterator())
    (alone,) = batches_of(source, labelled)(4, 5).as_numpy_iterator()
    np.testing.assert_array_equal(alone[0], whole[4][0])
    hosts = [
        list(batches_of(source, labelled, shard=(host, 2))(0, 5).as_numpy_iterator())
        for host in (0, 1)
    ]
    for (images, labels), *parts in zip(whole, *hosts, strict=True):
        assert all((part[1] < 0).sum() == 4 and (part[1] >= 0).sum() == 2 for part in parts)
        for rows in (np.less, np.greater_equal):
            both = np.concatenate([part[0][rows(part[1], 0)] for part in parts])
            np.testing.assert_array_equal(images[rows(labels, 0)], both)


def test_there_are_two_threads_per_core_if_either_part_is_on_a_disk(source):
    for in_memory, others in ((True, False), (False, True), (True, True)):
        parts = [
            dataclasses.replace(source, train=dataclasses.replace(source.train, in_memory=held))
            for held in (in_memory, others)
        ]
        steps = batches_of(*parts)
        threads = steps(0, 1).options().threading.private_threadpool_size
        assert threads == (1 if in_memory and others else 2) * os.cpu_count()


def test_labelled_part_depends_on_the_seed(source):
    labelled = sources.subset(source, per_class=4)
    drawn = set()
    for seed in range(2):
        ((images, labels),) = batches_of(source, labelled, seed=seed)(0, 1).as_numpy_iterator()
        drawn.add(tuple(numbers_of(images[labels >= 0])))
    assert len(drawn) == 2


def test_unlabelled_images_may_come_from_a_source_without_labels(source):
    labelled = sources.subset(source, per_class=4)
    unlabelled = dataclasses.replace(source.train, labels=np.full(60, -1))
    plain = sources.Source("numbers", (), unlabelled, unlabelled.take(np.arange(3)))
    options = {"preprocessing": views.Preprocessing(4), "augmentation": views.identity}
    steps = semi_supervised.batches(
        plain.train, labelled=labelled, batch_size=8, num_classes=plain.num_classes, seed=0,
        labelled_classes=2, samples_per_class=2, num_views=2, **options,
    )  # fmt: skip
    ((images, labels),) = steps(0, 1).as_numpy_iterator()
    ((expected, expected_labels),) = batches_of(source, labelled)(0, 1).as_numpy_iterator()
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, expected_labels)


def test_labelled_part_ends_after_its_epochs(source):
    labelled = sources.subset(source, per_class=4)
    # 60 / 8 = 7.5 steps an epoch: the part ends after 3 steps.
    steps = batches_of(source, labelled, labelled_epochs=0.4)
    assert [len(labels) for _, labels in steps(0, 5)] == [12, 12, 12, 8, 8]
    assert [len(labels) for _, labels in steps(2, 3)] == [12]
    assert [labels.numpy().tolist() for _, labels in steps(4, 5)] == [[-1] * 8]
    assert [len(labels) for _, labels in batches_of(source, labelled, labelled_epochs=0)(0, 2)] == [
        8, 8,
    ]  # fmt: skip


def test_each_replica_has_its_share_of_both_parts(source):
    labelled = sources.subset(source, per_class=4)
    strategy = two_replicas()
    made = batches_of(source, labelled, labelled_epochs=0.1)
    steps = distribution.distribute_batches(strategy, lambda *part: made(*part[2:]), 0, 1)
    for _, labels in steps:
        for own in strategy.experimental_local_results(labels):
            assert sorted(own.numpy() >= 0) == [False] * 4


def test_labelled_rows_that_the_replicas_cannot_share_are_rejected(source):
    labelled = sources.subset(source, per_class=4)
    batches = functools.partial(
        semi_supervised.batches, labelled=labelled, labelled_classes=3, samples_per_class=1
    )
    data = TrainingData(source, views.Preprocessing(4), views.identity, batches)
    model = keras.Model(inputs := keras.Input((2, 4, 4, 3)), {"projection": inputs})
    config = TrainingConfig(
        stage="pretrain",
        optimizer=keras.optimizers.SGD,
        schedule=lambda **_: 0.1,
        epochs=1,
        batch_size=8,
        strategy=two_replicas(),
    )
    with pytest.raises(
        UserError, match="the 3 labelled rows of a batch must be a multiple of the "
    ):
        StepBatches(data, model, config)


def test_a_labelled_row_can_have_views_of_two_images_of_its_class(source):
    labelled = sources.subset(source, per_class=4)
    options = {"labelled_classes": 3, "samples_per_class": 4, "views_per_labelled_image": 1}
    for images, labels in batches_of(source, labelled, **options)(0, 8):
        labels = labels.numpy()
        # 12 labelled images in 6 rows of two views; all 8 unlabelled ones in two views.
        assert images.shape == (14, 2, 4, 4, 3)
        first, second = numbers_of(images), numbers_of(images[:, 1:])
        is_labelled = labels >= 0
        np.testing.assert_array_equal(first[~is_labelled], second[~is_labelled])
        np.testing.assert_array_equal(first[is_labelled] % 3, labels[is_labelled])
        np.testing.assert_array_equal(second[is_labelled] % 3, labels[is_labelled])
        assert len({*first[is_labelled], *second[is_labelled]}) == 12


def test_replicas_have_the_same_labelled_classes(source):
    labelled = sources.subset(source, per_class=4)
    made = batches_of(source, labelled, samples_per_class=4, views_per_labelled_image=1)
    strategy = two_replicas()
    for _, labels in distribution.distribute_batches(strategy, lambda *p: made(*p[2:]), 0, 5):
        one, other = (set(own.numpy()) for own in strategy.experimental_local_results(labels))
        assert one == other
        assert len(one) == 3  # Two classes, and -1.


def test_small_classes_repeat_their_labelled_images(source):
    labelled = sources.subset(source, per_class=2)
    options = {"samples_per_class": 4, "repeat_images": True}
    ((images, labels),) = batches_of(source, labelled, **options)(0, 1)
    numbers = numbers_of(images)[labels.numpy() >= 0]
    assert sorted(np.unique(numbers, return_counts=True)[1]) == [2, 2, 2, 2]


def test_multi_crop_batches_have_the_same_images_in_other_crops(source):
    big = dataclasses.replace(
        source,
        train=dataclasses.replace(
            source.train, read=lambda n: tf.repeat(tf.repeat(source.train.read(n), 8, -3), 8, -2)
        ),
    )
    steps = multi_crop.batches(
        big.train, crops=CROPS, num_views=5, batch_size=8, num_classes=3, seed=0,
        preprocessing=views.Preprocessing(16), augmentation=views.identity,
    )  # fmt: skip
    ((crops, labels),) = steps(3, 4).as_numpy_iterator()
    assert {name: value.shape for name, value in crops.items()} == {
        "crops16": (8, 2, 16, 16, 3), "crops8": (8, 3, 8, 8, 3),
    }  # fmt: skip
    np.testing.assert_array_equal(numbers_of(crops["crops16"]), numbers_of(crops["crops8"]))
    np.testing.assert_array_equal(numbers_of(crops["crops8"]) % 3, labels)


def test_groups_of_crops_have_different_seeds():
    seen = []

    def crop(image, *, seed, size_px, area_range):
        seen.append((size_px, area_range, seed.numpy().ravel().tolist()))
        return tf.zeros([*seed.shape, size_px, size_px, 3])

    groups = [
        multi_crop._with_own_seeds(crop, number, area_range=area_range)
        for number, (_, _, area_range) in enumerate(CROPS)
    ]
    for group, (size_px, _, _) in zip(groups, CROPS, strict=True):
        group(None, seed=tf.range(4, dtype=tf.int64), size_px=size_px)
    assert [(size, area) for size, area, _ in seen] == [(16, (0.3, 1.0)), (8, (0.1, 0.3))]
    assert not set(seen[0][2]) & set(seen[1][2])


def test_invalid_options_are_rejected(source):
    labelled = sources.subset(source, per_class=4)
    with pytest.raises(UserError, match="must have the 3 classes of all images, got 10"):
        batches_of(source, sources.digits())
    with pytest.raises(UserError, match="labelled_epochs must be a number >= 0, got -1"):
        batches_of(source, labelled, labelled_epochs=-1)
    for options in (
        {"labelled_classes": 4},
        {"samples_per_class": 5},
        {"labelled_classes": 3, "samples_per_class": 40},
    ):
        classes, samples = ({"labelled_classes": 2, "samples_per_class": 2} | options).values()
        with pytest.raises(
            UserError,
            match=rf"semi_supervised\.batches\.labelled_classes must be in 1 \.\.\. 3 and "
            rf"\.samples_per_class in 1 \.\.\. 4 \(or .* got {classes} and {samples}",
        ):
            batches_of(source, labelled, **options)
    for name in ("labelled_classes", "samples_per_class"):
        with pytest.raises(UserError, match=f"{name} must be an integer >= 1, got 0"):
            batches_of(source, labelled, **{name: 0})
    for options, message in (
        (
            {"views_per_labelled_image": 0},
            "views_per_labelled_image must be an integer >= 1, got 0",
        ),
        ({"views_per_labelled_image": 3}, "must divide the 2 views, .* got 3 and 2"),
        (
            {"views_per_labelled_image": 1, "samples_per_class": 3},
            r"\.samples_per_class must be a multiple of their quotient, got 1 and 3",
        ),
        (
            {"views_per_labelled_image": 1, "views": multi_crop.batches},
            "must be None for multi-crop, got 1",
        ),
        (
            {"views_per_labelled_image": 1, "labelled_classes": 3, "shard": (0, 2)},
            "the 3 labelled rows of a batch must be a multiple of the 2 hosts",
        ),
        (
            {"views_per_labelled_image": 1, "mixing": mixing.mixup},
            r"must be None with pipeline\.training_batches\.mixing, got 1",
        ),
        ({"repeat_images": "yes"}, "repeat_images must be True or False, got 'yes'"),
    ):
        with pytest.raises(UserError, match=message):
            batches_of(source, labelled, **options)(0, 1)
    with pytest.raises(UserError, match="labelled must be a source such as"):
        batches_of(source, "digits")
    unlabelled = IndexedSplit(np.full(4, -1), lambda number: number)
    with pytest.raises(UserError, match="labelled must have labels, but 'mine' has none"):
        batches_of(source, sources.Source("mine", (), unlabelled, unlabelled))
    for crops, message in (
        ((), "must be groups of crops, got"),
        (((16, 2),), r"must be groups of .*, got \(16, 2\)"),
        (((16, 2, 0.5),), r"must be groups of .*, got \(16, 2, 0\.5\)"),
        (CROPS[:1], "must have the model's 5 crops per image, got 2"),
        ((CROPS[0], CROPS[0]), "must be groups of different sizes"),
        (((16, 2, (0.5, 0.1)),), "smallest, largest share"),
    ):
        with pytest.raises(UserError, match=message):
            multi_crop.batches(
                source.train, crops=crops, num_views=5, preprocessing=views.Preprocessing(16),
                augmentation=views.identity, batch_size=8, num_classes=3, seed=0,
            )  # fmt: skip


# A quarter of the images of a folder have a label.
A_QUARTER = (
    "SOURCE = @sources.folder()",
    "IMAGE_PX = 16",
    "NORMALIZATION = None",
    "sources.subset.fraction = 0.25",
    "finetune.run.batch_size = 7",
    "finetune.run.epochs = 1",
    "optimizers.warmup_schedule.warmup_epochs = 0",
)


def test_run_pretrains_on_all_images_and_finetunes_on_the_labelled_ones(
    photos, tmp_path, results_only, monkeypatch
):
    stretches = []

    def spied(strategy, steps, start, stop):
        stretches.append((start, stop))
        return steps(0, 1, start, stop)

    monkeypatch.setattr(distribution, "distribute_batches", spied)
    file = "semi/simclr_suncet_cifar10_resnet18.gin"
    settings = (
        f"sources.folder.root = '{photos}'",
        *A_QUARTER,
        "semi_supervised.batches.labelled_classes = 2",
        "semi_supervised.batches.samples_per_class = 2",
        "semi_supervised.batches.labelled_epochs = 1",
    )
    folder = RunDir(tmp_path / "run")
    run(folder.root, *settings, gin_file=file)
    assert set(folder.metrics()) == {"pretrain", "finetune"}
    first, second = folder.curve("pretrain")
    # 31 training images, 7 of them labelled: 31 // 8 and 62 // 8 steps, and one to fine-tune.
    assert (first["step"], second["step"]) == (3, 7)
    assert 0 <= first["accuracy"] <= 1
    assert "accuracy" not in second
    assert folder.curve("finetune")[-1]["step"] == 1
    # If labelled rows may end, each epoch has its own pipeline with batches of one shape.
    assert stretches == [(0, 3), (3, 7), (0, 1)]
    chunk = "pretrain.run.gradient_cache_chunk = 8"
    with pytest.raises(UserError, match=r"must divide the 10 rows of a batch, .* included, got 8"):
        run(tmp_path / "chunks", *settings, chunk, gin_file=file)


# All images without their labels, and the labelled ones.
TWO_FOLDERS = (
    "pretrain.run.source = @unlabelled/sources.folder()",
    "unlabelled/sources.folder.labelled = False",
    "pretrain.run.support = %SOURCE",
)


def test_images_without_labels_join_a_folder_of_labelled_ones(photos, tmp_path, results_only):
    folder = RunDir(tmp_path / "run")
    settings = (
        *TWO_FOLDERS,
        f"sources.folder.root = '{photos}'",
        f"unlabelled/sources.folder.root = '{photos}'",
    )
    run(
        folder.root,
        *settings,
        "pretrain.run.batches = @semi_supervised.batches",
        "semi_supervised.batches.views = @pipeline.training_batches",
        "semi_supervised.batches.labelled = %SOURCE",
        "semi_supervised.batches.labelled_classes = 2",
        "semi_supervised.batches.samples_per_class = 2",
        "pretrain.run.loss = @losses.SemiSupervisedLoss()",
        "losses.SemiSupervisedLoss.unlabelled = @losses.SimCLRLoss()",
        "losses.SemiSupervisedLoss.labelled = @losses.SuNCEtLoss()",
    )
    assert set(folder.metrics()) == {"pretrain", "linear"}
    # The probe learns from the labelled rows.
    assert "accuracy" in folder.curve("pretrain")[-1]
    with pytest.raises(
        UserError, match=r"support must be None, as 'photos.*' has no labels, or pre"
    ):
        run(tmp_path / "alone", *settings, "pretrain.run.loss = @losses.SimCLRLoss()")


def test_suncet_alone_trains_on_the_labelled_images_only(photos, tmp_path, results_only):
    folder = RunDir(tmp_path / "run")
    run(
        folder.root,
        f"sources.folder.root = '{photos}'",
        *A_QUARTER,
        "pretrain.run.batch_size = 4",
        # With 2 samples of a class, a batch of 8 needs 4 classes: fine-tuning must not be balanced.
        "pipeline.training_batches.samples_per_class = 2",
        gin_file="semi/suncet_cifar10_resnet18.gin",
    )
    # 7 labelled images: 7 // 4 and 14 // 4 steps, and one to fine-tune.
    assert [record["step"] for record in folder.curve("pretrain")] == [1, 3]
    assert folder.curve("finetune")[-1]["step"] == 1
    assert np.isfinite(folder.metrics()["pretrain"]["loss"])
