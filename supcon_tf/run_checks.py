"""Checks before a run starts: its stages, its encoder, and whether it may resume."""

import inspect
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supcon_tf import config
from supcon_tf.errors import UserError, check_integer
from supcon_tf.files import write_text
from supcon_tf.reporting import write_report
from supcon_tf.run_dir import RunDir
from supcon_tf.stages import experiment
from supcon_tf.training.config import MINIMUM
from supcon_tf.training.encoder_io import encoder_digest, encoder_file

# Stage -> the setting of the encoder that it starts from.
_ENCODERS = {
    "pretrain": "pretrain.run.warm_start",
    "linear": "linear.run.encoder",
    "finetune": "finetune.run.encoder",
}


def named_stages() -> Sequence[str]:
    """The value of experiment.run.stages, or its default."""
    default = inspect.signature(experiment.run).parameters["stages"].default
    return config.bound_value("experiment.run.stages") or default


def named_evaluations() -> Sequence[str]:
    """The value of experiment.run.evaluations."""
    return config.bound_value("experiment.run.evaluations") or ()


def check_stages(settings: str) -> None:
    """Checks the arguments of all stages before the first one runs.

    Args:
      settings: the resolved configuration.

    Raises:
      UserError: an argument of a stage, or of an object that it takes, is not set; or a number is
        out of range.
    """
    modules = config.imported_modules(settings)
    # `experiment.run` rejects unknown stages.
    for stage in filter(experiment.STAGES.get, (*named_stages(), *named_evaluations())):
        _, *parameters = inspect.signature(experiment.STAGES[stage]).parameters.values()
        for parameter in parameters:
            name = f"{stage}.run.{parameter.name}"
            value = config.bound_value(name)
            if value is None and parameter.default is parameter.empty:
                raise UserError(f'{name} is not set: add --gin_param="{name} = ..."')
            config.check_arguments(name, modules)
            if value is not None and parameter.name in MINIMUM:
                check_integer(name, value, at_least=MINIMUM[parameter.name])
    _check_normalization()


def _check_normalization() -> None:
    """Raises a UserError if a stage scales images otherwise than its encoder was trained with."""
    if "pretrain" not in named_stages():
        return
    trained = _normalization("pretrain")
    for stage in ("linear", "finetune"):
        given = _normalization(stage)
        is_own = stage in named_stages() and config.bound_value(f"{stage}.run.encoder") is None
        if is_own and trained and given and given != trained:
            raise UserError(
                f"the encoder is trained with views.Preprocessing.normalization = {trained[0]}, "
                f"and {stage} has {given[0]}: set both to the same"
            )


def _normalization(stage: str) -> tuple[Any] | None:
    """The constants of a stage's preprocessing, in a tuple; None if they are known later only."""
    found = list(config.references(config.bound_value(f"{stage}.run.preprocessing")))
    if not found or config.selector_of(found[0]) != "views.Preprocessing":
        return None
    name = config.bound_name(found[0], "normalization")
    value = name and config.bound_value(name)
    return None if value == "measure" else (value,)


def check_encoder(run_dir: RunDir) -> None:
    """Checks that the stages that need an encoder find one, before they load images.

    Raises:
      UserError: no encoder, or as in `check_same_encoder`.
    """
    check_same_encoder(run_dir)
    stages = named_stages()
    for stage in {"linear", "finetune"}.intersection(stages) - run_dir.metrics().keys():
        encoder = config.bound_value(f"{stage}.run.encoder")
        if isinstance(encoder, str) or (encoder is None and "pretrain" not in stages):
            encoder_file(encoder or run_dir.root)


def check_same_encoder(run_dir: RunDir) -> None:
    """Checks that the stages continue with the encoders that they have started from.

    Raises:
      UserError: the file of an encoder has changed.
    """
    records = run_dir.encoders()
    for stage in filter(_ENCODERS.get, named_stages()):
        encoder = config.bound_value(_ENCODERS[stage])
        known = records.get(stage, {}).get("digest")
        if known and isinstance(encoder, str) and _digest_now(encoder) not in (None, known):
            raise UserError(
                f"the encoder {encoder!r} has changed since {stage} of {str(run_dir.root)!r} "
                "started from it: give another --workdir"
            )


def _digest_now(encoder: str) -> str | None:
    try:
        return encoder_digest(encoder)
    except (UserError, zipfile.BadZipFile):  # No fault, once the stage has finished.
        return None


def prepare(run_dir: RunDir, settings: str) -> None:
    """Checks that the run may start or resume, and writes its config.gin.

    Args:
      run_dir: a new directory, or the directory of a run to resume.
      settings: the resolved configuration.

    Raises:
      UserError: as in `check_resumable`, or a run without an intact config.gin.
    """
    if not run_dir.is_chief:
        return
    started = run_dir.started_stages()
    if not started:
        run_dir.remove_partial_files()
    elif not started <= {*experiment.EVALUATIONS} or run_dir.config.exists():
        check_resumable(run_dir, started, _settings_before(run_dir), settings)
    # Settings of stages that have not started may differ.
    if not (started and run_dir.config.exists()) or config.read_text(run_dir.config) != settings:
        write_text(run_dir.config, settings)
    if _measures_robustness() and not is_measured(run_dir, settings):
        run_dir.remove_metrics("robustness")  # Results with the same settings stay.


def _settings_before(run_dir: RunDir) -> str:
    """The settings of a run that has started.

    Raises:
      UserError: config.gin is missing or not complete.
    """
    file = run_dir.config
    text = config.read_text(file) if file.is_file() else ""
    if config.is_complete(text):
        return text
    raise UserError(
        f"{str(file)!r} is {'damaged' if text else 'missing or empty'}, so that the settings of "
        "this run are unknown: restore it, give another --workdir, or, if these are the settings "
        "that it had, write them there with --print_config"
    )


def check_resumable(run_dir: RunDir, started: set[str], before: str, after: str) -> None:
    """Rejects a resumed run if the settings of its started stages have changed.

    Settings of stages that have not started may change, and stages may be added. The stages that
    evaluate may always change: they repeat what they measured with other settings. How often
    checkpoints are saved and how many are kept may change too.

    Args:
      run_dir: the run directory.
      started: the stages that have started.
      before, after: resolved configurations.

    Raises:
      UserError: names the first setting that changed.
    """
    not_started = experiment.STAGES.keys() - started | {*experiment.EVALUATIONS}
    free = [f"{stage}{mark}" for stage in not_started for mark in "./"]
    saving = [f"{stage}.run.checkpoint" for stage in experiment.STAGES]
    ignored = (*free, *saving, "experiment.run.", "corruptions.", "shifted.", "classifiers.")
    changed = config.changed_setting(before, after, ignored=ignored)
    if changed is not None:
        raise UserError(
            f"{str(run_dir.root)!r} holds a run with other settings, {changed}: give another "
            "--workdir, or continue with the same settings"
        )


def report(run_dir: RunDir) -> Path:
    """Writes the report of a run that has finished.

    Raises:
      UserError: it cannot be written; the results are complete without it.
    """
    try:
        return write_report(run_dir)
    except OSError as error:
        raise UserError(
            f"the run has finished, but its report cannot be written ({error}): the same command "
            "writes it again"
        ) from error


# Accuracies of a pretrained encoder before training.
FROZEN = {
    "frozen_linear_top_1": "top-1",
    "frozen_knn_top_1": "kNN",
    "frozen_knn_mean_average_precision": "kNN mAP",
}


def accuracies(run_dir: RunDir) -> str:
    """The test accuracies of the last stage that classifies, as "linear top-1 0.912, kNN 0.874"."""
    names = {
        "top_1": "top-1",
        "probe_top_1": "probe",
        "mean_average_precision": "mAP",
        "knn_top_1": "kNN",
        "knn_mean_average_precision": "kNN mAP",
    }
    for stage, metrics in reversed(run_dir.metrics().items()):
        shown = [f"{names[key]} {metrics[key]:.3f}" for key in names if key in metrics]
        if stage in ("pretrain", "linear", "finetune") and shown:
            records = run_dir.encoders()
            # A stage without a record has the encoder that this run pretrained.
            record = records.get(stage, records.get("pretrain", {}))
            measured = record.get("frozen", {})
            frozen = [f"{FROZEN[key]} {measured[key]:.3f}" for key in FROZEN if key in measured]
            before = f"; frozen encoder {', '.join(frozen)}" if frozen else ""
            return f"{stage} {', '.join(shown)}{before}"
    return ""


def save_measured_settings(run_dir: RunDir, settings: str) -> None:
    """Records the settings that the robustness stage used, if it ran."""
    if _measures_robustness():
        write_text(run_dir.evaluation_config, settings)


def _measures_robustness() -> bool:
    return "robustness" in (*named_stages(), *named_evaluations())


def is_measured(run_dir: RunDir, settings: str) -> bool:
    """Whether the robustness stage last ran with these settings."""
    file = run_dir.evaluation_config
    return file.is_file() and config.is_same_measurement(config.read_text(file), settings)
