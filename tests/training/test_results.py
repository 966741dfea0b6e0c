"""The arrays of the test split that a stage saves for the report."""

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.evaluation.scorer import Scores
from supcon_tf.reporting.scored_split import read_scored_split
from supcon_tf.run_dir import RunDir
from supcon_tf.training.results import save_scored_split


def source_of(*encoded, labels, class_names):
    files = tf.constant(encoded)
    split = IndexedSplit(np.array(labels), lambda number: tf.gather(files, number))
    return Source("files", class_names, split, split)


def png(height, width):
    return tf.io.encode_png(np.full((height, width, 3), 200, np.uint8)).numpy()


def saved(tmp_path, source):
    run_dir = RunDir(tmp_path)
    labels = np.asarray(source.test.labels)
    n, num_classes = len(labels), max(1, source.num_classes)
    scores = Scores(
        embeddings=np.eye(n, 3, dtype=np.float32),
        probabilities=np.full((n, num_classes), 1 / num_classes, np.float32),
        labels=labels,
    )
    save_scored_split(run_dir, scores, source, with_probabilities=source.has_labels)
    return run_dir, read_scored_split(run_dir.scored_split)


@pytest.mark.parametrize("size", [(1, 64), (64, 1), (3, 700)])
def test_an_image_of_extreme_aspect_ratio_is_saved(tmp_path, size):
    source = source_of(png(*size), png(8, 8), labels=[0, 1], class_names=("a", "b"))
    run_dir, split = saved(tmp_path, source)
    assert len(split.thumbnails) == 2
    with np.load(run_dir.scored_split) as arrays:
        filled = arrays["thumbnails"].any(axis=-1).sum(axis=(1, 2))
    # The long side fills the thumbnail, and so does the whole square image.
    assert sorted(filled.tolist()) == [48, 48 * 48]


def test_images_without_labels_are_saved_without_classes(tmp_path):
    source = source_of(png(8, 8), png(8, 8), labels=[-1, -1], class_names=())
    _, split = saved(tmp_path, source)
    assert (split.class_names, split.predictions) == ([], None)
    assert split.classes.tolist() == [-1, -1]
