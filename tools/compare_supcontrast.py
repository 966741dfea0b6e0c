"""Trains SupCon with this package and with a PyTorch loop on the same views, and compares them.

examples:
  python tools/compare_supcontrast.py --data_dir=DATA --work_dir=runs/compare \\
      --peer_python=/path/with/torch/bin/python
  python tools/compare_supcontrast.py --data_dir=DATA --work_dir=runs/causes --epochs=3 \\
      --cosine_epochs=10 --contenders=all --plot=first_steps.png
  python tools/compare_supcontrast.py --work_dir=runs/compare --report

The recipe is the SupCon authors' PyTorch one for CIFAR-10, cifar10/pytorch_supcon_resnet50.gin,
with a narrow ResNet-18 and few images. The PyTorch loop has the authors' model, loss, optimizer and
schedule, written for this comparison. Both sides get the same float32 views in the same order; each
side draws its own initial weights. Contenders:

  torch                 the PyTorch loop, in its own process
  pytorch               this package with pytorch_layout.gin's settings
  released              this package with the released TensorFlow code's settings (gammas at one)
  only FACTOR           released, with PyTorch's setting of one factor
  without FACTOR        pytorch, with the released setting of one factor
  zero gammas           pytorch, the last gamma of each block at zero
  decayed bn            pytorch, with weight decay of batch normalisation too, as in PyTorch
  same weights          decayed bn, from the initial weights that torch draws

A factor is conv (initial weights of the convolutions), kernel (of the head's layers), bias (biases
of the head, last layer included) or shortcut. kNN (k = 20) and logistic regression use the
encoder's features of the training and test images, without augmentation. The loss is the mean over
an epoch, times the temperature. A finished run is a JSON file in the work directory and is not
repeated. TFDS cifar10 must be prepared in --data_dir. The extra `bench` installs the peer.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import contenders
import numpy as np
from supcontrast_recipe import LOGGED
from supcontrast_runs import LAYOUTS, run
from tqdm import tqdm

from supcon_tf import cli
from supcon_tf.errors import UserError

CONTENDERS = ("torch", *LAYOUTS)
# Options that change a run's result.
SETTINGS = (
    "width",
    "stem",
    "images",
    "test_images",
    "batch",
    "epochs",
    "cosine_epochs",
    "rate",
    "decay",
)


def parse_args() -> argparse.Namespace:
    parser = contenders.parser(__doc__)
    parser.add_argument("--data_dir", help="of TFDS")
    parser.add_argument("--work_dir", type=Path, required=True, help="results of finished runs")
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=["torch", "pytorch", "released"],
        choices=("all", *CONTENDERS),
        metavar="NAME",
        help="default: torch pytorch released",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--width", type=float, default=0.25, help="of the ResNet, default 0.25")
    parser.add_argument(
        "--stem",
        choices=("cifar", "imagenet"),
        default="cifar",
        help="of the ResNet; imagenet has 16 times smaller feature maps and is as much faster",
    )
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--test_images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=256, help="images of two views, default 256")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--cosine_epochs", type=int, help="of the schedule, default: --epochs")
    parser.add_argument("--rate", type=float, default=0.125, help="learning rate, default 0.125")
    parser.add_argument("--decay", type=float, default=1e-4, help="weight decay, default 1e-4")
    parser.add_argument("--threads", type=int, default=2, help="default 2")
    parser.add_argument("--record", type=int, default=100, help="steps to record, default 100")
    parser.add_argument("--plot", metavar="FILE.png", help="picture of the recorded steps")
    parser.add_argument("--report", action="store_true", help="only print what is finished")
    args = parser.parse_args()
    args.cosine_epochs = args.cosine_epochs or args.epochs
    if args.cosine_epochs < args.epochs or args.batch > args.images or args.epochs < 1:
        parser.error("needs 1 <= epochs <= cosine_epochs and batch <= images")
    if "all" in args.contenders:
        args.contenders = list(CONTENDERS)
    if not args.report and args.data_dir is None:
        parser.error("--data_dir is needed")
    return args


def main() -> None:
    args = parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    # All contenders of a seed before the next seed: an interrupted study is a smaller study.
    todo = [(name, seed) for seed in args.seeds for name in args.contenders]
    if not args.report:
        limit_threads(args.threads)
        for name, seed in tqdm(todo, unit="run"):
            if finished(name, seed, args) is None:
                start = time.perf_counter()
                result = run(name, seed, args)
                result["seconds"] = time.perf_counter() - start
                result["settings"] = settings_of(args)
                contenders.write_json(str(file_of(name, seed, args)), result)
                tqdm.write(f"{name}, seed {seed}: {summary(result)}")
    done = {
        name: {seed: finished(name, seed, args) for seed in args.seeds} for name in args.contenders
    }
    results = {
        name: {seed: result for seed, result in runs.items() if result is not None}
        for name, runs in done.items()
    }
    report(results)
    if args.plot:
        plot(args.plot, results)


def limit_threads(threads: int) -> None:
    """Limits the threads of TensorFlow and of NumPy, which would wait for each other."""
    import tensorflow as tf
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def file_of(name: str, seed: int, args: argparse.Namespace) -> Path:
    return args.work_dir / f"{name.replace(' ', '_')}_seed{seed}.json"


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in SETTINGS}


def finished(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any] | None:
    """The result of a run, if there is one."""
    file = file_of(name, seed, args)
    if not file.exists():
        return None
    result = json.loads(file.read_text())
    if result["settings"] != settings_of(args) and not args.report:
        raise UserError(f"{file} has other settings, {result['settings']}: choose another work_dir")
    return result


def summary(result: dict[str, Any]) -> str:
    return (
        f"loss {result['losses'][0]:.4f} to {result['losses'][-1]:.4f}, kNN {result['knn']:.4f}, "
        f"logistic {result['logistic']:.4f}, {result['seconds']:.0f} s"
    )


def report(results: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Prints mean and values of the seeds."""
    print("| | loss, epoch 1 | last epoch | kNN | logistic regression |")
    print("| --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        cells = []
        for digits, value in (
            (4, lambda run: run["losses"][0]),
            (4, lambda run: run["losses"][-1]),
            (3, lambda run: run["knn"]),
            (3, lambda run: run["logistic"]),
        ):
            values = [value(run) for run in runs.values()]
            listed = " ".join(f"{each:.{digits}f}" for each in values)
            cells.append(f"{np.mean(values):.4f} ({listed})" if values else "-")
        print(f"| {name} | {' | '.join(cells)} |")


def plot(path: str, results: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Draws the recorded steps, the mean over seeds, a panel per quantity."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.5), layout="constrained")
    # Close to one: the distance from one tells more.
    shown = {"mean cosine": lambda mean: 1 - mean, "effective rank": lambda mean: mean - 1}
    titles = {
        "mean cosine": "1 - mean cosine",
        "effective rank": "effective rank - 1",
        "gradient of the head": "gradient norm of the head",
        "gradient of the encoder": "gradient norm of the encoder",
    }
    colors = {"torch": "black"}
    for axis, key in zip(axes.flat, LOGGED, strict=False):
        for name, runs in results.items():
            if runs:
                kind, _, factor = name.rpartition(" ")
                color = colors.setdefault(factor, f"C{len(colors) - 1}")
                style = {"only": "--", "without": ":"}.get(kind, "-")
                mean = np.mean([result["steps"][key] for result in runs.values()], axis=0)
                values = shown.get(key, lambda mean: mean)(mean)
                steps = np.arange(1, len(values) + 1)
                axis.plot(steps, values, style, color=color, label=name)
        axis.set_title(titles.get(key, key))
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if key == "loss":  # The first steps are far above the others.
            lines = [line.get_ydata()[4:] for line in axis.lines]
            axis.set_ylim(np.min(lines) - 0.001, np.max(lines) + 0.001)
        else:
            axis.set_yscale("log")
    axes[-1, -1].axis("off")
    axes[-1, -1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    cli.start_tensorflow()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
