"""Training batches as a function of seed and step, evaluation batches in order."""

import dataclasses
import functools
import os

import numpy as np
import pytest
import tensorflow as tf

from supcon_tf.data import views
from supcon_tf.data.augment.rng import uniforms
from supcon_tf.data.batch_maker import part_of
from supcon_tf.data.pipeline import evaluation_batches, training_batches
from supcon_tf.data.splits import IndexedSplit, StreamedSplit
from supcon_tf.errors import UserError


@pytest.fixture(scope="module", params=[False, True], ids=["one_by_one", "in_batches"])
def split(request):
    images = tf.cast(
        tf.random.stateless_uniform([10, 12, 12, 3], [0, 0], 0, 256, tf.int32), tf.uint8
    )
    return IndexedSplit(
        np.arange(10, dtype=np.int64),
        lambda number: tf.gather(images, number),
        reads_batches=request.param,
    )


@pytest.fixture(scope="module")
def large():
    """A split of 70 images of 24 x 20 pixels in seven classes of 4 to 16."""
    counts = [4, 6, 8, 10, 12, 14, 16]
    smooth = tf.image.resize(tf.random.stateless_uniform([70, 4, 4, 3], [0, 1]), [24, 20])
    images = tf.cast(smooth * 255.0, tf.uint8)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), counts))
    return IndexedSplit(labels, lambda number: tf.gather(images, number), reads_batches=True)


def as_streamed(split):
    def one_pass(seed):
        examples = split.in_order()
        return examples if seed is None else examples.shuffle(100, seed=seed)

    return StreamedSplit(split.num_examples, one_pass)


def tinted(image, *, seed):
    """Random like a real augmentation, but traced quickly."""
    return image * (0.5 + 0.5 * uniforms(seed, 3)[..., None, None, :])


# Views have a range of 2; a small chroma amplifies the rounding error of the hue.
ATOL = {"identity": 4e-6, "simclr": 1e-5}


def batches_of(
    split,
    *,
    seed=0,
    batch_size=4,
    num_views=2,
    augmentation=views.identity,
    image_px=8,
    **options,
):
    return training_batches(
        split,
        preprocessing=views.Preprocessing(image_px=image_px),
        augmentation=augmentation,
        num_views=num_views,
        batch_size=batch_size,
        num_classes=10,
        seed=seed,
        **options,
    )


def arrays(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def assert_equal(left, right):
    assert len(left) == len(right) > 0
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def assert_same_views(left, right, *, atol):
    assert len(left) == len(right) > 0
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        np.testing.assert_allclose(images, other_images, rtol=0, atol=atol)


def test_a_batch_holds_views_and_labels(split):
    ((images, labels),) = arrays(batches_of(split)(0, 1))
    assert images.shape == (4, 2, 8, 8, 3)
    assert images.dtype == np.float32
    # Up to the rounding of the resampling.
    assert -1 - 1e-6 <= images.min() < images.max() <= 1 + 1e-6
    assert labels.dtype == np.int64


def test_a_batch_can_be_made_without_the_ones_before(split):
    batches = batches_of(split, augmentation=tinted)
    whole = arrays(batches(0, 7))
    for start in (3, 6):
        assert_equal(arrays(batches(start, 7)), whole[start:])
    assert_equal(arrays(batches_of(split, augmentation=tinted)(0, 7)), whole)


def test_views_of_an_image_differ_between_places_views_steps_and_seeds(split):
    one = split.take(np.array([0]))
    first = arrays(batches_of(one, batch_size=1, num_views=3)(0, 2))
    views_seen = [view for images, _ in first for view in images[0]]
    other_seed = arrays(batches_of(one, batch_size=1, num_views=3, seed=1)(0, 1))
    views_seen += list(other_seed[0][0][0])
    assert len({view.tobytes() for view in views_seen}) == len(views_seen)


def test_no_image_is_dropped_at_the_end_of_an_epoch(split):
    labels = np.concatenate([labels for _, labels in arrays(batches_of(split)(0, 5))])
    assert np.bincount(labels).tolist() == [2] * 10


def test_views_are_the_same_for_any_number_of_threads_and_in_every_run(split):
    dataset = batches_of(split, augmentation=tinted)(0, 4)
    expected = arrays(dataset)
    for threads in (1, 3, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        assert_equal(arrays(dataset.with_options(options)), expected)


def test_there_are_two_threads_per_core_where_images_come_from_a_disk(large):
    cores = os.cpu_count()
    kinds = {
        "in memory": (dataclasses.replace(large, in_memory=True), cores),
        "read": (large, 2 * cores),
        "streamed": (as_streamed(large), 2 * cores),
    }
    for kind, (split, threads) in kinds.items():
        options = batches_of(split)(0, 1).options()
        assert options.threading.private_threadpool_size == threads, kind
        assert options.threading.max_intra_op_parallelism == 1
        assert options.autotune.enabled is False


def test_batch_larger_than_the_split_is_rejected(split):
    with pytest.raises(UserError, match="at most the 10 training images, got 11"):
        batches_of(split, batch_size=11)


@pytest.mark.parametrize("augmentation", [views.identity, views.simclr], ids=lambda f: f.__name__)
def test_views_made_as_a_batch_equal_views_made_one_by_one(large, augmentation):
    options = {"augmentation": augmentation, "batch_size": 24, "num_views": 3}
    at_once = arrays(batches_of(large, **options)(2, 5))
    one_by_one = dataclasses.replace(large, reads_batches=False)
    alone = arrays(batches_of(one_by_one, **options)(2, 5))
    assert_same_views(at_once, alone, atol=ATOL[augmentation.__name__])
    assert len(at_once) == 3


@pytest.mark.parametrize(
    ("batch_size", "options"), [(24, {}), (24, {"shard": (1, 2)}), (23, {}), (1, {})]
)
def test_views_made_in_parts_of_a_batch_equal_views_made_one_by_one(large, batch_size, options):
    # With six views of 64 px, a part is six images, or all 23 for a prime share.
    options = {"batch_size": batch_size, "num_views": 6, "image_px": 64, **options}
    in_parts = arrays(batches_of(large, **options)(2, 5))
    one_by_one = dataclasses.replace(large, reads_batches=False)
    alone = arrays(batches_of(one_by_one, **options)(2, 5))
    assert_same_views(in_parts, alone, atol=ATOL["identity"])
    assert len(in_parts) == 3
    assert_equal(arrays(batches_of(large, **options)(4, 5)), in_parts[2:])


@pytest.mark.parametrize("defer_to_device", [False, True])
def test_strategy_of_one_replica_keeps_batches_made_in_parts(large, defer_to_device):
    options = {"batch_size": 24, "num_views": 6, "image_px": 64}
    dataset = batches_of(large, defer_to_device=defer_to_device, **options)(0, 3)
    assert int(dataset.cardinality()) == 3
    assert all(spec.shape[0] == 24 for spec in tf.nest.flatten(dataset.element_spec))
    strategies = [
        tf.distribute.OneDeviceStrategy("CPU:0"),
        tf.distribute.MirroredStrategy(["CPU:0"]),
    ]
    for strategy in strategies:
        for batch, same in zip(
            strategy.experimental_distribute_dataset(dataset), dataset, strict=True
        ):
            tf.nest.map_structure(np.testing.assert_array_equal, batch, same)


@pytest.mark.parametrize(
    ("share", "numbers", "part"),
    [(1024, 6144, 64), (100, 6144, 50), (127, 6144, 127), (64, 10**9, 1), (48, 1, 48)],
)
def test_a_part_divides_the_share_and_fits_the_cache(share, numbers, part):
    assert part_of(share, numbers) == part


@pytest.mark.parametrize("reads_batches", [False, True])
def test_every_balanced_batch_has_k_images_of_each_of_its_classes(large, reads_batches):
    split = dataclasses.replace(large, reads_batches=reads_batches)
    batches = batches_of(split, batch_size=12, num_views=1, samples_per_class=4)
    whole = arrays(batches(0, 6))
    for images, labels in whole:
        assert images.shape == (12, 1, 8, 8, 3)
        classes, counts = np.unique(labels, return_counts=True)
        assert len(classes) == 3
        assert counts.tolist() == [4, 4, 4]
    for step in (0, 1, 5):
        assert_equal(arrays(batches(step, step + 1)), whole[step : step + 1])


def test_balanced_batches_hold_the_images_with_their_numbers(large):
    numbered = IndexedSplit(
        large.labels,
        # All pixels of an image are its number.
        lambda number: tf.fill([6, 6, 3], tf.cast(number, tf.uint8)),
    )
    batches = batches_of(numbered, batch_size=14, num_views=1, samples_per_class=2, seed=4)
    seen = np.zeros(70, int)
    for images, labels in arrays(batches(0, 24)):
        numbers = np.rint((images[:, 0, 0, 0, 0] + 1) / 2 * 255).astype(int)
        np.testing.assert_array_equal(large.labels[numbers], labels)
        np.add.at(seen, numbers, 1)
    # All seven classes are in every batch: 48 images of each class, each image equally often.
    expected = 48 / np.bincount(large.labels)[large.labels]
    assert np.all((seen == np.floor(expected)) | (seen == np.ceil(expected)))


@pytest.mark.parametrize("kind", ["in_batches", "one_by_one", "streamed"])
def test_the_shards_of_a_batch_make_up_the_batch(large, kind):
    split = {
        "in_batches": large,
        "one_by_one": dataclasses.replace(large, reads_batches=False),
        "streamed": as_streamed(large),
    }[kind]
    options, count = {"batch_size": 12, "augmentation": tinted}, 3
    whole = arrays(batches_of(split, **options)(1, 4))
    parts = [arrays(batches_of(split, shard=(h, count), **options)(1, 4)) for h in range(count)]
    for step, (images, labels) in enumerate(whole):
        of_step = [part[step] for part in parts]
        assert {len(of_part) for _, of_part in of_step} == {12 // count}
        np.testing.assert_array_equal(np.concatenate([part for _, part in of_step]), labels)
        joined = np.concatenate([part for part, _ in of_step])
        np.testing.assert_allclose(joined, images, atol=ATOL["identity"])


def test_shards_of_balanced_batches_are_parts_of_them(large):
    options = {"batch_size": 12, "samples_per_class": 2}
    ((images, labels),) = arrays(batches_of(large, **options)(3, 4))
    for host in range(3):
        ((of_host, labels_of_host),) = arrays(batches_of(large, shard=(host, 3), **options)(3, 4))
        np.testing.assert_array_equal(labels_of_host, labels[4 * host : 4 * host + 4])
        np.testing.assert_allclose(of_host, images[4 * host : 4 * host + 4], atol=2e-6)


@pytest.mark.parametrize("kind", ["in_batches", "one_by_one", "streamed"])
def test_deferred_batches_become_the_same_views(large, kind):
    split = {
        "in_batches": large,
        "one_by_one": dataclasses.replace(large, reads_batches=False),
        "streamed": as_streamed(large),
    }[kind]
    options = {"batch_size": 12, "augmentation": tinted}
    expected = arrays(batches_of(split, **options)(1, 3))
    deferred = batches_of(split, defer_to_device=True, **options)(1, 3)
    preprocessing = views.Preprocessing(image_px=8)

    @tf.function(autograph=False)
    def distorted(crops, seeds):
        return preprocessing.augment_and_scale(crops, tinted, seed=seeds)

    for (inputs, labels), (images, other_labels) in zip(deferred, expected, strict=True):
        crops, seeds = inputs["crops"], inputs["seeds"]
        assert set(inputs) == {"crops", "seeds"}
        assert crops.shape == (12, 2, 8, 8, 3)
        assert seeds.shape == (12, 2)
        assert seeds.dtype == tf.int64
        assert len(set(seeds.numpy().ravel().tolist())) == 24
        np.testing.assert_array_equal(labels, other_labels)
        if kind == "in_batches":
            result = distorted(crops, seeds)
        else:
            result = tf.stack([distorted(*each) for each in zip(crops, seeds, strict=True)])
        np.testing.assert_array_equal(result, images)


def test_streamed_batches_can_be_made_alone(large):
    batches = batches_of(as_streamed(large), batch_size=12, augmentation=tinted)
    whole = arrays(batches(0, 7))
    for start in (0, 3, 6):
        assert_equal(arrays(batches(start, start + 1)), whole[start : start + 1])


def test_invalid_batches_are_rejected(large):
    for options in ({"repeat_images": True}, {"samples_in_a_row": 2}):
        with pytest.raises(UserError, match=r"\.samples_in_a_row need samples_per_class, got None"):
            batches_of(large, batch_size=12, **options)
    with pytest.raises(
        UserError, match="samples_in_a_row must divide samples_per_class, got 2 and 3"
    ):
        batches_of(large, batch_size=12, samples_per_class=3, samples_in_a_row=2)
    with pytest.raises(UserError, match="a multiple of samples_per_class, got 12 and 5"):
        batches_of(large, batch_size=12, samples_per_class=5)
    with pytest.raises(UserError, match="samples_per_class must be an integer >= 1, got 0"):
        batches_of(large, batch_size=12, samples_per_class=0)
    with pytest.raises(UserError, match="2 images of each of 8 classes needs 8 classes, got 7"):
        batches_of(large, batch_size=16, samples_per_class=2)(0, 1)
    for shard in ((0, 5), (3, 3), (-1, 3)):
        with pytest.raises(UserError, match=r"H a divisor of batch_size, got .* and 12"):
            batches_of(large, batch_size=12, shard=shard)
    with pytest.raises(UserError, match="samples_per_class must be None for a streamed set, got 2"):
        batches_of(as_streamed(large), batch_size=12, samples_per_class=2)(0, 1)
    unlabelled = dataclasses.replace(large, labels=np.full(70, -1))
    with pytest.raises(UserError, match="must be None without one label per image, got 2"):
        batches_of(unlabelled, batch_size=12, samples_per_class=2)
    for options, says in (
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"batch_size": 2.0}, r"batch_size must be an integer >= 1, got 2\.0"),
        ({"num_views": 0}, "num_views must be an integer >= 1, got 0"),
        ({"mixing": "mixup"}, "must be a function such as @mixing.mixup, got 'mixup'"),
        ({"defer_to_device": 1}, "defer_to_device must be True or False, got 1"),
    ):
        with pytest.raises(UserError, match=says):
            batches_of(large, **options)


def test_images_without_labels_keep_the_label_minus_one(large):
    unlabelled = dataclasses.replace(large, labels=np.full(70, -1))
    ((images, labels),) = arrays(batches_of(unlabelled, batch_size=12)(0, 1))
    ((expected, _),) = arrays(batches_of(large, batch_size=12)(0, 1))
    np.testing.assert_array_equal(images, expected)
    assert labels.tolist() == [-1] * 12


def test_invalid_option_of_the_crop_is_a_one_line_error(split):
    crop = functools.partial(views.random_resized_crop, num_tries=0)
    steps = training_batches(
        split, preprocessing=views.Preprocessing(8, crop), augmentation=views.identity,
        num_views=1, batch_size=2, num_classes=10, seed=0,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"^num_tries must be an integer >= 1, got 0$"):
        steps(0, 1)


def test_evaluation_batches_hold_every_image_once_in_order(split):
    batches = evaluation_batches(
        split.in_order(), preprocessing=views.Preprocessing(image_px=8), batch_size=4
    )
    shapes = [images.shape for images, _ in arrays(batches)]
    assert shapes == [(4, 8, 8, 3), (4, 8, 8, 3), (2, 8, 8, 3)]
    labels = np.concatenate([labels for _, labels in arrays(batches)])
    assert labels.tolist() == list(range(10))
