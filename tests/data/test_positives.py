"""Images without another one of their class in a batch, counted beforehand."""

import itertools
import math

import numpy as np
import pytest

from supcon_tf.data import views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.data.positives import balanced_samples_per_class, share_without_positive
from supcon_tf.data.splits import IndexedSplit


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 7])
def test_share_is_the_mean_over_all_batches(batch_size):
    labels = np.array([0, 0, 0, 1, 1, 2, 3])
    shares = [
        np.mean([np.sum(labels[list(batch)] == labels[number]) == 1 for number in batch])
        for batch in itertools.combinations(range(7), batch_size)
    ]
    assert share_without_positive(labels, batch_size) == pytest.approx(np.mean(shares))


def test_share_of_a_large_set_is_that_of_independent_draws():
    labels = np.repeat(np.arange(1000), 1281)
    share = share_without_positive(labels, 4096)
    assert share == pytest.approx(math.exp(-4095 / 1000), rel=0.02)  # ImageNet: 1.7 %.


def test_shipped_recipes_keep_their_random_batches():
    # (classes, images of a class, the smallest batch of SupCon)
    for classes, images, batch_size in ((1000, 1281, 4096), (10, 5000, 512), (100, 500, 1024)):
        labels = np.repeat(np.arange(classes), images)
        assert share_without_positive(labels, batch_size) < 0.05


def test_four_images_of_a_class_or_as_many_as_there_are():
    for classes, images, batch_size, expected in (
        (28, 20, 64, 4),
        (28, 20, 60, 4),
        (28, 20, 63, 7),  # 3 is a divisor too, but fewer than 4.
        (6, 20, 64, 16),  # 64 / 6 or more.
        (28, 3, 66, 3),
        (28, 3, 64, None),  # 64 / 2 are more than 28 classes.
        (28, 1, 32, None),
        (28, 20, 17, None),  # One class would leave no negatives.
        (28, 20, 4, 2),
    ):
        labels = np.repeat(np.arange(classes), images)
        assert balanced_samples_per_class(labels, batch_size) == expected


def batches(labels, **options):
    split = IndexedSplit(np.asarray(labels), lambda number: np.zeros((4, 4, 3), np.uint8))
    return training_batches(
        split,
        preprocessing=views.Preprocessing(4),
        augmentation=views.identity,
        num_views=2,
        num_classes=28,
        seed=3,
        **options,
    )


def labels_of(steps, start=0, stop=3):
    return [labels.numpy().tolist() for _, labels in steps(start, stop)]


def test_batches_are_balanced_where_random_ones_lack_positives(capsys):
    labels = np.repeat(np.arange(28), 8)
    auto = batches(labels, batch_size=16, samples_per_class="auto", needs_positives=True)
    assert capsys.readouterr().out == (
        "batches: 4 images of each of 4 classes, as random batches of 16 leave 61% of the images "
        "without another one of their class\n"
    )
    balanced = batches(labels, batch_size=16, samples_per_class=4)
    assert labels_of(auto) == labels_of(balanced)
    # Any step alone gives the same batch, so that a run resumes with it.
    assert labels_of(auto, 2, 3) == labels_of(auto)[2:]


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (28, {"samples_per_class": "auto"}),  # No loss that needs them.
        (2, {"samples_per_class": "auto", "needs_positives": True}),
    ],
)
def test_other_batches_stay_random(classes, options, capsys):
    labels = np.repeat(np.arange(classes), 8)
    random = labels_of(batches(labels, batch_size=16))
    assert labels_of(batches(labels, batch_size=16, **options)) == random
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("images", "setting", "advice"),
    [(8, None, "samples_per_class = 'auto'"), (1, "auto", "larger")],
)
def test_random_batches_without_positives_are_warned_of(images, setting, advice, capsys):
    labels = np.repeat(np.arange(28), images)
    options = {"samples_per_class": setting, "needs_positives": True}
    random = labels_of(batches(labels, batch_size=16))
    assert labels_of(batches(labels, batch_size=16, **options)) == random
    said = capsys.readouterr().out
    assert said.startswith("warning: random batches of 16 leave ")
    assert advice in said


def test_batches_without_class_numbers_stay_random(capsys):
    options = {"batch_size": 16, "samples_per_class": "auto", "needs_positives": True}
    batches(np.full(224, -1), **options)
    batches(np.eye(28, dtype=int).repeat(8, axis=0), **options)
    assert capsys.readouterr().out == ""
