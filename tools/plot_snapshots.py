"""Fine-tunes every snapshot of some pretraining runs and plots accuracy against epochs and views.

The runs need pretrain.run.snapshot_every, which saves a model and measures kNN top-1 every few
epochs. Each snapshot is fine-tuned with its run's config.gin, into finetuned/EPOCH in the run
directory. Finished fine-tunings are not repeated, so the same command resumes after an
interruption. The picture has fine-tuned top-1 and top-5 and kNN top-1, on the test split: above
against epochs of pretraining, below against the views that pretraining has put through the encoder
until then, labelled ones included; a smaller crop counts by its area. With --gain, a last panel
has the difference of two runs' fine-tuned top-1. The tables also show when each run reaches the
first run's best, and the share of the views that this saves or costs.

examples:
  python tools/plot_snapshots.py --run="SimCLR=runs/semi/SimCLR" --output=epochs.png \\
      --run="SimCLR + SuNCEt=runs/semi/SuNCEt" --gain="SimCLR + SuNCEt over SimCLR"
"""

import ast
import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags
from tqdm import tqdm

from supcon_tf import cli, config
from supcon_tf.errors import UserError
from supcon_tf.files import expanded
from supcon_tf.run_dir import RunDir
from supcon_tf.studies.study import TrialFailed
from supcon_tf.study import train_in_subprocess

Points = dict[int, float]  # Epoch -> accuracy.


def fine_tuned(run: Path, epoch: int, *, threads: int) -> dict[str, float]:
    """Fine-tunes the snapshot of an epoch, unless that is done, and returns the measures."""
    pretrained = RunDir(run)
    curve = pretrained.curve("pretrain")
    done = pretrained.metrics().get("finetune", {})
    # The run has already fine-tuned its last model, unless it kept the best one on validation.
    is_last = epoch == curve[-1]["epoch"] and "validation_accuracy" not in curve[-1]
    if is_last and "top_1" in done:
        return done
    snapshot = pretrained.model("pretrain", epoch).resolve()
    settings = (
        "experiment.run.stages = ('finetune',)",
        f"finetune.run.encoder = '{snapshot}'",
    )
    folder = run / "finetuned" / f"{epoch:04d}"
    folder.parent.mkdir(exist_ok=True)
    files = [str(pretrained.config)]
    train_in_subprocess(files, settings, folder, None, threads, metrics_only=True)
    return RunDir(folder).metrics()["finetune"]


def check_comparable(runs: dict[str, Path]) -> None:
    """Raises a UserError if runs have other images, or other labelled ones."""
    (name, first), *others = (
        (name, config.parse([str(RunDir(folder).config)], [])) for name, folder in runs.items()
    )
    for other, settings in others:
        before, after = (
            {k: v for k, v in config.parameter_values(text, macros=True).items() if is_data(k)}
            for text in (first, settings)
        )
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                raise UserError(
                    f"{name!r} and {other!r} cannot be compared: {key} is {before.get(key)} and "
                    f"{after.get(key)}"
                )


def is_data(setting: str) -> bool:
    """Whether a setting chooses images or labels, and not how they are stored."""
    where, _, name = setting.rpartition(".")
    is_source = where.rpartition("/")[2].startswith("sources.")
    is_storage = name in ("cache", "cache_dir", "data_dir", "download")
    return (is_source and not is_storage) or setting.endswith((".run.support", ".run.source"))


def views_by_epoch(run: Path) -> Points:
    """Epoch -> millions of views that pretraining has put through the encoder until its end.

    A crop of a smaller size counts by its area.
    """
    resolved = config.parse([str(RunDir(run).config)], [])
    values = config.parameter_values(resolved, macros=True)

    def number(name: str, default: float = 0) -> float:
        text = values.get(name, "None")
        return default if text == "None" else float(text)

    model = values["pretrain.run.model"].removeprefix("@")
    views = number(f"{model}.num_views", 1)
    if model.startswith("swav."):
        crops = ast.literal_eval(values["multi_crop.batches.crops"])
        views = sum(count * (side / crops[0][0]) ** 2 for side, count, _ in crops)
    per_step = number("pretrain.run.batch_size") * views
    name = "semi_supervised.batches"
    labelled = number(f"{name}.labelled_classes") * number(f"{name}.samples_per_class")
    labelled *= number(f"{name}.views_per_labelled_image", views)
    if not values["pretrain.run.batches"].startswith("@semi_supervised."):
        labelled = 0.0
    curve = RunDir(run).curve("pretrain")
    epochs, steps = curve[-1]["epoch"], curve[-1]["step"]
    last = steps * min(1.0, number(f"{name}.labelled_epochs", epochs) / epochs)
    return {
        int(row["epoch"]): (row["step"] * per_step + min(row["step"], last) * labelled) / 1e6
        for row in curve
    }


def snapshots(run: Path) -> list[int]:
    """The epochs whose model a run has saved."""
    files = RunDir(run).checkpoints("pretrain").glob("model_*.keras")
    numbers = [re.fullmatch(r"model_(\d+)", file.stem) for file in files]
    return sorted(int(number[1]) for number in numbers if number)


def knn_top_1(run: Path) -> Points:
    """kNN top-1 by epoch, where it was measured."""
    curve = RunDir(run).curve("pretrain")
    return {int(row["epoch"]): row["knn_top_1"] for row in curve if "knn_top_1" in row}


def gain(points: Points, base: Points) -> Points:
    """The difference of two accuracies at the epochs that both have."""
    return {epoch: points[epoch] - base[epoch] for epoch in points if epoch in base}


def plot(
    path: str,
    panels: dict[str, dict[str, Points]],
    views: dict[str, Points],
    title: str,
    gains: dict[str, Points],
) -> None:
    """Draws a column per kind of accuracy, with a line per run: against epochs and views.

    Gains, by "NAME over NAME", are a last panel against epochs.
    """
    from matplotlib import pyplot, ticker

    columns = len(panels) + bool(gains)
    size = (4.2 * columns, 7.5)
    figure, axes = pyplot.subplots(2, columns, figsize=size, layout="constrained", squeeze=False)
    markers = dict(zip(views, itertools.cycle("os^Dvx")))
    colors = dict(zip(views, itertools.cycle(pyplot.rcParams["axes.prop_cycle"].by_key()["color"])))
    for column, (kind, lines) in zip(axes.T, panels.items(), strict=False):
        for name, points in lines.items():
            style = {"marker": markers[name], "color": colors[name], "label": name}
            shown = [100 * y for y in points.values()]
            column[0].plot(list(points), shown, **style)
            column[1].plot([views[name][epoch] for epoch in points], shown, **style)
        column[0].set_title(kind)
        column[1].set_xlabel("million views of pretraining")
        column[1].xaxis.set_major_locator(ticker.MaxNLocator(4))
    if gains:
        axes[0, -1].set_title("gain of fine-tuned top-1")
        axes[0, -1].axhline(0, color="black", linewidth=0.8)
        for pair, points in gains.items():
            name = pair.split(" over ")[0]
            shown = [100 * y for y in points.values()]
            style = {"marker": markers[name], "color": colors[name], "label": pair}
            axes[0, -1].plot(list(points), shown, **style)
        axes[0, -1].legend(fontsize="small")
        axes[1, -1].set_axis_off()
    for axis in axes[0]:
        axis.set_xlabel("epochs of pretraining")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    for axis in axes.flat:
        axis.set_ylabel("%")
        axis.grid(alpha=0.3)
    names = axes[0, 0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=4)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)


def table(lines: dict[str, Points], views: dict[str, Points]) -> str:
    """Accuracies by epoch, and when each run reaches the first run's best."""
    first, points = next(iter(lines.items()))
    best = max(points.values())
    wanted = views[first][next(epoch for epoch, value in points.items() if value == best)]
    epochs = sorted({epoch for points in lines.values() for epoch in points})
    rows = [f"{'epoch':<28}" + "".join(f"{epoch:>8}" for epoch in epochs)]
    for name, points in lines.items():
        reached = [epoch for epoch, value in points.items() if value >= best]
        when = f"never {best:.4f}"
        if reached:
            saved = round(100 * (1 - views[name][reached[0]] / wanted))
            cost = f"{saved} % of the views saved" if saved >= 0 else f"{-saved} % more views"
            when = f"{best:.4f} at epoch {reached[0]}" + f", {cost}" * (name != first)
        cells = [f"{points[epoch]:.4f}" if epoch in points else "-" for epoch in epochs]
        rows.append(f"{name:<28}" + "".join(f"{cell:>8}" for cell in cells) + f"   {when}")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool."""
    args = cli.new_flags()
    flags.DEFINE_multi_string(
        "run", [], "NAME=DIR: a line's name and its run directory", flag_values=args
    )
    flags.DEFINE_integer(
        "processes", 1, "fine-tunings at a time, default 1", lower_bound=1, flag_values=args
    )
    flags.DEFINE_string("output", "epochs.png", "picture to write", flag_values=args)
    flags.DEFINE_multi_string("gain", [], '"NAME over NAME": two names of --run', flag_values=args)
    flags.DEFINE_string("title", "", "title of the picture", flag_values=args)
    cli.parse(args, argv, __doc__)
    if not args.run:
        raise UserError("--run is needed, as NAME=DIR")
    try:
        import matplotlib
    except ImportError:
        raise UserError("this tool needs Matplotlib: pip install '.[bench]'") from None
    matplotlib.use("agg")
    runs: dict[str, Path] = {}
    for run in args.run:
        name, separator, path = run.partition("=")
        folder = expanded(path)
        if not separator or not snapshots(folder) or not knn_top_1(folder):
            raise UserError(f"--run must be NAME=DIR, of a run with snapshots, got {run!r}")
        if name in runs:
            raise UserError(f"--run must have another name for each run, got {name!r} twice")
        runs[name] = folder
    gains = {pair: pair.split(" over ") for pair in args.gain}
    for pair, names in gains.items():
        if len(names) != 2 or not set(names) <= set(runs):
            raise UserError(f"--gain must be 'NAME over NAME' of {list(runs)}, got {pair!r}")
    check_comparable(runs)
    work = [(name, epoch) for name, folder in runs.items() for epoch in snapshots(folder)]
    threads = max(1, (os.cpu_count() or 1) // args.processes)

    def tune(item: tuple[str, int]) -> dict[str, float]:
        name, epoch = item
        try:
            return fine_tuned(runs[name], epoch, threads=threads)
        except TrialFailed as failure:
            raise UserError(f"{name}, epoch {epoch}: {failure}") from None

    with ThreadPoolExecutor(args.processes) as pool:
        results = list(tqdm(pool.map(tune, work), total=len(work), unit="run"))
    panels: dict[str, dict[str, Points]] = {}
    for kind, measure in (("fine-tuned, top-1", "top_1"), ("fine-tuned, top-5", "top_5")):
        panels[kind] = {name: {} for name in runs}
        for (name, epoch), metrics in zip(work, results, strict=True):
            panels[kind][name][epoch] = metrics[measure]
    panels["kNN, top-1"] = {name: knn_top_1(folder) for name, folder in runs.items()}
    views = {name: views_by_epoch(folder) for name, folder in runs.items()}
    for kind, lines in panels.items():
        print(f"{kind}\n{table(lines, views)}\n")
    tuned = panels["fine-tuned, top-1"]
    gained = {pair: gain(tuned[name], tuned[base]) for pair, (name, base) in gains.items()}
    plot(args.output, panels, views, args.title, gained)
    print(args.output)


if __name__ == "__main__":
    cli.run(main)
