"""Files for TensorBoard's projector: embeddings, what is known of each image, and its picture."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from supcon_tf.data.image_formats import read_encoded
from supcon_tf.errors import UserError
from supcon_tf.evaluation.prediction_files import Outputs, columns_of
from supcon_tf.evaluation.thumbnails import THUMBNAIL_PX, thumbnails

# TensorBoard shows no larger picture.
MAX_SPRITE_PX = 8192
_NO_SEPARATORS = str.maketrans("\t\n\r", "   ")
_CONFIG = """\
embeddings {{
  tensor_name: "embedding"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def check_new_directory(folder: Path) -> None:
    """Checks that a directory is new or empty.

    Raises:
      UserError: a file, or a directory with files.
    """
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} is not empty: give a new directory")


@contextlib.contextmanager
def open_projector(folder: Path, *, max_images: int) -> Iterator["ProjectorWriter"]:
    """A writer of a directory that is complete at the end, and not there after an error."""
    folder = folder.resolve()  # "." has no name.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with contextlib.closing(ProjectorWriter(partial, max_images=max_images)) as writer:
            yield writer
            writer.finish()
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def picture_px(per_row: int) -> int:
    """Side of each picture if there are this many in a row."""
    return max(1, min(THUMBNAIL_PX, MAX_SPRITE_PX // per_row))


class ProjectorWriter:
    """Writes tensors.tsv, metadata.tsv, sprite.png and projector_config.pbtxt.

    Args:
      folder: an existing directory.
      max_images: the pictures are smaller for more images.
    """

    def __init__(self, folder: Path, *, max_images: int):
        self.folder = folder
        self.per_row = math.ceil(math.sqrt(max_images))
        self.side_px = picture_px(self.per_row)
        # [row of pictures, y, column, x, colour]
        self.sprite = np.zeros(
            (self.per_row, self.side_px, self.per_row, self.side_px, 3), np.uint8
        )
        self.count = 0
        self.tensors, self.metadata = (
            (folder / name).open("w", encoding="utf-8", errors="backslashreplace")
            for name in ("tensors.tsv", "metadata.tsv")
        )

    def add(self, paths: Sequence[str], outputs: Outputs) -> None:
        """Adds images: their outputs as `columns_of` names them, and the folder of each."""
        columns = {
            **columns_of(paths, outputs),
            "folder": [Path(path).parent.name for path in paths],
        }
        if not self.count:
            self.metadata.write("\t".join(columns) + "\n")
        for row in zip(*columns.values(), strict=True):
            cells = [str(cell).translate(_NO_SEPARATORS) for cell in row]
            self.metadata.write("\t".join(cells) + "\n")
        np.savetxt(self.tensors, outputs["embedding"], fmt="%.8g", delimiter="\t")
        pictures = thumbnails(
            (tf.constant(read_encoded(path)) for path in paths), side_px=self.side_px
        )
        rows, places = np.divmod(self.count + np.arange(len(paths)), self.per_row)
        self.sprite[rows, :, places] = pictures
        self.count += len(paths)

    def finish(self) -> None:
        """Writes the pictures and the configuration."""
        num_rows = math.ceil(self.count / self.per_row)
        width = self.per_row * self.side_px
        sprite = self.sprite[:num_rows].reshape(num_rows * self.side_px, width, 3)
        (self.folder / "sprite.png").write_bytes(tf.io.encode_png(sprite).numpy())
        config = _CONFIG.format(side=self.side_px)
        (self.folder / "projector_config.pbtxt").write_text(config, encoding="utf-8")

    def close(self) -> None:
        """Closes the files."""
        self.tensors.close()
        self.metadata.close()
