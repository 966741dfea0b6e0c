"""What a Source checks about its labels and class names."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import sources
from supcon_tf.data.sources.base import with_validation
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError


def test_labels_out_of_range_or_of_another_kind_are_rejected():
    images = np.zeros([3, 8, 8, 3], np.uint8)
    split = IndexedSplit(np.array([0, 1, -1]), lambda number: tf.gather(images, number))
    with pytest.raises(UserError, match=r"'mine', test, must be in 0 ... 1, got -1"):
        sources.Source("mine", ("a", "b"), split.take(np.array([0, 1])), split)
    rows = IndexedSplit(np.array([[0, 1], [1, 2], [0, 0]]), split.read)
    some = rows.take(np.array([0]))
    for wrong, says in (
        (rows, "must be 0 or 1 for each of 2 classes, got 0 ... 2"),
        (split, "must be like those of the training images"),
        (rows.take(np.array([2])), "no image of 'mine', test, has a label"),
    ):
        with pytest.raises(UserError, match=says):
            sources.Source("mine", ("a", "b"), some, wrong)
    floats = IndexedSplit(np.array([0.0, 1.0]), split.read)
    with pytest.raises(UserError, match="'mine', train, must be integers, got float64"):
        sources.Source("mine", ("a", "b"), floats, floats)
    with pytest.raises(UserError, match=r"0 or 1 for each of 3 classes, got .* shape"):
        sources.Source("mine", ("a", "b", "c"), some, some)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("two\nlines", "must not have line breaks, got 'two"),
        ("form\x0cfeed", "must not have line breaks"),
        ("separator\u2028", "must not have line breaks"),
        ("end\r", "must not have line breaks"),
        (" ", "must not be empty"),
        ("k\udce4fer", r"must be UTF-8, got 'k\\udce4fer'"),
    ],
)
def test_class_name_that_is_not_a_line_of_text_is_rejected(name, says):
    split = IndexedSplit(np.array([0, 1]), lambda number: number)
    with pytest.raises(UserError, match=says):
        sources.Source("mine", ("a", name), split, split)


def test_source_without_class_names_has_no_labels():
    split = IndexedSplit(np.full(3, -1), lambda number: number)
    source = sources.Source("mine", (), split, split)
    assert not source.has_labels
    assert source.num_classes == 0
    labelled = IndexedSplit(np.array([0, 1]), lambda number: number)
    assert sources.Source("mine", ("a", "b"), labelled, labelled).has_labels
    with pytest.raises(UserError, match="'mine', test, must all be -1 without class names"):
        sources.Source("mine", (), split, labelled)


def test_validation_share_of_images_without_labels_is_drawn_from_all():
    split = IndexedSplit(np.full(40, -1), lambda number: number)
    source = with_validation(sources.Source("mine", (), split, split), 0.25, seed=0)
    assert (source.train.num_examples, source.validation.num_examples) == (30, 10)
    with pytest.raises(UserError, match=r"validation_share must be a number >= 0 and < 1, got 1"):
        with_validation(source, 1, seed=0)
