"""The images of a finished run, for the commands that use them again."""

import copy

from supcon_tf import config
from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.training.run_data import STAGES, recorded_images


def run_source(run_dir: RunDir, *, trust: bool) -> Source:
    """The images of a run's last finished stage, in the splits that it recorded.

    Images that were added since then are training images.

    Args:
      run_dir: the run directory.
      trust: let its config.gin import and call any Python code.

    Raises:
      UserError: no finished stage, a config.gin that is not trusted or names no images, or images
        that cannot be read.
    """
    finished = [stage for stage in run_dir.metrics() if stage in STAGES]
    if not finished:
        raise UserError(f"no results of a finished stage in {str(run_dir.metrics_file)!r}")
    if not trust:
        config.check_untrusted(run_dir.config)
    config.parse([str(run_dir.config)], [])
    source = copy.deepcopy(config.bound_value(f"{finished[-1]}.run.source"))  # gin calls it.
    if not isinstance(source, Source):
        raise UserError(f"no source of the images of {finished[-1]} in {str(run_dir.config)!r}")
    return recorded_images(run_dir, finished[-1], source)
