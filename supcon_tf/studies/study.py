"""Studies: how a method's accuracy depends on its settings, by many runs."""

import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from supcon_tf.errors import UserError

Design = Literal["one_at_a_time", "product"]
# Factor -> level -> gin bindings; the first level of each factor is the default.
Grid = Mapping[str, Mapping[str, Sequence[str]]]
# Of a run directory.
State = Literal["finished", "unfinished", "other settings"]
# Gin files, bindings, run directory, a lock to hold while it runs, number of threads
# -> top-1 accuracy, or mean average precision if images have several labels.
Trial = Callable[[Sequence[str], Sequence[str], Path, int, int], float]


class TrialFailed(RuntimeError):
    """A run that ended without a result. The study continues and counts it."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a study.

    Args:
      method: name of the method.
      levels: factor -> level.
      folder: name of its run directory, from method and settings.
      files: gin files.
      bindings: gin bindings.
      top_1: accuracy, or None without a result.
    """

    method: str
    levels: dict[str, str]
    folder: str
    files: list[str]
    bindings: list[str]
    top_1: float | None = None

    @property
    def key(self) -> str:
        """Identifies the run: another binding makes another run."""
        return json.dumps([self.folder, self.files, self.bindings])


def run(
    root: Path,
    *,
    methods: Mapping[str, Sequence[str]],
    grid: Grid,
    design: Design = "one_at_a_time",
    only: Mapping[str, Sequence[str]] | None = None,
    bindings: Sequence[str] = (),
    processes: int = 1,
    trial: Trial,
    state: Callable[[Point, Path], State] = lambda point, folder: "finished",
) -> list[Point]:
    """Runs every point of a grid that has no result yet and returns all of them.

    Khosla et al. 2020, Figure 4, compares methods in this way. Optuna records in study.journal
    which runs wait, run, finished and failed. Each run has its own directory below trials/, so that
    a study that was killed continues from the checkpoints of its runs. The next call repeats runs
    that failed.

    Args:
      root: directory of the study.
      methods: name -> its gin files.
      grid: factor -> level -> gin bindings; the first level of each factor is the default.
      design: "one_at_a_time": all defaults, and every other level with the other factors at their
        defaults; "product": every combination.
      only: factor -> the methods that have it, for a factor such as the temperature that not all
        have.
      bindings: bindings of every run.
      processes: runs at a time, which share the processors. On a CPU, several runs of small models
        with one thread each are faster than one run after the other.
      trial: makes one run, as `supcon_tf.study.train_in_subprocess`.
      state: of the run in a directory. One of "other settings" than the point's files have now is
        renamed, and the point runs again; one that is "unfinished" continues.

    Raises:
      UserError: an unknown design or factor, a factor without levels, processes < 1, Optuna is
        missing, or another process runs this study.
    """
    import fcntl  # Not on Windows.

    if processes < 1:
        raise UserError(f"study.run.processes must be >= 1, got {processes}")
    wanted = points(methods, grid, design=design, only=only or {}, bindings=bindings)
    (root / "trials").mkdir(parents=True, exist_ok=True)
    with (root / "study.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the study in {str(root)!r} is running, or one of its runs is: wait for it to end"
            ) from None

        unfinished = {
            point.key
            for point in wanted
            if _is_unfinished(point, root / "trials" / point.folder, state)
        }

        def run_point(point: Point) -> float:
            folder = root / "trials" / point.folder
            threads = max(1, (os.cpu_count() or 1) // processes)
            if folder.exists() and made_for(folder) not in (None, point.key):
                _set_aside(folder)  # It has other bindings, from an earlier grid.
            _key_file(folder).write_text(point.key)
            return trial(point.files, point.bindings, folder, lock.fileno(), threads)

        accuracies = _optimized(root / "study.journal", wanted, unfinished, run_point, processes)
        for point in wanted:  # The journal still has the result from before.
            folder = root / "trials" / point.folder
            if point.key in unfinished and state(point, folder) != "finished":
                accuracies.pop(point.key, None)
    return [dataclasses.replace(point, top_1=accuracies.get(point.key)) for point in wanted]


def points(
    methods: Mapping[str, Sequence[str]],
    grid: Grid,
    *,
    design: Design,
    only: Mapping[str, Sequence[str]],
    bindings: Sequence[str] = (),
) -> list[Point]:
    """The runs of a study, without results. Arguments and errors are those of `run`."""
    if design not in get_args(Design):
        raise UserError(f"study.run.design must be one of {get_args(Design)}, got {design!r}")
    if not methods:
        raise UserError("study.run.methods needs at least one method, got none")
    for name, having in only.items():
        if name not in grid:
            raise UserError(
                f"study.run.only has an unknown factor {name!r}, known are {tuple(grid)}"
            )
        if unknown := [method for method in having if method not in methods]:
            raise UserError(
                f"study.run.only has an unknown method {unknown[0]!r}, known are {tuple(methods)}"
            )
    for factor, levels in grid.items():
        if not levels:
            raise UserError(f"study.run.grid needs at least one level of {factor!r}, the default")
    defaults = {factor: next(iter(levels)) for factor, levels in grid.items()}
    found = []
    for method, files in methods.items():
        own = {
            factor: list(levels) if method in only.get(factor, methods) else [defaults[factor]]
            for factor, levels in grid.items()
        }
        if design == "product":
            chosen = [dict(zip(own, levels)) for levels in itertools.product(*own.values())]
        else:
            one_changed = [{**defaults, f: level} for f in own for level in own[f][1:]]
            chosen = [defaults, *one_changed]
        for levels in chosen:
            changed = [f"{f}={level}" for f, level in levels.items() if level != defaults[f]]
            name = "--".join([method, *(changed or ["default"])])
            # The changed level comes last and wins over a default that sets the same name.
            in_order = sorted(levels.items(), key=lambda item: item[1] != defaults[item[0]])
            level_bindings = [binding for f, level in in_order for binding in grid[f][level]]
            found.append(
                Point(
                    method=method,
                    levels=levels,
                    folder=re.sub(r"[^\w.=-]+", "_", name),
                    files=list(files),
                    bindings=[*bindings, *level_bindings],
                )
            )
    return found


def accuracy(metrics: Mapping[str, Mapping[str, float]]) -> float | None:
    """Top-1 or mean average precision of a run's last classifying stage; None without one."""
    measures = ("top_1", "mean_average_precision")
    found = [stage[name] for stage in metrics.values() for name in measures if name in stage]
    return float(found[-1]) if found else None


def made_for(folder: Path) -> str | None:
    """The `Point.key` of the run in a directory, or None."""
    file = _key_file(folder)
    return file.read_text() if file.exists() else None


def _key_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.key")  # A name may hold a dot.


def _is_unfinished(point: Point, folder: Path, state: Callable[[Point, Path], State]) -> bool:
    """Whether a point that has a run directory must run; one of other settings is set aside."""
    if made_for(folder) != point.key or not folder.exists():
        return False
    found = state(point, folder)
    if found == "other settings":
        print(f"{point.folder}: set aside, runs again", flush=True)
        _set_aside(folder)
        folder.mkdir()
    return found != "finished"


def _set_aside(folder: Path) -> None:
    """Renames a run directory, so that its point can run anew."""
    numbers = (f"{folder.name}.{number}" for number in itertools.count(1))
    folder.rename(next(new for name in numbers if not (new := folder.with_name(name)).exists()))


def _optimized(
    journal: Path,
    wanted: Sequence[Point],
    unfinished: set[str],
    run_point: Callable[[Point], float],
    processes: int,
) -> dict[str, float]:
    """Runs the points without a result in Optuna's journal, or that are unfinished.

    Returns:
      The result of each key.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UserError(f"studies need Optuna ({error}): pip install '.[study]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    states = optuna.trial.TrialState
    study = optuna.create_study(
        study_name="study",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
        direction="maximize",
        load_if_exists=True,
    )

    def trials_in(state: optuna.trial.TrialState) -> dict[str, optuna.trial.FrozenTrial]:
        trials = study.get_trials(deepcopy=False, states=(state,))
        return {trial.user_attrs["key"]: trial for trial in trials}

    # The lock is held, so that trials recorded as running were killed.
    for interrupted in trials_in(states.RUNNING).values():
        study.tell(interrupted.number, state=states.FAIL)
    known = trials_in(states.COMPLETE).keys() - unfinished | trials_in(states.WAITING).keys()
    by_key = {point.key: point for point in wanted}
    for key in by_key:
        if key not in known:
            study.enqueue_trial({}, user_attrs={"key": key})
    waiting = trials_in(states.WAITING)
    print(f"study: {len(wanted)} runs, {len(waiting.keys() & by_key)} to do", flush=True)

    def objective(trial: optuna.Trial) -> float:
        point = by_key.get(trial.user_attrs["key"])
        if point is None:
            raise optuna.TrialPruned("it belongs to an earlier grid")
        print(f"{point.folder}: starts", flush=True)
        try:
            top_1 = run_point(point)
        except TrialFailed as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            raise
        print(f"{point.folder}: top-1 {top_1:.4f}", flush=True)
        return top_1

    if waiting:
        study.optimize(objective, n_trials=len(waiting), n_jobs=processes, catch=TrialFailed)
    return {key: trial.values[0] for key, trial in trials_in(states.COMPLETE).items()}
