"""Tables and a picture of a study with few labels, such as gin_configs/studies/few_labels.gin.

The study has the factors "labels", with levels SET NUMBER such as "TrashNet 5", and "seed". Runs
that are not finished are left out. Each table has a row per method and a column per level, the mean
over seeds in percent: top-1 of the classifier that the method trains itself, of logistic regression
on the features and of kNN, and the calibration errors of the first two. A second table has the
differences from one method, of runs with the same images, and its last column their mean over the
levels. The picture shows one of these measures against labels per class, a panel per set. All
intervals are Student's t for the mean over seeds, 95 %: a bootstrap of five values would be too
short. A cell of fewer runs than seeds says how many.

examples:
  python -m supcon_tf.study --gin_file=studies/few_labels.gin --workdir=runs/few_labels
  python tools/plot_few_labels.py --gin_file=studies/few_labels.gin --workdir=runs/few_labels \\
      --base="frozen features" --output=few_labels.png
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.run_dir import RunDir
from supcon_tf.studies import study
from supcon_tf.study import listed_points

# Readout -> stage and measure in metrics.json. A later one replaces an earlier one of its name.
READOUTS = {
    "own classifier": (("pretrain", "top_1"),),
    "logistic regression": (("linear", "top_1"),),
    "kNN": (("pretrain", "knn_top_1"), ("linear", "knn_top_1")),
    "calibration error of own classifier": (("pretrain", "expected_calibration_error"),),
    "calibration error of logistic regression": (("linear", "expected_calibration_error"),),
}
# Method -> level of "labels" -> seed -> accuracy.
Accuracies = dict[str, dict[str, dict[str, float]]]


def accuracies(root: Path, points: Sequence[study.Point], readout: str) -> Accuracies:
    """A measure of the finished runs of a study."""
    found: Accuracies = {}
    for point in points:
        folder = root / "trials" / point.folder
        metrics = RunDir(folder).metrics() if study.made_for(folder) == point.key else {}
        if "linear" not in metrics:  # The last stage of every method.
            continue
        for stage, measure in READOUTS[readout]:
            if measure in metrics.get(stage, {}):
                levels = found.setdefault(point.method, {}).setdefault(point.levels["labels"], {})
                levels[point.levels["seed"]] = metrics[stage][measure]
    return found


def half_width(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean; NaN for one value."""
    if len(values) < 2:
        return float("nan")
    from scipy.stats import t

    spread = np.std(values, ddof=1) / len(values) ** 0.5
    return float(t.ppf(0.975, len(values) - 1) * spread)


def differences(
    of: Mapping[str, Mapping[str, float]], base: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Level -> seed -> difference of the runs of that seed, where both methods have one."""
    return {
        level: {seed: seeds[seed] - base[level][seed] for seed in seeds if seed in base[level]}
        for level, seeds in of.items()
        if level in base
    }


def mean_over_levels(
    apart: Mapping[str, Mapping[str, float]], levels: Sequence[str]
) -> list[float]:
    """The mean over levels for each seed that all levels have.

    The levels of a seed share images, so they do not count as independent runs.
    """
    values = [apart.get(level, {}) for level in levels]
    seeds = [seed for seed in values[0] if all(seed in each for each in values)]
    return [float(np.mean([each[seed] for each in values])) for seed in seeds]


def table(found: Accuracies, levels: Sequence[str], num_seeds: int) -> str:
    """Means over the seeds, in percent."""
    rows = [f"| | {' | '.join(levels)} |", "| --- " * (len(levels) + 1) + "|"]
    for method, by_level in found.items():
        cells = [
            _cell(list(by_level.get(level, {}).values()), num_seeds, sign="") for level in levels
        ]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def difference_table(found: Accuracies, base: str, levels: Sequence[str], num_seeds: int) -> str:
    """Differences from one method, in points, for each level and their mean over the levels."""
    rows = [f"| minus {base} | {' | '.join(levels)} | mean |", "| --- " * (len(levels) + 2) + "|"]
    for method in found:
        if method != base:
            apart = differences(found[method], found[base])
            cells = [
                _cell(list(apart.get(level, {}).values()), num_seeds, sign="+") for level in levels
            ]
            cells.append(_cell(mean_over_levels(apart, levels), num_seeds, sign="+"))
            rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float], num_seeds: int, *, sign: str) -> str:
    """Mean and interval in percent, and the number of values if some are missing."""
    if not values:
        return "-"
    cell = f"{100 * np.mean(values):{sign}.1f}"
    if len(values) > 1:
        cell += f" ± {100 * half_width(values):.1f}"
    return cell if len(values) == num_seeds else f"{cell} ({len(values)} of {num_seeds})"


def plot(path: str, found: Accuracies, levels: Sequence[str], *, label: str) -> None:
    """Draws a measure against labels per class, a panel per set and a line per method."""
    from matplotlib import pyplot, ticker

    names = list(dict.fromkeys(level.rpartition(" ")[0] for level in levels))
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(4.2 * len(names), 4.2), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        ticks = [int(level.split()[-1]) for level in levels if level.rpartition(" ")[0] == name]
        for number, (method, by_level) in enumerate(found.items()):
            here = {
                int(level.split()[-1]): list(seeds.values())
                for level, seeds in by_level.items()
                if level.rpartition(" ")[0] == name
            }
            means = [100 * np.mean(values) for values in here.values()]
            # Intervals of two values would hide everything else.
            spreads = [100 * half_width(v) if len(v) > 2 else np.nan for v in here.values()]
            # Shifted a little, so that the intervals of the methods do not cover each other.
            places = np.array(list(here)) * 1.02 ** (number - len(found) / 2)
            axis.errorbar(places, means, spreads, marker="osD^vPX"[number % 7], label=method)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_title(name)
        axis.set_xlabel("labelled images per class")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    args = cli.new_flags()
    cli.define_gin_flags(args)
    flags.DEFINE_string("workdir", None, "DIR: the directory of the study", flag_values=args)
    flags.DEFINE_string("base", "cross-entropy", "method to compare with", flag_values=args)
    flags.DEFINE_enum(
        "readout", "logistic regression", list(READOUTS), "of the picture", flag_values=args
    )
    flags.DEFINE_string("output", None, "FILE.png: picture to write", flag_values=args)
    cli.parse(args, argv, __doc__)
    if not args.gin_file or not args.workdir:
        raise UserError("--gin_file and --workdir are needed: of the study")
    config.parse(args.gin_file, args.gin_param)
    points = listed_points()
    if set(points[0].levels) != {"labels", "seed"}:
        raise UserError(f"the study must have the factors labels and seed, got {points[0].levels}")
    levels = list(dict.fromkeys(point.levels["labels"] for point in points))
    for level in levels:
        if not level.split()[-1].isdecimal():
            raise UserError(f"levels of labels must be SET NUMBER, as 'TrashNet 20', got {level!r}")
    num_seeds = len({point.levels["seed"] for point in points})
    methods = list(dict.fromkeys(point.method for point in points))
    if args.base not in methods:
        raise UserError(f"--base must be a method of the study, {methods}, got {args.base!r}")
    tables = {readout: accuracies(Path(args.workdir), points, readout) for readout in READOUTS}
    if not any(tables.values()):
        raise UserError(f"{args.workdir!r} has no finished run of {args.gin_file[-1]}")
    for readout, found in tables.items():
        print(f"{readout}\n{table(found, levels, num_seeds)}\n")
        if args.base in found:
            print(f"{difference_table(found, args.base, levels, num_seeds)}\n")
    if args.output:
        try:
            import matplotlib
        except ImportError:
            raise UserError("this tool needs Matplotlib: pip install '.[bench]'") from None
        matplotlib.use("agg")
        plot(args.output, tables[args.readout], levels, label=f"{args.readout}, %")
        print(args.output)


if __name__ == "__main__":
    cli.run(main)
