"""Corrupted images made from the test images of a source, optionally cached on disk."""

import collections
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.corruptions.base import (
    Cell,
    CorruptedImages,
    Images,
    check_labels,
    select_examples,
)
from supcon_tf.data.disk_cache import cached_split
from supcon_tf.data.imagenet_c import corrupt
from supcon_tf.data.process_pool import process_pool
from supcon_tf.data.sources.base import Source
from supcon_tf.errors import check_integer, check_text
from supcon_tf.files import expanded

# Images per process that are corrupted or queued, which limits the memory.
_QUEUED_PER_PROCESS = 16


def on_the_fly(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    processes: int | None = None,
    cache_dir: str | None = None,
) -> CorruptedImages:
    """Corrupts the test images of a source when they are needed.

    The images are the same for any number of processes. It uses processes instead of threads,
    because the library draws from NumPy's global generator. A script that uses several needs the
    usual `if __name__ == "__main__":`.

    Args:
      source: source of the clean test images.
      cells: not used, as every corruption can be made.
      num_images: number of images, the first of the shuffled test images.
      seed: seed of that order and of the corruptions.
      processes: number of processes; None for one per core, 1 for this process.
      cache_dir: folder to keep the images in as PNG, about 3 KB each at 32 px and 100 KB at
        224 px; None for no cache. A cache belongs to the content of the clean images.

    Raises:
      UserError: fewer than one process, or a source without labels.
    """
    check_labels(source)
    if processes is not None:
        check_integer("corruptions.on_the_fly.processes", processes, at_least=1)
    if cache_dir is not None:
        check_text("corruptions.on_the_fly.cache_dir", cache_dir, example="/tmp/corrupted")
    count = processes or os.cpu_count() or 1
    pool = process_pool(count) if count > 1 else None

    # Traced once: tracing takes longer than corrupting a few images.
    clean = select_examples(source.test, num_images=num_images, seed=seed)

    def corrupted(corruption: str, severity: int) -> Images:
        images = clean.as_numpy_iterator()
        yield from _corrupted(
            images, corruption, severity, seed=seed, pool=pool, ahead=_QUEUED_PER_PROCESS * count
        )

    if cache_dir is None:
        return CorruptedImages("on the fly", corrupted)
    made_by = f"{importlib.metadata.version('imagecorruptions-imaug')}-{seed}"
    content = _digest(clean.as_numpy_iterator(), num_images)
    root = expanded(cache_dir) / f"{source.name.replace('/', '-')}-{content}-{made_by}"

    def cached(corruption: str, severity: int) -> Images:
        def encoded() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for image, label in tqdm(
                corrupted(corruption, severity),
                desc=f"corrupting: {corruption} {severity}",
                total=num_images,
                unit="image",
                leave=False,
                disable=None,
            ):
                yield np.array([tf.io.encode_png(image).numpy()], object), np.array([label])

        split = cached_split(root / f"{corruption}-{severity}", encoded(), num_images)
        # Twice as fast as reading through tf.data.
        for number, label in enumerate(split.labels):
            yield tf.io.decode_png(split.read(tf.constant(number)), 3).numpy(), label

    return CorruptedImages("on the fly", cached)


def _corrupted(
    clean: Images, corruption: str, severity: int, *, seed: int, pool: Executor | None, ahead: int
) -> Images:
    """Corrupted images in the order of the clean ones, with at most `ahead` queued in the pool."""
    waiting: collections.deque[tuple[Future[np.ndarray], int]] = collections.deque()
    for number, (image, label) in enumerate(clean):
        make = functools.partial(
            corrupt, image, corruption=corruption, severity=severity, seed=seed, number=number
        )
        if pool is None:
            yield make(), label
            continue
        waiting.append((pool.submit(make), label))
        if len(waiting) > ahead:
            future, image_label = waiting.popleft()
            yield future.result(), image_label
    for future, image_label in waiting:
        yield future.result(), image_label


def _digest(images: Images, num_images: int) -> str:
    """The first 16 digits of the SHA-256 of pixels and labels."""
    digest = hashlib.sha256()
    for image, label in tqdm(
        images, desc="reading clean images", total=num_images, leave=False, disable=None
    ):
        digest.update(f"{image.shape} {label} ".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()[:16]
