"""Order as a function of seed and position; holding out a share of every class."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.splits import IndexedSplit, StreamedSplit, hold_out


def numbered(size):
    return IndexedSplit(np.arange(size, dtype=np.int64) % 3, lambda number: number)


def streamed(size):
    def one_pass(seed):
        numbers = tf.data.Dataset.range(size)
        if seed is not None:
            numbers = numbers.shuffle(size, seed=seed)
        return numbers.map(lambda number: (number, number % 3))

    return StreamedSplit(size, one_pass)


def images_of(dataset):
    return [int(image) for image, _ in dataset]


@pytest.mark.parametrize("split", [numbered(11), streamed(11)])
def test_every_stretch_of_n_positions_holds_each_image_once(split):
    order = images_of(split.shuffled(seed=3, start=0, stop=33))
    epochs = [order[:11], order[11:22], order[22:]]
    for epoch in epochs:
        assert sorted(epoch) == list(range(11))
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("split", [numbered(11), streamed(11)])
def test_any_start_gives_the_rest_of_the_same_order(split):
    order = images_of(split.shuffled(seed=3, start=0, stop=40))
    for start in (1, 10, 11, 12, 25):
        assert images_of(split.shuffled(seed=3, start=start, stop=40)) == order[start:]


@pytest.mark.parametrize("split", [numbered(50), streamed(50)])
def test_another_seed_gives_another_order(split):
    first = images_of(split.shuffled(seed=0, start=0, stop=50))
    assert first != images_of(split.shuffled(seed=1, start=0, stop=50))
    assert first != list(range(50))


def test_places_in_the_shuffled_order_are_uniform():
    size, epochs = 16, 400
    order = images_of(numbered(size).shuffled(seed=0, start=0, stop=size * epochs))
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
    assert images_of(split.in_order()) == list(range(7))


@pytest.mark.parametrize(("size", "batch_size"), [(7, 2), (10, 4), (9, 9), (12, 3)])
def test_epochs_of_a_streamed_split_begin_with_a_pass_and_any_batch_can_be_made_alone(
    size, batch_size
):
    split, num_batches = streamed(size), 3 * size // batch_size
    options = {"seed": 2, "batch_size": batch_size}
    whole = images_of(split.batched(start=0, stop=num_batches, **options))
    batches = np.reshape(whole, (num_batches, batch_size)).tolist()
    for start in range(num_batches):
        assert images_of(split.batched(start=start, stop=start + 1, **options)) == batches[start]
    for epoch in range(3):
        begin, end = epoch * size // batch_size, (epoch + 1) * size // batch_size
        of_epoch = np.ravel(batches[begin:end])[:size]
        assert len(set(of_epoch)) == len(of_epoch) > size - batch_size


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


def test_hold_out_names_a_class_with_one_image_and_a_bad_share():
    with pytest.raises(ValueError, match="class number 1 has 1 image: two are needed"):
        hold_out(np.array([0, 0, 1]), 0.5, seed=0)
    with pytest.raises(ValueError, match=r"within \(0, 1\), got 1.5"):
        hold_out(np.array([0, 0]), 1.5, seed=0)
