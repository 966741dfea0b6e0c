"""Finds gin files, reads them and inserts the files that they include."""

import re
from collections.abc import Sequence
from pathlib import Path

from supcon_tf.config.names import nearest
from supcon_tf.config.resolved import upgraded
from supcon_tf.errors import UserError
from supcon_tf.files import expanded

# The imports of every gin text.
IMPORTS = """
from __gin__ import dynamic_registration
import keras
from supcon_tf import distribution
from supcon_tf import losses
from supcon_tf import models
from supcon_tf import optimizers
from supcon_tf.data import corruptions
from supcon_tf.data import mixing
from supcon_tf.data import multi_crop
from supcon_tf.data import pipeline
from supcon_tf.data import semi_supervised
from supcon_tf.data import shifted
from supcon_tf.data import sources
from supcon_tf.data import views
from supcon_tf.evaluation import classifiers
from supcon_tf.models import momentum_memory
from supcon_tf.models import swav
from supcon_tf.stages import experiment
from supcon_tf.stages import finetune
from supcon_tf.stages import linear
from supcon_tf.stages import pretrain
from supcon_tf.stages import robustness
from supcon_tf.stages import shifts
from supcon_tf.studies import study
"""


def find(file: str, *, beside: Path | None = None) -> Path:
    """The gin file at a path, or the shipped one of that name.

    Args:
      file: its path or name.
      beside: the file that includes it, if one does: then paths start from the nearest directory
        gin_configs above that file, or from its own directory.

    Raises:
      UserError: neither is there.
    """
    expanded(file)  # Rejects names that are no paths.
    roots = [Path()]
    if beside is not None:
        own, *above = beside.resolve().parents
        named = (folder for folder in (own, *above) if folder.name == "gin_configs")
        roots = [next(named, own), own]
    for root in roots:
        if (root / file).is_file():
            return root / file
    below = file.split("gin_configs/")[-1]
    shipped = _shipped()
    if (shipped / below).is_file():
        return shipped / below
    names = [str(path.relative_to(shipped)) for path in sorted(shipped.glob("*/*.gin"))]
    is_directory = Path(file).is_dir()
    missing = f"{file!r} is a directory" if is_directory else f"no gin file {file!r}"
    raise UserError(f"{missing}{nearest(below, names)}")


def _shipped() -> Path:
    """gin_configs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "gin_configs"
    return inside if inside.is_dir() else package.parent / "gin_configs"


def read_text(file: Path) -> str:
    """The text of a gin file, with current names if it is the config.gin of an old run.

    Raises:
      UserError: not UTF-8.
    """
    try:
        return upgraded(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"the gin file {str(file)!r} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from None


def with_includes(file: Path, including: Sequence[Path] = (), *, within: Path | None = None) -> str:
    """The file's text with the included files in their places.

    Gin itself parses an included file separately, where the imports of the including file are
    unknown, and the other way round; in one text, the imports above hold for all.

    Args:
      file: to read.
      including: the files that include it, resolved.
      within: a directory; only files in it and shipped files may be included. None for any.

    Raises:
      UserError: a file that is empty, not UTF-8, not there, or includes itself.
    """
    allowed = () if within is None else (within.resolve(), _shipped().resolve())
    if allowed and not any(file.resolve().is_relative_to(folder) for folder in allowed):
        raise UserError(f"{str(file)!r} is outside of {str(within)!r}: include no other files")
    if file.resolve() in including:
        raise UserError(f"{str(file)!r} includes itself")
    text = read_text(file)
    if not text.strip():
        raise UserError(f"the gin file {str(file)!r} is empty")
    # A resolved config.gin has the imports too, and gin does not take them twice.
    known = IMPORTS.splitlines()
    text = "".join(
        line for line in text.splitlines(True) if not line.strip() or line.strip() not in known
    )
    include = r"""^include\s+(['"])(.+?)\1[ \t]*(?:#.*)?$"""

    def included(match: re.Match[str]) -> str:
        found = find(match[2], beside=file)
        return with_includes(found, (*including, file.resolve()), within=within)

    return re.sub(include, included, text, flags=re.M)
