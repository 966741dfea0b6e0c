"""Orders as functions of seed and position; holding out a share of each class."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from supcon_tf.data.splits import IndexedSplit, StreamedSplit, hold_out
from supcon_tf.errors import UserError


def numbered(size):
    return IndexedSplit(np.arange(size, dtype=np.int64) % 3, lambda number: number)


def streamed(size):
    def one_pass(seed):
        numbers = tf.data.Dataset.range(size)
        if seed is not None:
            numbers = numbers.shuffle(size, seed=seed)
        return numbers.map(lambda number: (number, number % 3))

    return StreamedSplit(size, one_pass)


def read_images(dataset):
    return [int(image) for image, _ in dataset]


@pytest.mark.parametrize("split", [numbered(11), streamed(11)])
def test_each_epoch_holds_each_image_once(split):
    order = read_images(split.shuffled(seed=3, start=0, stop=33))
    epochs = [order[:11], order[11:22], order[22:]]
    for epoch in epochs:
        assert sorted(epoch) == list(range(11))
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("split", [numbered(11), streamed(11)])
def test_a_later_start_gives_the_rest_of_the_same_order(split):
    order = read_images(split.shuffled(seed=3, start=0, stop=40))
    for start in (1, 10, 11, 12, 25):
        assert read_images(split.shuffled(seed=3, start=start, stop=40)) == order[start:]


@pytest.mark.parametrize("split", [numbered(50), streamed(50)])
def test_another_seed_gives_another_order(split):
    first = read_images(split.shuffled(seed=0, start=0, stop=50))
    assert first != read_images(split.shuffled(seed=1, start=0, stop=50))
    assert first != list(range(50))


def test_positions_in_the_shuffled_order_are_uniform():
    size, epochs = 16, 400
    order = numbered(size).shuffled_numbers(seed=0, start=0, stop=size * epochs)
    places = np.argsort(np.reshape(order, (epochs, size)), axis=1)
    counts = np.stack([np.bincount(places[:, image], minlength=size) for image in range(size)])
    chi_square = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
    # 225 degrees of freedom: mean 225, standard deviation 21.
    assert chi_square < 225 + 5 * 21


@pytest.mark.parametrize("split", [numbered(7), streamed(7)])
def test_labels_stay_with_their_images(split):
    for dataset in (split.in_order(), split.shuffled(seed=5, start=3, stop=20)):
        for image, label in dataset:
            assert int(label) == int(image) % 3
    assert read_images(split.in_order()) == list(range(7))


@pytest.mark.parametrize(("size", "batch_size"), [(7, 2), (10, 4), (9, 9), (12, 3)])
def test_each_streamed_epoch_is_a_new_pass_and_batches_can_be_made_alone(size, batch_size):
    split, num_batches = streamed(size), 3 * size // batch_size
    options = {"seed": 2, "batch_size": batch_size}
    whole = read_images(split.batched(start=0, stop=num_batches, **options))
    batches = np.reshape(whole, (num_batches, batch_size)).tolist()
    for start in range(num_batches):
        assert read_images(split.batched(start=start, stop=start + 1, **options)) == batches[start]
    for epoch in range(3):
        begin, end = epoch * size // batch_size, (epoch + 1) * size // batch_size
        of_epoch = np.ravel(batches[begin:end])[:size]
        assert len(set(of_epoch)) == len(of_epoch) > size - batch_size


def labelled(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return IndexedSplit(np.random.default_rng(0).permutation(labels), lambda number: number)


def test_balanced_batches_have_the_requested_classes_and_images_per_class():
    split = labelled([9, 4, 7, 5, 3, 8, 6])
    numbers = split.balanced_numbers(seed=1, start=0, stop=50, num_classes=3, samples_per_class=2)
    assert numbers.shape == (50, 6)
    assert numbers.dtype == np.int64
    for batch in numbers:
        classes, counts = np.unique(split.labels[batch], return_counts=True)
        assert len(classes) == 3
        assert counts.tolist() == [2, 2, 2]
        pairs = split.labels[batch].reshape(3, 2)
        np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])


def test_balanced_batches_are_the_same_from_any_start():
    split = labelled([9, 4, 7, 5, 3, 8, 6])
    options = {"seed": 1, "num_classes": 3, "samples_per_class": 2}
    whole = split.balanced_numbers(start=0, stop=40, **options)
    for start, stop in ((0, 1), (1, 2), (7, 8), (13, 40), (39, 40)):
        alone = split.balanced_numbers(start=start, stop=stop, **options)
        np.testing.assert_array_equal(alone, whole[start:stop])
    options["seed"] = 2
    assert not np.array_equal(split.balanced_numbers(start=0, stop=40, **options), whole)


def test_balanced_batches_use_classes_and_images_of_a_class_equally_often():
    counts = np.array([12, 4, 6, 4, 8, 2])
    split = labelled(counts)
    # Three batches per round of six classes: 24 rounds take 48 images of each class.
    numbers = split.balanced_numbers(seed=3, start=0, stop=72, num_classes=2, samples_per_class=2)
    assert np.bincount(split.labels[numbers.ravel()]).tolist() == [48] * 6
    times = np.bincount(numbers.ravel(), minlength=split.num_examples)
    np.testing.assert_array_equal(times, 48 // counts[split.labels])


def test_no_image_repeats_within_a_balanced_batch():
    split = labelled([3, 5, 2])
    numbers = split.balanced_numbers(seed=3, start=0, stop=60, num_classes=3, samples_per_class=2)
    assert all(len(set(batch)) == 6 for batch in numbers.tolist())
    # Also images of classes whose size is no multiple of 2 are used.
    assert len(np.unique(numbers)) == 10
    with pytest.raises(UserError, match="at most 2, the number of images of class 2, got 3"):
        split.balanced_numbers(seed=3, start=0, stop=1, num_classes=3, samples_per_class=3)


def test_small_classes_repeat_their_images_in_a_balanced_batch():
    split = labelled([3, 8, 5])
    options = {"seed": 3, "num_classes": 3, "samples_per_class": 5, "repeat_images": True}
    numbers = split.balanced_numbers(start=0, stop=30, **options)
    # 150 images of the class of three, each 50 times; a batch has one order of them and two more.
    times = np.bincount(numbers.ravel(), minlength=16)[split.labels == 0]
    assert times.tolist() == [50, 50, 50]
    for batch in numbers:
        counts = np.bincount(batch, minlength=16)
        assert counts[split.labels == 0].min() >= 1
        assert counts[split.labels != 0].max() == 1
    alone = split.balanced_numbers(start=17, stop=18, **options)
    np.testing.assert_array_equal(alone, numbers[17:18])


def test_classes_of_a_balanced_batch_can_come_in_turn():
    split = labelled([9, 7, 8])
    options = {"seed": 3, "start": 2, "stop": 4, "num_classes": 3, "samples_per_class": 6}
    for batch, in_turn in zip(
        split.balanced_numbers(**options),
        split.balanced_numbers(**options, samples_in_a_row=2),
        strict=True,
    ):
        a, b, c = batch[:6], batch[6:12], batch[12:]
        turns = [*a[:2], *b[:2], *c[:2], *a[2:4], *b[2:4], *c[2:4], *a[4:], *b[4:], *c[4:]]
        assert in_turn.tolist() == turns


def test_classes_dropped_from_a_round_are_random():
    split = labelled([4, 4, 4, 4, 4])
    numbers = split.balanced_numbers(seed=3, start=0, stop=1000, num_classes=2, samples_per_class=1)
    of_round = split.labels[numbers].reshape(500, 4)
    assert all(len(set(classes)) == 4 for classes in of_round.tolist())
    left_over = 10 - of_round.sum(axis=1)
    assert stats.chisquare(np.bincount(left_over, minlength=5)).pvalue > 1e-3


def test_too_many_classes_per_batch_are_rejected():
    split = labelled([4, 0, 4])
    with pytest.raises(UserError, match=r"2 images of each of 3 classes needs 3 classes, got 2"):
        split.balanced_numbers(seed=0, start=0, stop=1, num_classes=3, samples_per_class=2)
    numbers = split.balanced_numbers(seed=0, start=0, stop=9, num_classes=2, samples_per_class=3)
    assert set(split.labels[numbers.ravel()]) == {0, 2}


def test_a_split_that_reads_batches_returns_images_and_labels_of_all_numbers():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 2, 3, 3)), tf.uint8)
    labels = np.array([5, 1, 4, 1, 0, 2])
    split = IndexedSplit(labels, lambda number: tf.gather(images, number), reads_batches=True)
    taken = split.take(np.array([4, 2, 0, 1]))
    assert taken.reads_batches
    batch, of_batch = taken.example(tf.constant([[3, 0], [1, 1]], tf.int64))
    np.testing.assert_array_equal(of_batch, [[1, 0], [4, 4]])
    np.testing.assert_array_equal(batch, images.numpy()[[[1, 4], [2, 2]]])
    image, label = taken.example(tf.constant(2, tf.int64))
    assert int(label) == 5
    np.testing.assert_array_equal(image, images[0])


def test_take_keeps_images_labels_and_paths_together():
    split = IndexedSplit(np.array([5, 6, 7]), lambda number: number * 10, ("a", "b", "c"))
    taken = split.take(np.array([2, 0]))
    assert [(int(image), int(label)) for image, label in taken.in_order()] == [(20, 7), (0, 5)]
    assert taken.paths == ("c", "a")


def test_hold_out_takes_the_share_of_every_class():
    labels = np.array([0] * 40 + [1] * 8 + [2] * 2)
    kept, held_out = hold_out(labels, 0.25, seed=1)
    assert sorted([*kept, *held_out]) == list(range(50))
    assert np.bincount(labels[held_out]).tolist() == [10, 2, 1]
    np.testing.assert_array_equal(held_out, hold_out(labels, 0.25, seed=1)[1])
    assert held_out.tolist() != hold_out(labels, 0.25, seed=2)[1].tolist()


def test_hold_out_rejects_a_class_of_one_image_and_a_share_out_of_range():
    with pytest.raises(UserError, match="class number 1 has 1 image: two are needed"):
        hold_out(np.array([0, 0, 1]), 0.5, seed=0)
    with pytest.raises(UserError, match=r"must be a number > 0 and < 1, got 1.5"):
        hold_out(np.array([0, 0]), 1.5, seed=0)


def test_hold_out_of_several_labels_splits_the_rarest_class_first():
    # Class 2 is in 4 images, class 1 in 12 including these 4, class 0 in 36 including these 12;
    # 4 images have no label.
    labels = np.zeros([40, 3], np.int64)
    labels[:36, 0], labels[:12, 1], labels[:4, 2] = 1, 1, 1
    kept, held_out = hold_out(labels, 0.25, seed=0)
    assert sorted([*kept, *held_out]) == list(range(40))
    assert labels[held_out].sum(axis=0).tolist() == [9, 3, 1]
    assert (~labels[held_out].any(axis=1)).sum() == 1
    np.testing.assert_array_equal(held_out, hold_out(labels, 0.25, seed=0)[1])
    assert held_out.tolist() != hold_out(labels, 0.25, seed=1)[1].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_hold_out_of_several_labels_keeps_an_image_of_every_class(seed):
    # Each class is in two of three images: only one image can be held out.
    labels = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    kept, held_out = hold_out(labels, 0.9, seed=seed)
    assert (len(kept), len(held_out)) == (2, 1)
    assert labels[kept].any(axis=0).all()
    with pytest.raises(UserError, match="class number 1 has 1 image: two are needed"):
        hold_out(np.array([[1, 1], [1, 0], [0, 0]]), 0.5, seed=seed)
