"""Corrupted images made from a source's own, in several processes, and kept on disk if wanted."""

import collections
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.corruptions.base import Cell, CorruptedImages, Images, select_examples
from supcon_tf.data.corruptions.imagenet_c import corrupt
from supcon_tf.data.corruptions.process_pool import process_pool
from supcon_tf.data.disk_cache import cached_split
from supcon_tf.data.sources.base import Source
from supcon_tf.errors import UserError

# So many images for each process are corrupted or wait to be, which bounds the memory.
_AHEAD = 16


def on_the_fly(
    source: Source,
    *,
    cells: list[Cell],
    num_images: int,
    seed: int,
    processes: int | None = None,
    cache_dir: str | None = None,
) -> CorruptedImages:
    """The held-out images of a source, corrupted as they are asked for.

    An image's corruption is a function of (seed, its place, corruption, severity), so that any
    number of processes makes the same images. The library draws from NumPy's global generator:
    hence processes and not threads. A script that uses more than one needs the usual
    `if __name__ == "__main__":`.

    Args:
      source: with a held-out split.
      cells: not looked at, as all can be made.
      num_images: the first so many of the shuffled held-out images.
      seed: of that order and of the corruptions.
      processes: None is one for each core; with 1 this process itself does it.
      cache_dir: a folder to keep the images in as PNG, some 3 KB each at 32 px and 100 KB at
        224 px. They are found again by the content of the clean images, never by a name alone.

    Raises:
      UserError: fewer than one process.
    """
    if processes is not None and processes < 1:
        raise UserError(f"corruptions.on_the_fly.processes must be >= 1 or None, got {processes}")
    count = processes or os.cpu_count() or 1
    pool = process_pool(count) if count > 1 else None

    # Made once, as tracing it takes longer than corrupting some images.
    clean = select_examples(source.test, num_images=num_images, seed=seed)

    def corrupted(corruption: str, severity: int) -> Images:
        images = clean.as_numpy_iterator()
        yield from _corrupted(
            images, corruption, severity, seed=seed, pool=pool, ahead=_AHEAD * count
        )

    if cache_dir is None:
        return CorruptedImages("on the fly", corrupted)
    made_by = f"{importlib.metadata.version('imagecorruptions-imaug')}-{seed}"
    content = _digest(clean.as_numpy_iterator(), num_images)
    root = Path(cache_dir).expanduser() / f"{source.name.replace('/', '-')}-{content}-{made_by}"

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
        # One by one they are read twice as fast as through tf.data.
        for number, label in enumerate(split.labels):
            yield tf.io.decode_png(split.read(tf.constant(number)), 3).numpy(), label

    return CorruptedImages("on the fly", cached)


def _corrupted(
    clean: Images, corruption: str, severity: int, *, seed: int, pool: Executor | None, ahead: int
) -> Images:
    """Corrupted images in the order of the clean ones; in a pool so many of them at once."""
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
            future, of_image = waiting.popleft()
            yield future.result(), of_image
    for future, of_image in waiting:
        yield future.result(), of_image


def _digest(images: Images, num_images: int) -> str:
    """SHA-256 of pixels and labels, in short."""
    digest = hashlib.sha256()
    for image, label in tqdm(
        images, desc="reading clean images", total=num_images, leave=False, disable=None
    ):
        digest.update(f"{image.shape} {label} ".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()[:16]
