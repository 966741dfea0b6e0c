"""How much a method's accuracy depends on its settings: many runs, one factor changed at a time."""

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
# Factor -> level -> the gin bindings that make it; the first level of each is its default.
Grid = Mapping[str, Mapping[str, Sequence[str]]]
# Gin files, bindings, the run's folder, what it holds as long as it runs, its share of the threads
# -> top-1 accuracy, or mean average precision where images have several labels.
Trial = Callable[[Sequence[str], Sequence[str], Path, int, int], float]


class TrialFailed(RuntimeError):
    """A run that ended without a result; the study goes on and counts it."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a study.

    Args:
      method: its name.
      levels: factor -> the level it has.
      folder: the name of its folder, which says method and settings.
      files: gin files.
      bindings: gin bindings.
      top_1: its accuracy; None where it has none.
    """

    method: str
    levels: dict[str, str]
    folder: str
    files: list[str]
    bindings: list[str]
    top_1: float | None = None

    @property
    def key(self) -> str:
        """What a result belongs to: a changed binding makes it another one."""
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
) -> list[Point]:
    """Runs every point of a grid that has no result yet and returns all of them.

    Khosla et al. 2020, Figure 4, compares methods in this way. Optuna keeps which runs wait, run,
    finished and failed in study.journal; each is a process and a folder of its own below trials/,
    so that a killed study goes on with the checkpoints that they left. Runs that failed are tried
    again by the next call.

    Args:
      root: the study's folder.
      methods: name -> its gin files.
      grid: factor -> level -> gin bindings; the first level of each factor is the default.
      design: "one_at_a_time": all defaults, and every other level with the other factors at
        theirs; "product": every combination.
      only: factor -> the methods that have it, where not all do, such as a temperature.
      bindings: for every run.
      processes: runs at a time, which share the processors: on a CPU, small models get through
        more images in several runs of a thread each than in one run after the other.
      trial: makes one run, as `supcon_tf.study.train_in_subprocess`.

    Raises:
      UserError: a design that is not known, a factor without a level, or processes < 1.
      UserError: Optuna is missing, or another process works on this study.
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
                f"the study in {str(root)!r} is at work, or a run of it goes on after a kill: wait "
                "for it to end"
            ) from None

        def top_1_of(point: Point) -> float:
            folder = root / "trials" / point.folder
            threads = max(1, (os.cpu_count() or 1) // processes)
            _make_room(folder, point.key)
            return trial(point.files, point.bindings, folder, lock.fileno(), threads)

        accuracies = _optimized(root / "study.journal", wanted, top_1_of, processes)
    return [dataclasses.replace(point, top_1=accuracies.get(point.key)) for point in wanted]


def points(
    methods: Mapping[str, Sequence[str]],
    grid: Grid,
    *,
    design: Design,
    only: Mapping[str, Sequence[str]],
    bindings: Sequence[str] = (),
) -> list[Point]:
    """The runs of a study, without results; arguments and errors as in `run`."""
    if design not in get_args(Design):
        raise UserError(f"study.run.design must be one of {get_args(Design)}, got {design!r}")
    for name in only:
        if name not in grid:
            raise UserError(f"study.run.only names no factor: {name!r}, known are {tuple(grid)}")
    for factor, levels in grid.items():
        if not levels:
            raise UserError(f"study.run.grid needs a level of {factor!r}, its default")
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
            # What was changed comes last and wins over a default that sets the same.
            in_order = sorted(levels.items(), key=lambda item: item[1] != defaults[item[0]])
            of_levels = [binding for f, level in in_order for binding in grid[f][level]]
            found.append(
                Point(
                    method=method,
                    levels=levels,
                    folder=re.sub(r"[^\w.=-]+", "_", name),
                    files=list(files),
                    bindings=[*bindings, *of_levels],
                )
            )
    return found


def accuracy(metrics: Mapping[str, Mapping[str, float]]) -> float | None:
    """Of a run's last classifying stage: top-1, or mean average precision; None without one."""
    measures = ("top_1", "mean_average_precision")
    found = [stage[name] for stage in metrics.values() for name in measures if name in stage]
    return float(found[-1]) if found else None


def made_for(folder: Path) -> str | None:
    """The `Point.key` of the run in a folder; None where there is none."""
    file = _key_file(folder)
    return file.read_text() if file.exists() else None


def _key_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.key")  # A name may hold a dot.


def _make_room(folder: Path, key: str) -> None:
    """Sets a folder aside that holds a run with other bindings, which the study had before."""
    if folder.exists() and made_for(folder) not in (None, key):
        numbers = (f"{folder.name}.{number}" for number in itertools.count(1))
        folder.rename(next(new for name in numbers if not (new := folder.with_name(name)).exists()))
    _key_file(folder).write_text(key)


def _optimized(
    journal: Path,
    wanted: Sequence[Point],
    top_1_of: Callable[[Point], float],
    processes: int,
) -> dict[str, float]:
    """Runs what Optuna's journal has no result of; key -> result of all that have one."""
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

    def of_state(state: optuna.trial.TrialState) -> dict[str, optuna.trial.FrozenTrial]:
        trials = study.get_trials(deepcopy=False, states=(state,))
        return {trial.user_attrs["key"]: trial for trial in trials}

    # Under the lock nothing runs: what is said to was killed.
    for interrupted in of_state(states.RUNNING).values():
        study.tell(interrupted.number, state=states.FAIL)
    known = of_state(states.COMPLETE).keys() | of_state(states.WAITING).keys()
    by_key = {point.key: point for point in wanted}
    for key in by_key:
        if key not in known:
            study.enqueue_trial({}, user_attrs={"key": key})
    waiting = of_state(states.WAITING)
    print(f"study: {len(wanted)} runs, {len(waiting.keys() & by_key)} to do", flush=True)

    def objective(trial: optuna.Trial) -> float:
        point = by_key.get(trial.user_attrs["key"])
        if point is None:
            raise optuna.TrialPruned("of a grid that has changed")
        print(f"{point.folder}: begins", flush=True)
        try:
            top_1 = top_1_of(point)
        except TrialFailed as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            raise
        print(f"{point.folder}: top-1 {top_1:.4f}", flush=True)
        return top_1

    if waiting:
        study.optimize(objective, n_trials=len(waiting), n_jobs=processes, catch=TrialFailed)
    return {key: trial.values[0] for key, trial in of_state(states.COMPLETE).items()}
