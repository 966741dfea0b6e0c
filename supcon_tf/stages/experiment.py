"""Runs the stages of an experiment one after the other."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import finetune, linear, pretrain, robustness

STAGES: dict[str, Callable[..., None]] = {
    "pretrain": pretrain.run,
    "linear": linear.run,
    "finetune": finetune.run,
    "robustness": robustness.run,
}


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
      UserError: unknown stages, none, or "robustness" before another one; or another worker died.
    """
    _check_names(stages, evaluations)
    for stage in dict.fromkeys((*stages, *evaluations)):
        results = run_dir.metrics().get(stage)
        if results is not None:
            print(f"{stage}: finished before, in {results['seconds']:.0f} s")
            continue
        if stage == "robustness" and not run_dir.is_chief:
            continue  # It trains nothing: one worker runs it.
        try:
            configured(STAGES[stage])(run_dir)
        except (tf.errors.UnavailableError, tf.errors.AbortedError):
            # Also between epochs: while models are built, and while one worker evaluates.
            raise UserError(
                f"another worker died in {stage}: start the same command on all workers again, and "
                "the run continues from its last checkpoint"
            ) from None


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
    if "robustness" in stages[:-1]:
        raise UserError(
            "experiment.run.stages must have 'robustness' last, as it measures the classifier that "
            f"was trained before it, got {tuple(stages)}"
        )
