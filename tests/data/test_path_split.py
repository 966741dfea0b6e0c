"""Splits chosen by paths: adding images moves none."""

import numpy as np
import pytest

from supcon_tf.data.path_split import hold_out_by_path, names_below
from supcon_tf.errors import UserError

SHARE = 0.2


def names_of(numbers, folder="cat"):
    return [f"{folder}/{number:05d}.jpg" for number in numbers]


def held_out_names(names, labels, **options):
    kept, held_out = hold_out_by_path(names, np.asarray(labels), SHARE, **{"seed": 0, **options})
    assert sorted([*kept, *held_out]) == list(range(len(names)))
    return {names[number] for number in held_out}


def test_adding_removing_and_relabelling_images_moves_none():
    names = names_of(range(300))
    before = held_out_names(names, np.arange(300) % 3)
    more = sorted([*names, *names_of(range(100), "ant"), *names_of(range(100), "dog")])
    after = held_out_names(more, np.arange(500) % 7)
    assert after & set(names) == before
    assert held_out_names(names[::2], np.zeros(150, int)) == before & set(names[::2])


def test_the_share_is_that_of_a_binomial_number_in_every_class():
    names, labels = names_of(range(4000)), np.arange(4000) % 2
    counts = [
        np.isin([names[n] for n in np.flatnonzero(labels == label)], sorted(held)).sum()
        for held in [held_out_names(names, labels)]
        for label in (0, 1)
    ]
    deviation = np.sqrt(2000 * SHARE * (1 - SHARE))
    assert np.abs(np.array(counts) - 2000 * SHARE).max() < 4 * deviation
    assert held_out_names(names, labels) != held_out_names(names, labels, seed=1)


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_every_class_keeps_an_image_and_holds_one_out(share):
    labels = np.array([0, 0, 1, 1, 1])
    kept, held_out = hold_out_by_path(names_of(range(5)), labels, share, seed=0)
    assert set(labels[kept]) == set(labels[held_out]) == {0, 1}
    assert min(len(kept), len(held_out)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_every_label_of_several_keeps_an_image(seed):
    labels = np.array([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0]])
    kept, _ = hold_out_by_path(names_of(range(5)), labels, 0.9, seed=seed)
    assert labels[kept].any(axis=0).all()


def test_a_class_of_one_image_is_rejected():
    with pytest.raises(UserError, match="class number 1 has 1 image: two are needed"):
        hold_out_by_path(names_of(range(3)), np.array([0, 0, 1]), SHARE, seed=0)


def test_names_do_not_depend_on_where_the_folder_is():
    paths = ["/data/photos/cat/1.jpg", "/other/2.jpg"]
    assert names_below("/data/photos", paths) == ["cat/1.jpg", "/other/2.jpg"]
    assert names_below("/data/photos/", paths[:1]) == ["cat/1.jpg"]
    # Names that are not UTF-8 have surrogates.
    assert held_out_names(["a/\udcff.jpg", "a/1.jpg"], [0, 0])
