"""Runs the stages of an experiment one after the other."""

import dataclasses
import itertools
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.json_files import check_checksums
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import finetune, linear, pretrain, robustness, shifts
from supcon_tf.training.checkpoint import restore_curves
from supcon_tf.training.run_data import spoiled_images

STAGES: dict[str, Callable[..., None]] = {
    "pretrain": pretrain.run,
    "linear": linear.run,
    "finetune": finetune.run,
    "robustness": robustness.run,
    "shifts": shifts.run,
}
# The stages that measure the classifier and train nothing.
EVALUATIONS = ("robustness", "shifts")


def run(
    run_dir: RunDir,
    *,
    stages: Sequence[str] = ("pretrain", "linear"),
    evaluations: Sequence[str] = (),
    configured: Callable[[Callable[..., None]], Callable[..., None]],
) -> None:
    """Runs the stages that are not finished yet.

    Args:
      run_dir: the run directory.
      stages: names of stages, in the order to run.
      evaluations: names of stages to run after those, for gin files that are added to others.
      configured: returns a stage's function with all arguments set but the run directory.

    Raises:
      UserError: unknown stages, none, or one that trains after one that evaluates; another worker
        died; or images can no longer be read.
    """
    _check_names(stages, evaluations)
    in_order = list(dict.fromkeys((*stages, *evaluations)))
    restore_curves(run_dir)
    _forget_damaged_models(run_dir, in_order)
    for number, stage in enumerate(in_order):
        results = run_dir.metrics().get(stage)
        # The shifts stage knows which sets it has measured.
        if results is not None and stage != "shifts":
            print(f"{stage}: finished before, in {results.get('seconds', 0):.0f} s")
            continue
        if stage in EVALUATIONS and not run_dir.is_chief:
            continue  # One worker runs it.
        start = time.time()
        current = dataclasses.replace(run_dir, next_stages=tuple(in_order[number + 1 :]))
        # Models among the arguments are built before the stage sets its own seed and precision.
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy("float32")
        try:
            configured(STAGES[stage])(current)
        except (tf.errors.UnavailableError, tf.errors.AbortedError):
            # Also between epochs: while models are built, and while one worker evaluates.
            raise UserError(
                f"another worker died in {stage}: start the same command on all workers again, and "
                "the run continues from its last checkpoint"
            ) from None
        except tf.errors.OpError:
            spoiled = spoiled_images(run_dir, stage, since=start)
            if not spoiled:
                raise
            raise UserError(
                f"{len(spoiled)} images of {stage} can no longer be read, first {spoiled[0]!r}: "
                "restore them, and the same command continues from the last checkpoint"
            ) from None


def _forget_damaged_models(run_dir: RunDir, stages: Sequence[str]) -> None:
    """Removes the results from the first stage on whose model or export is damaged.

    These stages are then restored from their checkpoints and measured again.
    """
    results = run_dir.metrics()
    finished = [name for name in stages if name in results and run_dir.model(name).exists()]
    damaged = {
        name: run_dir.model(name) for name in finished if not _is_intact(run_dir.model(name))
    }
    if finished and not damaged and not (run_dir.metrics_only or _is_whole(run_dir.export)):
        damaged[finished[-1]] = run_dir.export  # The last one replaced it.
    for stage, file in list(damaged.items())[:1]:
        fault = "damaged" if file.exists() else "missing"
        print(f"{str(file)!r} is {fault}: it is made again from the checkpoints of {stage}")
        for later in stages[stages.index(stage) :]:
            run_dir.remove_metrics(later)


def _is_whole(folder: Path) -> bool:
    """Whether a folder exists and has the checksums that it was written with."""
    if not folder.is_dir():
        return False
    try:
        check_checksums(folder)
    except UserError:
        return False
    return True


def _is_intact(file: Path) -> bool:
    """Whether the checksums in a .keras file are right."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        return False


def _check_names(stages: Sequence[str], evaluations: Sequence[str]) -> None:
    for name, chosen, example in (
        ("stages", stages, "('pretrain',)"),
        ("evaluations", evaluations, "('robustness',)"),
    ):
        if isinstance(chosen, str) or not set(chosen) <= STAGES.keys():
            raise UserError(
                f"experiment.run.{name} must be some of {tuple(STAGES)}, such as {example}, got "
                f"{chosen!r}"
            )
    if not stages:
        raise UserError("experiment.run.stages must name at least one stage, got none")
    for stage, later in itertools.pairwise(stages):
        if stage in EVALUATIONS and later not in EVALUATIONS:
            raise UserError(
                f"experiment.run.stages must have {stage!r} last, as it measures the classifier "
                f"that was trained before it, got {tuple(stages)}"
            )
