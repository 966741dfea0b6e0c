"""The input pipelines that benchmark_input.py compares; each yields batches of views as arrays."""

import functools
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SMALL, SIMCLR, AUTO, STACKED, DECODING = (
    "32 px, simclr",
    "224 px, simclr",
    "224 px, autoaugment",
    "224 px, stacked_randaugment",
    "224 px, decoding only",
)
# Case -> contenders.
CASES = {
    SMALL: ("ours exact", "ours fused", "torchvision", "keras-cv"),
    SIMCLR: ("ours exact", "ours fused", "torchvision"),
    AUTO: ("ours", "torchvision"),
    STACKED: ("ours", "torchvision"),
    DECODING: ("tf.io.decode_jpeg",),
}
CORES = os.cpu_count() or 1
# CIFAR-10's, on the scale [-1, 1].
MEAN, DEVIATION = (-0.0172, -0.0356, -0.107), (0.4046, 0.3988, 0.402)


def pipeline(
    case: str, name: str, folder: Path, batch: int, max_samples: int
) -> Iterator[np.ndarray]:
    """Batches of a contender: of two views each, or of one pixel for "decoding only".

    Args:
      case: a key of CASES.
      name: one of its contenders.
      folder: holds what `benchmark_input.prepare` wrote.
      batch: samples per batch.
      max_samples: bound of the samples that are read.
    """
    if name == "torchvision":
        return torchvision(case, folder, batch)
    if name == "keras-cv":
        return keras_cv(folder, batch)
    if case == DECODING:
        return decoding(folder, batch)
    return ours(case, name, folder, batch, max_samples)


def ours(case: str, name: str, folder: Path, batch: int, max_samples: int) -> Iterator[np.ndarray]:
    """Batches [B, 2, H, W, 3] of `supcon_tf.data.pipeline.training_batches`."""
    import tensorflow as tf

    from supcon_tf.data import views
    from supcon_tf.data.pipeline import training_batches
    from supcon_tf.data.splits import IndexedSplit

    if case == SMALL:
        images = tf.constant(np.load(folder / "pixels.npy"))
        crop = functools.partial(views.random_resized_crop, area_range=(0.2, 1.0))
        preprocessing = views.Preprocessing(32, crop=crop, normalization=(MEAN, DEVIATION))
    else:
        images = tf.constant(encoded_images(folder))
        preprocessing = views.Preprocessing(224)
    split = IndexedSplit(
        np.zeros(len(images), np.int64),
        lambda number: tf.gather(images, number),
        reads_batches=case == SMALL,
        in_memory=True,
    )
    simclr = functools.partial(views.simclr, jitter="torchvision", exact=name != "ours fused")
    augmentation = {
        SMALL: functools.partial(simclr, strength=0.5, blur_probability=0.0),
        SIMCLR: simclr,
        AUTO: functools.partial(views.autoaugment, policy="imagenet"),
        STACKED: functools.partial(views.stacked_randaugment, jitter="torchvision"),
    }[case]
    batches = training_batches(
        split,
        preprocessing=preprocessing,
        augmentation=augmentation,
        num_views=2,
        batch_size=batch,
        num_classes=1,
        seed=0,
    )
    dataset = batches(0, 1000 + max_samples // batch)
    return (images for images, _ in dataset.as_numpy_iterator())


def keras_cv(folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Batches [B, 2, 32, 32, 3] of keras-cv's layers."""
    import keras_cv as library
    import tensorflow as tf

    pixels = np.load(folder / "pixels.npy")
    jitter = library.layers.RandomColorJitter(
        value_range=(0, 255),
        brightness_factor=(-0.4, 0.4),
        contrast_factor=0.4,
        # keras-cv scales saturation by f / (1 - f), here 0.6 to 1.4, and hue by half its factor.
        saturation_factor=(0.375, 0.5833),
        hue_factor=0.2,
    )
    grey = library.layers.Grayscale(output_channels=3)
    flip = library.layers.RandomFlip("horizontal")
    crop = library.layers.RandomCropAndResize(
        (32, 32), crop_area_factor=(0.2, 1.0), aspect_ratio_factor=(3 / 4, 4 / 3)
    )

    def sometimes(layer: Any, images: tf.Tensor, probability: float) -> tf.Tensor:
        # keras-cv's RandomApply cannot be traced for a whole batch.
        coin = tf.random.uniform([]) < probability
        return tf.cond(coin, lambda: layer(images), lambda: images)

    def two_views(images: tf.Tensor) -> tf.Tensor:
        images = crop(flip(tf.cast(tf.repeat(images, 2, axis=0), tf.float32)))
        images = sometimes(grey, sometimes(jitter, images, 0.8), 0.2)
        images = (images * (2.0 / 255.0) - 1.0 - tf.constant(MEAN)) / tf.constant(DEVIATION)
        return tf.reshape(images, [batch, 2, 32, 32, 3])

    dataset = tf.data.Dataset.from_tensor_slices(pixels).shuffle(len(pixels)).repeat()
    dataset = dataset.batch(batch, drop_remainder=True)
    dataset = dataset.map(two_views, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def decoding(folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Batches [B] of one pixel per decoded JPEG."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(encoded_images(folder)).repeat()
    dataset = dataset.map(
        # One pixel: images of different sizes cannot be batched.
        lambda encoded: tf.io.decode_jpeg(encoded, channels=3)[0, 0, 0],
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.batch(batch).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


class TorchvisionViews:
    """A map-style data set for DataLoader: two views of each image."""

    def __init__(self, case: str, folder: Path):
        from torchvision import transforms as T

        simclr = [T.RandomGrayscale(0.2), T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=0.5)]
        jitter = [T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8)]
        weak_jitter = [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)]
        distortions = {
            SMALL: [*weak_jitter, T.RandomGrayscale(0.2)],
            SIMCLR: [*jitter, *simclr],
            AUTO: [T.AutoAugment()],
            STACKED: [*jitter, T.RandAugment(2, 10), *simclr],
        }[case]
        if case == SMALL:
            self.images: Any = np.load(folder / "pixels.npy")
            crop = T.RandomResizedCrop(32, scale=(0.2, 1.0))
            # From [-1, 1] to [0, 1], the scale that torchvision normalises on.
            mean = [(value + 1) / 2 for value in MEAN]
            scale = T.Normalize(mean, [value / 2 for value in DEVIATION])
        else:
            self.images = encoded_images(folder)
            crop, scale = T.RandomResizedCrop(224), T.Normalize([0.5] * 3, [0.5] * 3)
        self.transform = T.Compose(
            [crop, T.RandomHorizontalFlip(), *distortions, T.ToTensor(), scale]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Any:
        import torch
        from PIL import Image

        image = self.images[number]
        if isinstance(image, bytes):
            pixels = Image.open(io.BytesIO(image)).convert("RGB")
        else:
            pixels = Image.fromarray(image)
        return torch.stack([self.transform(pixels), self.transform(pixels)])


class EndlessOrder:
    """A sampler of endless random permutations: a new epoch would restart the workers."""

    def __init__(self, size: int):
        self.size = size

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        for _ in itertools.count():
            yield from rng.permutation(self.size).tolist()


def torchvision(case: str, folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Batches [B, 2, 3, H, W] of torchvision in a DataLoader with a worker per core."""
    import torch

    views = TorchvisionViews(case, folder)
    loader: Iterable[Any] = torch.utils.data.DataLoader(
        views,  # type: ignore[arg-type,unused-ignore]
        batch_size=batch,
        sampler=EndlessOrder(len(views)),
        num_workers=CORES,
    )
    return (images.numpy() for images in loader)


def encoded_images(folder: Path) -> list[bytes]:
    """The bytes of the JPEGs in jpegs.json, repeated up to its count."""
    jpegs = json.loads((folder / "jpegs.json").read_text())
    files = [Path(path).read_bytes() for path in jpegs["paths"]]
    return list(itertools.islice(itertools.cycle(files), jpegs["count"]))
