"""The findings of an audit."""

import csv
import dataclasses

import numpy as np
import pytest

from supcon_tf.cleaning import AuditImages, audit, write_tables
from supcon_tf.cleaning.audit import _other_neighbors
from supcon_tf.errors import UserError
from supcon_tf.search.nearest import unit_rows


def images(embeddings, labels, class_names=("cat", "dog"), signatures=None):
    count = len(embeddings)
    return AuditImages(
        splits={},
        split_of=["train"] * (count - 2) + ["test"] * 2,
        number_in_split=list(range(count)),
        names=[f"{number}.png" for number in range(count)],
        class_names=class_names,
        labels=np.array(labels),
        label_texts=[class_names[label] if class_names else "" for label in labels],
        embeddings=np.array(embeddings, np.float32),
        signatures=np.zeros((count, 6, 4), np.float32) if signatures is None else signatures,
    )


def two_clusters():
    """20 cats and 20 dogs; image 3 is a cat labelled dog, image 40 is far from both."""
    rng = np.random.default_rng(0)
    centers = np.repeat([[1.0, 0, 0], [0, 1.0, 0]], 20, axis=0)
    embeddings = [*(centers + 0.05 * rng.normal(size=(40, 3))), [0, 0, -1.0]]
    labels = [0] * 20 + [1] * 21
    labels[3] = 1
    return embeddings, labels


def test_planted_findings_are_found(tmp_path):
    embeddings, labels = two_clusters()
    signatures = np.zeros((41, 6, 4), np.float32)
    signatures[[5, 39], :, 0] = 1
    data = images(embeddings, labels, signatures=signatures)
    found = audit(data, num_neighbors=5, duplicate_similarity=0.97)
    assert [error.image for error in found.errors] == [3]
    assert [image for image, _ in found.isolated] == [40]
    assert [(pair.first, pair.second) for pair in found.duplicates] == [(5, 39)]
    write_tables(tmp_path, data, found)
    tables = {}
    for file in tmp_path.iterdir():
        with file.open(newline="") as opened:
            tables[file.name] = list(csv.DictReader(opened))
    assert set(tables) == {
        "duplicates.csv",
        "label_errors.csv",
        "isolated.csv",
        "class_overlaps.csv",
    }
    error = tables["label_errors.csv"][0]
    assert (error["path"], error["label"], error["suggestion"]) == ("3.png", "dog", "cat")
    pair = tables["duplicates.csv"][0]
    assert [pair[key] for key in ("path_1", "split_1", "label_1")] == ["5.png", "train", "cat"]
    assert [pair[key] for key in ("path_2", "split_2", "label_2")] == ["39.png", "test", "dog"]
    assert tables["isolated.csv"][0]["path"] == "40.png"
    assert tables["class_overlaps.csv"][0].keys() == {"class_1", "class_2", "share"}


def test_images_without_labels_have_no_label_findings():
    embeddings, _ = two_clusters()
    found = audit(images(embeddings, [-1] * 41, ()), num_neighbors=5, duplicate_similarity=0.97)
    assert (found.errors, found.overlaps) == ([], [])
    assert [image for image, _ in found.isolated] == [40]


@pytest.mark.parametrize("k", [3, 100])
def test_the_neighbors_of_an_image_are_others_even_among_copies(k):
    rows = unit_rows([[1, 0]] * 6 + [[0, 1]] * 2)
    similarities, positions = _other_neighbors(rows, k)
    assert similarities.shape == (8, min(k, 7))
    for row, others in enumerate(positions):
        assert row not in others
        assert len(set(others)) == len(others)
    assert (similarities[:6, :3] == 1).all()
    assert similarities[6].tolist()[:2] == [1, 0]


def test_a_single_image_is_rejected():
    data = dataclasses.replace(images([[1.0, 0]] * 3, [0] * 3), embeddings=np.ones((1, 2)))
    with pytest.raises(UserError, match="at least two images, got 1"):
        audit(data, num_neighbors=1, duplicate_similarity=1.0)
