"""Arrays of images and labels in .npz and .npy files as a source."""

import numpy as np
import pytest

from supcon_tf.data import sources, views
from supcon_tf.data.pipeline import training_batches
from supcon_tf.errors import UserError

LABELS = np.arange(12) % 3
PIXELS = np.broadcast_to(np.arange(12)[:, None, None, None], (12, 5, 6, 3)).astype(np.uint8)


def save(path, array):
    np.save(path, array)
    return str(path)


def save_all(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def read(split):
    """{value of the first pixel: label}, and the shape of the images."""
    shape = split.in_order().element_spec[0].shape
    return {
        image.numpy().flat[0].item(): np.array(label).tolist() for image, label in split.in_order()
    }, tuple(shape)


@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("x", "y"), ("x_train", "y_train"), ("train_images", "train_labels")],
)
@pytest.mark.parametrize("column", [False, True])
def test_npz_file_of_images_and_labels(names, column, tmp_path):
    labels = LABELS[:, None] if column else LABELS
    file = save_all(tmp_path / "a.npz", **dict(zip(names, (PIXELS, labels), strict=True)))
    source = sources.arrays(file, test_share=0.25)
    assert (source.name, source.class_names) == ("a", ("0", "1", "2"))
    assert (source.train.num_examples, source.test.num_examples) == (9, 3)
    both = read(source.train)[0] | read(source.test)[0]
    assert both == {number: number % 3 for number in range(12)}
    assert read(source.train)[1] == (5, 6, 3)


def test_npz_file_with_all_splits(tmp_path):
    arrays = {
        f"{split}_{kind}": array
        for split in ("train", "val", "test")
        for kind, array in (("images", PIXELS), ("labels", LABELS))
    }
    source = sources.arrays(save_all(tmp_path / "a.npz", **arrays))
    assert {source.train.num_examples, source.validation.num_examples} == {12}
    with pytest.raises(UserError, match=r"has images for validation: .* must be 0, got 0\.1"):
        sources.arrays(str(tmp_path / "a.npz"), validation_share=0.1)


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_npy_files_of_any_number_of_channels(channels, dtype, tmp_path):
    scale = {np.uint8: 1, np.uint16: 257}.get(dtype, 1 / 255)
    pixels = (np.repeat(PIXELS[..., :1], channels, axis=3).astype(dtype) * scale).astype(dtype)
    file, labels = save(tmp_path / "x.npy", pixels), save(tmp_path / "y.npy", LABELS)
    options = {"test_file": file, "test_labels": labels, "labels": labels, "grey_as_rgb": False}
    source = sources.arrays(file, **options)
    found, shape = read(source.train)
    assert shape == (5, 6, channels)
    expected = [number if dtype == np.uint8 else number / 255 for number in range(12)]
    np.testing.assert_allclose(list(found), expected, rtol=1e-6)
    assert list(found.values()) == LABELS.tolist()
    batch, of_batch = source.train.example(np.array([[3, 0], [7, 7]]))
    assert batch.shape == (2, 2, 5, 6, channels)
    assert of_batch.numpy().tolist() == [[0, 0], [1, 1]]


def test_grey_images_become_rgb_and_are_trained_on(tmp_path):
    for pixels in (PIXELS[..., 0], PIXELS[..., :1]):
        file = save_all(tmp_path / "a.npz", images=pixels, labels=LABELS)
        source = sources.arrays(file)
        assert read(source.train)[1] == (5, 6, 3)
    steps = training_batches(
        source.train, preprocessing=views.Preprocessing(4), augmentation=views.identity,
        num_views=2, batch_size=4, num_classes=3, seed=0,
    )  # fmt: skip
    ((images, _),) = steps(0, 1).as_numpy_iterator()
    assert images.shape == (4, 2, 4, 4, 3)
    assert np.ptp(images, axis=-1).max() < 1e-6


def test_npy_files_are_memory_mapped(tmp_path):
    file, labels = save(tmp_path / "x.npy", PIXELS), save(tmp_path / "y.npy", LABELS)
    source = sources.arrays(file, labels=labels)
    assert not source.train.in_memory
    with open(file, "r+b") as opened:
        opened.seek(-PIXELS.nbytes, 2)
        opened.write(bytes([99]) * PIXELS[0].nbytes)
    assert 99 in read(source.train)[0] | read(source.test)[0]


def test_labels_of_other_kinds(tmp_path):
    names = np.array(["bee", "ant", "cat"])[LABELS]
    for labels in (names, names.astype("S")):
        source = sources.arrays(save_all(tmp_path / "a.npz", images=PIXELS, labels=labels))
        assert source.class_names == ("ant", "bee", "cat")
        assert all(label == (1, 0, 2)[n % 3] for n, label in read(source.train)[0].items())
    # Class numbers from 1, with a gap, and as floats.
    labels = np.array([1, 2, 5])[LABELS].astype(np.float32)
    source = sources.arrays(save_all(tmp_path / "a.npz", images=PIXELS, labels=labels))
    assert source.class_names == ("1", "2", "5")
    named = sources.arrays(
        save_all(tmp_path / "a.npz", images=PIXELS, labels=LABELS), class_names=("a", "b", "c", "d")
    )
    assert named.num_classes == 4
    rows = np.eye(3, dtype=np.int32)[LABELS] | np.eye(3, dtype=np.int32)[0]
    source = sources.arrays(save_all(tmp_path / "a.npz", images=PIXELS, labels=rows))
    assert source.is_multi_label
    assert all(label == rows[n].tolist() for n, label in read(source.train)[0].items())


def test_other_arrays_are_left_out(tmp_path, capsys):
    source = sources.arrays(save_all(tmp_path / "a.npz", x=PIXELS, y=LABELS, weights=LABELS))
    assert source.num_classes == 3
    assert "left out arrays of" in (said := capsys.readouterr().out)
    assert "'weights'" in said


def test_arrays_without_labels(tmp_path, capsys):
    for file in (save_all(tmp_path / "a.npz", images=PIXELS), save(tmp_path / "x.npy", PIXELS)):
        source = sources.arrays(file)
        assert "images without labels" in capsys.readouterr().out
        assert not source.has_labels
        assert set(read(source.train)[0].values()) == {-1}


OBJECTS = np.array([None] * 12)


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ({"pictures": PIXELS}, {}, r"must hold images and labels, got \['pictures'\]"),
        ({"images": PIXELS, "labels": LABELS[:5]}, {}, "has 12 images and 5 labels"),
        ({"images": PIXELS.astype(int), "labels": LABELS}, {}, "must be uint8, .* got int64"),
        ({"images": PIXELS[:, 0, 0], "labels": LABELS}, {}, r"must be \[n, .* got \[12, 3\]"),
        ({"images": PIXELS * 1.0, "labels": LABELS}, {}, r"must be in \[0, 1\], got 0.0 to 11.0"),
        ({"images": PIXELS * np.nan, "labels": LABELS}, {}, r"must be in \[0, 1\], got nan"),
        ({"images": PIXELS, "labels": LABELS + 0.5}, {}, "train labels must be integers or names"),
        ({"images": PIXELS, "labels": OBJECTS}, {}, "saved by numpy.savez with allow_pickle=False"),
        ({"images": PIXELS, "labels": LABELS * 0}, {}, r"at least two classes are needed, got \[0\]"),
        ({"images": PIXELS, "labels": LABELS}, {"class_names": ("a", "b")}, r"in 0 ... 1, got 2"),
        ({"images": PIXELS, "labels": LABELS}, {"class_names": "abc"}, "must be names such as"),
        ({"images": PIXELS, "labels": LABELS}, {"labels": "y.npy"}, "arrays.labels must be None"),
        ({"images": PIXELS, "labels": LABELS}, {"test_share": 0}, "arrays.test_share must be a"),
        ({"images": PIXELS, "labels": LABELS}, {"grey_as_rgb": 1}, "grey_as_rgb must be True or"),
        ({"images": PIXELS, "labels": LABELS - 1}, {}, "train labels must be >= 0, got -1"),
        ({"x": PIXELS, "y": LABELS, "x_test": PIXELS.astype(np.uint16), "y_test": LABELS}, {},
         r"of one dtype, got \['uint16', 'uint8'\]"),
        *(({"images": PIXELS, "labels": LABELS}, {"class_names": value}, "must be names such as")
          for value in ((), 5, ("a", 1))),
        ({"images": PIXELS, "labels": LABELS}, {"class_names": ("a", "b", "a")}, "'a' is there twice"),
        ({"images": PIXELS}, {"class_names": ("a", "b")}, "must be None for images without labels"),
        ({"x_train": PIXELS, "labels": LABELS}, {}, "'labels' of .* does not belong to the other"),
        ({"x": PIXELS, "y": LABELS, "images": PIXELS, "labels": LABELS}, {}, "'x' of .* does not belong"),
        ({"images": PIXELS, "labels": np.where(LABELS, LABELS, np.inf)}, {}, "must be integers or"),
        ({"images": PIXELS, "labels": LABELS + np.uint64(2**63)}, {}, "must be integers or names"),
        ({"x": PIXELS, "y": LABELS % 2, "x_test": PIXELS, "y_test": LABELS}, {}, "class 2 has no training"),
        ({"x": PIXELS, "y": LABELS, "x_test": PIXELS}, {}, "the test images have no labels"),
        ({"x": PIXELS, "y": LABELS, "x_test": PIXELS, "y_test": LABELS.astype(str)}, {}, "of one kind"),
    ],
)  # fmt: skip
def test_invalid_arrays_are_one_line_errors(arrays, options, says, tmp_path):
    with pytest.raises(UserError, match=says) as raised:
        sources.arrays(save_all(tmp_path / "a.npz", **arrays), **options)
    assert "\n" not in str(raised.value)


def test_files_that_are_not_arrays_are_rejected(tmp_path):
    for name in ("a.npz", "a.npy"):
        with pytest.raises(UserError, match=rf"no file '.*{name}'"):
            sources.arrays(str(tmp_path / name))
        for content in (b"", b"no array", b"PK\x03\x04 no zip"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=rf"{name}' .* saved by numpy\.save"):
                sources.arrays(str(tmp_path / name))
    objects = tmp_path / "objects.npy"
    np.save(objects, OBJECTS, allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle=False"):
        sources.arrays(str(objects))
    with pytest.raises(UserError, match=r"Set --gin_param=.sources\.arrays\.file = "):
        sources.arrays()
    with pytest.raises(UserError, match=r"test_labels needs sources.arrays.test_file"):
        sources.arrays(save(tmp_path / "x.npy", PIXELS), test_labels="y.npy")
