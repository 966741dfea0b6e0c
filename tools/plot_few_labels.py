"""Tables and a picture of a study with few labels, such as gin_configs/studies/few_labels.gin.

The study has the factors "labels", with levels SET NUMBER such as "TrashNet 5", and "seed". Runs
that are not finished are left out. Each table has a row per method and a column per level, the mean
over seeds in percent: the classifier that the method trains itself, logistic regression on the
features and kNN. A second table has the differences from one method, of runs with the same images,
each with a 95 % bootstrap interval over the runs. The picture shows accuracy against labels per
class, a panel per set, with 95 % intervals of the mean.

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
}
# Method -> level of "labels" -> seed -> accuracy.
Accuracies = dict[str, dict[str, dict[str, float]]]


def accuracies(root: Path, points: Sequence[study.Point], readout: str) -> Accuracies:
    """The accuracies of the finished runs of a study."""
    found: Accuracies = {}
    for point in points:
        if set(point.levels) != {"labels", "seed"}:
            raise UserError(f"the study must have the factors labels and seed, got {point.levels}")
        folder = root / "trials" / point.folder
        metrics = RunDir(folder).metrics() if study.made_for(folder) == point.key else {}
        if "linear" not in metrics:  # The last stage of every method.
            continue
        for stage, measure in READOUTS[readout]:
            if measure in metrics.get(stage, {}):
                levels = found.setdefault(point.method, {}).setdefault(point.levels["labels"], {})
                levels[point.levels["seed"]] = metrics[stage][measure]
    return found


def interval(values: Sequence[float], *, draws: int = 10_000) -> tuple[float, float]:
    """A 95 % percentile bootstrap interval of the mean, drawn with a fixed seed."""
    numbers = np.asarray(values)
    rows = np.random.default_rng(0).integers(0, len(numbers), (draws, len(numbers)))
    low, high = np.quantile(numbers[rows].mean(1), (0.025, 0.975))
    return float(low), float(high)


def differences(
    of: Mapping[str, Mapping[str, float]], base: Mapping[str, Mapping[str, float]]
) -> dict[str, list[float]]:
    """Level -> differences of the runs of the same seed, where both methods have one."""
    return {
        level: [seeds[seed] - base[level][seed] for seed in seeds if seed in base[level]]
        for level, seeds in of.items()
        if level in base
    }


def table(found: Accuracies, levels: Sequence[str]) -> str:
    """Means over the seeds, in percent."""
    rows = [f"| | {' | '.join(levels)} |", "| --- " * (len(levels) + 1) + "|"]
    for method, by_level in found.items():
        means = {level: np.mean(list(seeds.values())) for level, seeds in by_level.items()}
        cells = [f"{100 * means[level]:.1f}" if level in means else "-" for level in levels]
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def difference_table(found: Accuracies, base: str, levels: Sequence[str]) -> str:
    """Differences from one method, in points, for each level and over all levels."""
    rows = [f"| minus {base} | {' | '.join(levels)} | all |", "| --- " * (len(levels) + 2) + "|"]

    def cell(values: Sequence[float]) -> str:
        if not values:
            return "-"
        low, high = interval(values)
        return f"{100 * np.mean(values):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"

    for method in found:
        if method != base:
            apart = differences(found[method], found[base])
            cells = [cell(apart.get(level, [])) for level in levels]
            cells.append(cell([value for values in apart.values() for value in values]))
            rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def plot(path: str, found: Accuracies, levels: Sequence[str]) -> None:
    """Draws accuracy against labels per class, a panel per set and a line per method."""
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
            means = np.array([np.mean(values) for values in here.values()])
            ends = np.array([interval(values) for values in here.values()]).reshape(-1, 2)
            # Shifted a little, so that the intervals of the methods do not cover each other.
            places = np.array(list(here)) * 1.02 ** (number - len(found) / 2)
            spread = 100 * np.abs(ends.T - means)
            axis.errorbar(places, 100 * means, spread, marker="osD^vPX"[number % 7], label=method)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.set_title(name)
        axis.set_xlabel("labelled images per class")
        axis.set_ylabel("top-1, %")
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
    levels = list(dict.fromkeys(point.levels["labels"] for point in points))
    for readout in READOUTS:
        found = accuracies(Path(args.workdir), points, readout)
        if not found:
            continue
        print(f"{readout}\n{table(found, levels)}\n")
        if args.base in found:
            print(f"{difference_table(found, args.base, levels)}\n")
        if readout == args.readout and args.output:
            import matplotlib

            matplotlib.use("agg")
            plot(args.output, found, levels)
            print(args.output)


if __name__ == "__main__":
    cli.run(main)
