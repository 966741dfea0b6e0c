"""Subsets of the training images, and label noise."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data import sources
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.errors import UserError

COUNTS = [30, 12, 25, 8]


def source_of(counts=COUNTS):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    split = IndexedSplit(
        labels, lambda number: number * 10, tuple(f"{n}.jpg" for n in range(len(labels)))
    )
    names = tuple("abcdefghij"[: len(counts)])
    return sources.Source("mine", names, split, split.take(np.arange(5)))


def streamed():
    split = StreamedSplit(4, lambda seed: tf.data.Dataset.from_tensors((0, 1)).repeat(4))
    return sources.Source("stream", ("a", "b"), split, split)


def numbers_in(split):
    return [int(image) // 10 for image, _ in split.in_order()]


def test_first_images_are_taken_in_the_stored_order():
    source = source_of()
    part = sources.subset(source, first=20)
    assert numbers_in(part.train) == list(range(20))
    np.testing.assert_array_equal(part.train.labels, source.train.labels[:20])
    assert part.train.paths == source.train.paths[:20]
    assert part.test is source.test
    assert part.class_names == source.class_names
    assert sources.subset(source, first=75).train.num_examples == 75


@pytest.mark.parametrize("per_class", [1, 5, 8])
def test_per_class_images_are_taken_with_their_labels(per_class):
    source = source_of()
    part = sources.subset(source, per_class=per_class)
    assert np.bincount(part.train.labels).tolist() == [per_class] * 4
    chosen = numbers_in(part.train)
    assert chosen == sorted(set(chosen))
    np.testing.assert_array_equal(part.train.labels, source.train.labels[chosen])
    assert part.train.paths == tuple(f"{number}.jpg" for number in chosen)
    assert part.test is source.test


def test_smaller_subset_is_part_of_a_larger_one_of_the_same_seed():
    source = source_of()
    for seed in range(3):
        sets = [
            set(numbers_in(sources.subset(source, per_class=size, seed=seed).train))
            for size in (1, 3, 4, 8)
        ]
        assert sets[0] < sets[1] < sets[2] < sets[3]
    choices = {
        tuple(numbers_in(sources.subset(source, per_class=3, seed=seed).train)) for seed in range(5)
    }
    assert len(choices) == 5


def test_every_image_of_a_class_is_equally_likely():
    source = source_of([6, 10])
    counts = np.zeros(16)
    for seed in range(600):
        paths = sources.subset(source, per_class=2, seed=seed).train.paths
        counts[[int(path.removesuffix(".jpg")) for path in paths]] += 1
    for label, size in ((0, 6), (1, 10)):
        of_class = counts[source.train.labels == label]
        np.testing.assert_allclose(of_class.sum(), 1200)
        # Two of n without replacement; the variance is p (1 - p) each, as for 600 single draws.
        share = 2 / size
        z = (of_class - 600 * share) / np.sqrt(600 * share * (1 - share))
        assert np.abs(z).max() < 3.9


@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_labels_are_replaced_with_this_probability_by_any_class(probability):
    source = source_of([2000, 2000, 2000, 2000])
    noisy = sources.label_noise(source, probability=probability)
    changed = noisy.train.labels != source.train.labels
    # A quarter of the replaced labels keeps its class.
    expected = 0.75 * probability
    assert stats.binomtest(int(changed.sum()), 8000, expected).pvalue > 1e-3
    for label in range(4):
        shifts = (noisy.train.labels - source.train.labels)[
            changed & (source.train.labels == label)
        ]
        assert stats.chisquare(np.bincount(shifts % 4, minlength=4)[1:]).pvalue > 1e-3
    assert noisy.train.labels.dtype == np.int64
    assert numbers_in(noisy.train.take(np.arange(20))) == list(range(20))
    assert noisy.test is source.test


def test_noise_depends_on_the_seed_and_grows_with_the_probability():
    source = source_of([200, 200])
    labels = {
        (probability, seed): sources.label_noise(
            source, probability=probability, seed=seed
        ).train.labels
        for probability in (0.0, 0.3, 0.6)
        for seed in (0, 1)
    }
    np.testing.assert_array_equal(labels[0.0, 0], source.train.labels)
    again = sources.label_noise(source, probability=0.3, seed=0).train.labels
    np.testing.assert_array_equal(again, labels[0.3, 0])
    assert not np.array_equal(labels[0.3, 0], labels[0.3, 1])
    few, many = (labels[p, 0] != source.train.labels for p in (0.3, 0.6))
    assert np.all(many[few])
    assert many.sum() > few.sum() > 0
    # The source itself keeps its labels.
    np.testing.assert_array_equal(source.train.labels, source_of([200, 200]).train.labels)


def test_imbalance_gives_classes_of_exponentially_falling_size():
    source = source_of([500] * 10)
    part = sources.subset(source, imbalance=100, seed=1)
    # As in CIFAR-LT: 500 x 100^(-c / 9), rounded down.
    expected = [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]
    assert np.bincount(part.train.labels).tolist() == expected
    chosen = numbers_in(part.train)
    np.testing.assert_array_equal(part.train.labels, source.train.labels[chosen])
    assert np.bincount(sources.subset(source, imbalance=1).train.labels).tolist() == [500] * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of first, per_class, fraction, list_file and imbalance, got none"),
        ({"imbalance": 0.5}, r"imbalance must be a number >= 1, got 0\.5"),
        ({"imbalance": 9}, "imbalance must be at most 8, the images of the smallest class"),
        ({"first": 3, "per_class": 2}, r"and imbalance, got {'first': 3, 'per_class': 2}"),
        ({"fraction": 1.5}, r"fraction must be a number > 0 and <= 1, got 1.5"),
        ({"first": 0}, "first must be an integer >= 1, got 0"),
        ({"first": 76}, "first must be a number <= 75, got 76"),
        ({"per_class": 0}, "per_class for class 'a' must be an integer >= 1, got 0"),
        ({"per_class": 9}, "per_class for class 'd' must be a number <= 8, got 9"),
    ],
)
def test_invalid_choice_is_rejected(options, message):
    with pytest.raises(UserError, match=message):
        sources.subset(source_of(), **options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("3.jpg 74.jpg 3.jpg", r"'3.jpg' and '3.jpg' in '.*list.txt' name the same image"),
        ("3.jpg 74.jpg 3", r"'3.jpg' and '3' in '.*list.txt' name the same image"),
        ("0.jpg 3.jpg", r"the images in '.*list.txt' are of one class only: list others too"),
        # A longer line does not make the shorter one ambiguous.
        ("3.jpg x/74.jpg", r"1 of 2 lines in '.*list.txt' name no .*'x/74.jpg', which names 0"),
        (
            "a.jpg 3.jpg b.jpg",
            r"2 of 3 lines in '.*' name no training image of 'mine', or several; ",
        ),
    ],
)
def test_a_faulty_list_is_rejected(lines, message, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\r\n".join(lines.split()) + "\r\n")
    with pytest.raises(UserError, match=message):
        sources.subset(source_of(), list_file=str(file))


def test_list_is_read_as_utf_8_with_or_without_byte_order_mark(tmp_path):
    source, file = source_of(), tmp_path / "list.txt"
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text("3.jpg\n74.jpg\n", encoding=encoding)
        part = sources.subset(source, list_file=str(file)).train
        assert part.paths == ("3.jpg", "74.jpg")
    source = dataclasses.replace(source, root=str(tmp_path))
    file.write_text(f"3.jpg\n{tmp_path}/74.jpg\n")
    assert sources.subset(source, list_file=str(file)).train.paths == ("3.jpg", "74.jpg")
    file.write_text("Käfer.jpg\n", encoding="cp1252")
    with pytest.raises(
        ValueError, match=r"list_file '.*list\.txt' is not UTF-8 .*: save it as UTF-8"
    ):
        sources.subset(source, list_file=str(file))


@pytest.mark.parametrize("probability", [-0.1, 1.01])
def test_probability_outside_0_to_1_is_rejected(probability):
    with pytest.raises(
        UserError, match=rf"probability must be a number >= 0 and <= 1, got {probability}"
    ):
        sources.label_noise(source_of(), probability=probability)


def test_streamed_source_is_rejected():
    with pytest.raises(
        UserError, match=r"a subset needs .* but 'stream' is streamed.*cache = \"disk"
    ):
        sources.subset(streamed(), first=2)
    with pytest.raises(UserError, match="label noise needs images that are read by number"):
        sources.label_noise(streamed(), probability=0.5)


@pytest.mark.parametrize("change", [sources.subset, sources.label_noise])
@pytest.mark.parametrize("wrong", ["digits", sources.digits])
def test_source_of_the_wrong_kind_is_rejected(change, wrong):
    options = {"first": 3} if change is sources.subset else {"probability": 0.5}
    with pytest.raises(UserError, match=r"source must be a source such as @sources\.folder\(\)"):
        change(wrong, **options)
