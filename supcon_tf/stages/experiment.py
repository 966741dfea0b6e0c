"""A run: the named stages in their order."""

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
    folder: RunDir,
    *,
    stages: Sequence[str] = ("pretrain", "linear"),
    evaluations: Sequence[str] = (),
    configured: Callable[[Callable[..., None]], Callable[..., None]],
) -> None:
    """Runs the stages that are not finished yet.

    Args:
      folder: the run's.
      stages: names in the order to run.
      evaluations: more of them, for after those: what a gin file for any experiment adds.
      configured: gives a stage's function its arguments other than the folder.

    Raises:
      UserError: an unknown stage, or none.
      UserError: another worker died.
    """
    if isinstance(evaluations, str) or not set(evaluations) <= STAGES.keys():
        raise UserError(
            f"experiment.run.evaluations must name some of {tuple(STAGES)}, such as "
            f"('robustness',), got {evaluations!r}"
        )
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages or isinstance(stages, str):
        raise UserError(
            f"experiment.run.stages must name some of {tuple(STAGES)}, such as ('pretrain',), got "
            f"{stages!r}"
        )
    if "robustness" in stages[:-1]:
        raise UserError(
            "experiment.run.stages must have 'robustness' at its end, as it is of the classifier "
            f"that was trained last, got {tuple(stages)}"
        )
    for stage in dict.fromkeys((*stages, *evaluations)):
        results = folder.metrics().get(stage)
        if results is not None:
            print(f"{stage}: finished before, in {results['seconds']:.0f} s")
            continue
        if stage == "robustness" and not folder.is_chief:
            continue  # It trains nothing, so that one worker does it.
        try:
            configured(STAGES[stage])(folder)
        except (tf.errors.UnavailableError, tf.errors.AbortedError):
            # Between epochs too: while models are built, and while one worker evaluates.
            raise UserError(
                f"another worker is gone in {stage}: start the same command on all workers again, "
                "and the run goes on from its last checkpoint"
            ) from None
