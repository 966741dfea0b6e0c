"""Image files in class folders: found, and checked before a run depends on them."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from supcon_tf.data.views import decode

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def images_by_class(root: Path) -> dict[str, list[str]]:
    """The image files in each class folder, sorted."""
    files = {}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        files[entry.name] = sorted(
            file.path
            for file in os.scandir(entry.path)
            if file.name.lower().endswith(IMAGE_SUFFIXES) and not file.name.startswith(".")
        )
        if not files[entry.name]:
            raise ValueError(
                f"the class folder {entry.path!r} has no image: add some "
                f"({', '.join(IMAGE_SUFFIXES)}) or remove it"
            )
    if len(files) < 2:
        found = f"only {next(iter(files))!r}" if files else "none"
        raise ValueError(
            f"at least two class folders are needed in {str(root)!r}, found {found}: "
            "one folder of images per class"
        )
    return files


def without_unreadable(files: Mapping[str, list[str]], limit: float) -> dict[str, list[str]]:
    """Decodes every image once; names, counts and leaves out those that fail."""
    paths = [path for of_class in files.values() for path in of_class]
    if not paths:
        return {}
    with ThreadPoolExecutor() as threads:
        progress = tqdm(
            threads.map(_is_readable, paths),
            desc="checking images",
            total=len(paths),
            unit="image",
            leave=False,
            disable=None,
        )
        outcomes = list(progress)
    unreadable = {path for path, readable in zip(paths, outcomes, strict=True) if not readable}
    if len(unreadable) > limit * len(paths):
        raise ValueError(
            f"{len(unreadable)} of {len(paths)} images cannot be read, first "
            f"{min(unreadable)!r}: repair or remove them, or raise sources.folder.unreadable_limit"
        )
    if unreadable:
        tqdm.write(
            f"left out {len(unreadable)} of {len(paths)} images that cannot be read: "
            + ", ".join(sorted(unreadable)[:5])
            + (", ..." if len(unreadable) > 5 else "")
        )
    return {
        name: [path for path in of_class if path not in unreadable]
        for name, of_class in files.items()
    }


def _is_readable(path: str) -> bool:
    try:
        return bool(tf.size(decode(tf.io.read_file(path))) > 0)
    except tf.errors.OpError:
        return False
