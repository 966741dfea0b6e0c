"""Corrupted images, made on the fly or read from the three published layouts."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import corruptions
from supcon_tf.data.corruptions.base import read_images
from supcon_tf.data.imagenet_c import corrupt
from supcon_tf.data.sources import Source
from supcon_tf.data.splits import IndexedSplit
from supcon_tf.errors import UserError

NAMES = ("ant", "bee", "cat")
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int64)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
CELLS = [("fog", 1), ("fog", 5), ("snow", 1), ("snow", 5)]


def source_of(*, names=NAMES):
    images = tf.constant(PIXELS)
    split = IndexedSplit(LABELS, lambda number: tf.gather(images, number))
    return Source("animals", names, split, split)


def opened(kind, source=None, *, cells=CELLS, num_images=6, seed=0, **options):
    source = source or source_of()
    return kind(source, cells=cells, num_images=num_images, seed=seed, **options)


def cell(made, corruption, severity):
    images, labels = zip(*made.images(corruption, severity), strict=True)
    return np.stack(images), np.array(labels)


def clean(seed=0):
    images, labels = zip(*read_images(source_of().test, num_images=6, seed=seed), strict=True)
    return np.stack(images), np.array(labels)


def expected(corruption, severity, *, seed=0):
    return np.stack(
        [
            corrupt(image, corruption=corruption, severity=severity, seed=seed, number=number)
            for number, image in enumerate(clean(seed)[0])
        ]
    )


def test_images_do_not_depend_on_the_number_of_processes():
    alone = opened(corruptions.on_the_fly, processes=1)
    together = opened(corruptions.on_the_fly, processes=2)
    for corruption, severity in (("shot_noise", 2), ("fog", 5)):
        images, labels = cell(together, corruption, severity)
        np.testing.assert_array_equal(images, cell(alone, corruption, severity)[0])
        np.testing.assert_array_equal(images, expected(corruption, severity))
        np.testing.assert_array_equal(labels, clean()[1])


def test_another_seed_gives_other_images():
    first = cell(opened(corruptions.on_the_fly, processes=1), "shot_noise", 2)[0]
    second = cell(opened(corruptions.on_the_fly, processes=1, seed=1), "shot_noise", 2)[0]
    assert not (first == second).all(axis=(1, 2, 3)).any()


def test_cache_is_found_by_the_content_of_the_clean_images(tmp_path, monkeypatch):
    options = {"processes": 1, "cache_dir": str(tmp_path)}
    images, labels = cell(opened(corruptions.on_the_fly, **options), "contrast", 3)
    np.testing.assert_array_equal(images, expected("contrast", 3))
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("images")}
    again = opened(corruptions.on_the_fly, **options)
    np.testing.assert_array_equal(cell(again, "contrast", 3)[0], images)
    np.testing.assert_array_equal(cell(again, "contrast", 3)[1], labels)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("images")} == files
    # A source with the same name and one different pixel.
    changed = PIXELS.copy()
    changed[0, 0, 0, 0] ^= 1
    monkeypatch.setattr(sys.modules[__name__], "PIXELS", changed)
    cell(opened(corruptions.on_the_fly, **options), "contrast", 3)
    assert len(list(tmp_path.rglob("images"))) == 2


def test_zero_processes_are_rejected():
    with pytest.raises(UserError, match=r"on_the_fly\.processes must be an integer >= 1, got 0"):
        opened(corruptions.on_the_fly, processes=0)


def test_workers_do_not_import_tensorflow():
    code = (
        "import sys, supcon_tf.data.imagenet_c, supcon_tf.data.process_pool; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_workers_end_with_a_parent_that_is_killed():
    code = textwrap.dedent("""
        import os, signal
        from supcon_tf.data.process_pool import process_pool
        if __name__ == "__main__":
            print(process_pool(1).submit(os.getpid).result(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    # The worker holds these pipes too: if it stayed alive, run() would wait until the timeout.
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert int(ended.stdout) > 0


@pytest.fixture
def published_arrays(tmp_path):
    """The layout of CIFAR-10-C: the pixels of image n at severity s are 10 s + n."""
    levels = np.repeat(10 * np.arange(1, 6), 6) + np.tile(np.arange(6), 5)
    pixels = np.broadcast_to(levels[:, None, None, None], (30, 32, 32, 3)).astype(np.uint8)
    for name in ("fog", "snow"):
        np.save(tmp_path / f"{name}.npy", pixels)
    np.save(tmp_path / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return tmp_path


def test_arrays_are_read_by_severity_with_their_labels(published_arrays):
    made = opened(corruptions.arrays, root=str(published_arrays))
    for severity in (1, 5):
        images, labels = cell(made, "fog", severity)
        numbers = images[:, 0, 0, 0] - 10 * severity
        assert sorted(numbers) == list(range(6))
        np.testing.assert_array_equal(labels, LABELS[numbers])
        # The same images as the clean ones, in the same order.
        np.testing.assert_array_equal(labels, clean()[1])
    few = opened(corruptions.arrays, root=str(published_arrays), num_images=2)
    assert len(cell(few, "snow", 1)[0]) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("fog", np.zeros((29, 32, 32, 3), np.uint8), r"must be uint8 \[30, H, W, 3\].* got uint8 \[29,"),
        ("fog", np.zeros((30, 32, 32, 3), np.float32), "got float32"),
        ("labels", np.full(30, 3), r"class numbers in 0 ... 2, got 3 to 3"),
        ("labels", np.zeros((6, 5)), r"must be integers \[n\], got float64 \(6, 5\)"),
    ],
)  # fmt: skip
def test_arrays_of_other_types_or_values_are_rejected(published_arrays, name, content, says):
    np.save(published_arrays / f"{name}.npy", content)
    with pytest.raises(UserError, match=says):
        opened(corruptions.arrays, root=str(published_arrays)).images("fog", 1)


def test_arrays_saved_as_objects_are_not_unpickled(published_arrays):
    np.save(published_arrays / "labels.npy", np.array([None] * 30), allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle=False"):
        opened(corruptions.arrays, root=str(published_arrays))


def test_missing_arrays_are_listed_before_the_first_is_read(published_arrays):
    (published_arrays / "snow.npy").unlink()
    with pytest.raises(UserError, match=r"lacks 2 of 4 .*: snow 1, snow 5; .*fog.npy"):
        opened(corruptions.arrays, root=str(published_arrays))
    (published_arrays / "labels.npy").unlink()
    with pytest.raises(UserError, match=r"lacks labels.npy"):
        opened(corruptions.arrays, cells=CELLS[:2], root=str(published_arrays))


@pytest.fixture
def published_folder(tmp_path):
    """The layout of ImageNet-C, with the clean images."""
    for corruption, severity in CELLS:
        for number, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            file = tmp_path / corruption / str(severity) / NAMES[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tf.io.encode_png(image).numpy())
    return tmp_path


@pytest.mark.parametrize("names", [NAMES, ("cat", "ant", "bee")])
def test_labels_of_folders_are_those_of_the_source(published_folder, names):
    made = opened(corruptions.folder, source_of(names=names), root=str(published_folder))
    images, labels = cell(made, "snow", 5)
    for image, label in zip(images, labels, strict=True):
        number = next(n for n in range(6) if (PIXELS[n] == image).all())
        assert names[label] == NAMES[LABELS[number]]


def test_incomplete_folders_are_rejected(published_folder):
    root = str(published_folder)
    made = opened(corruptions.folder, root=root)
    next((published_folder / "fog/5/ant").iterdir()).unlink()
    with pytest.raises(UserError, match=r"fog/5' has 5 images, 6 are needed: .*max_images = 5"):
        made.images("fog", 5)
    (published_folder / "fog/5/ant").rename(published_folder / "fog/5/ape")
    with pytest.raises(UserError, match="other classes than 'animals', only one of them has 'ant'"):
        made.images("fog", 5)
    with pytest.raises(UserError, match=r"lacks 1 of 5 .*: fog 2; .*fog/3/n01440764"):
        opened(corruptions.folder, cells=[*CELLS, ("fog", 2)], root=root)


@pytest.fixture(scope="session")
def published_tfds(tmp_path_factory):
    """A TFDS set with a configuration per cell, one of them with a name of cifar10_corrupted."""
    import tensorflow_datasets as tfds

    prepared = ("fog_1", "fog_2", "frosted_glass_blur_1")

    class AnimalsCorrupted(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [  # noqa: RUF012
            tfds.core.BuilderConfig(name=name) for name in (*prepared, "fog_3")
        ]

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(32, 32, 3)),
                        "label": tfds.features.ClassLabel(names=list(NAMES)),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            shift = np.uint8(prepared.index(self.builder_config.name))
            return {
                "test": ((n, {"image": PIXELS[n] ^ shift, "label": LABELS[n]}) for n in range(6))
            }

        def _generate_examples(self):
            raise NotImplementedError

    directory = str(tmp_path_factory.mktemp("tfds"))
    for config in prepared:
        AnimalsCorrupted(config=config, data_dir=directory).download_and_prepare()
    return directory


def test_tfds_configurations_are_cells(published_tfds):
    options = {"name": "animals_corrupted", "data_dir": published_tfds}
    made = opened(corruptions.tfds, cells=[("fog", 2), ("glass_blur", 1)], **options)
    for shift, at in ((1, ("fog", 2)), (2, ("glass_blur", 1))):
        images, labels = cell(made, *at)
        for image, label in zip(images, labels, strict=True):
            number = next(n for n in range(6) if (PIXELS[n] ^ np.uint8(shift) == image).all())
            assert label == LABELS[number]


def test_missing_configurations_and_other_classes_are_rejected(published_tfds):
    options = {"name": "animals_corrupted", "data_dir": published_tfds}
    with pytest.raises(UserError, match=r"lacks 2 of 3 .*: fog 3, snow 1; .*tfds build"):
        opened(corruptions.tfds, cells=[("fog", 1), ("fog", 3), ("snow", 1)], **options)
    with pytest.raises(UserError, match="other classes than 'animals', in another order"):
        opened(
            corruptions.tfds, source_of(names=NAMES[::-1]), cells=[("fog", 1)], **options
        ).images("fog", 1)
    with pytest.raises(UserError, match=r"corruptions.tfds.name = 'cifar10_corrupted'"):
        opened(corruptions.tfds)


def test_root_is_required_and_must_be_a_folder():
    for kind, says in ((corruptions.folder, "folder.root"), (corruptions.arrays, "arrays.root")):
        with pytest.raises(UserError, match=rf"Set corruptions.{says} = "):
            opened(kind)
        with pytest.raises(UserError, match=rf"no folder '/nowhere': set corruptions.{says}"):
            opened(kind, root="/nowhere")
        with pytest.raises(UserError, match=rf"corruptions.{says} must be text .* got ''"):
            opened(kind, root="")


@pytest.mark.parametrize("kind", ["arrays", "folder", "on_the_fly", "tfds"])
def test_source_without_labels_is_rejected(kind):
    split = IndexedSplit(np.full(6, -1), lambda number: tf.gather(PIXELS, number))
    with pytest.raises(UserError, match="robustness needs labels, but 'mine' has none"):
        opened(getattr(corruptions, kind), Source("mine", (), split, split))
    with pytest.raises(UserError, match=r"robustness.run.source must be a source such as"):
        getattr(corruptions, kind)("digits", cells=CELLS, num_images=6, seed=0)
