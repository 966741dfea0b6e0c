"""Plots how much hard and easy positives and negatives contribute to an anchor's gradient.

examples:
  python tools/plot_gradient_hardness.py --output=gradient_hardness.png
  python tools/plot_gradient_hardness.py --temperature=0.5 --positives=5
  python tools/plot_gradient_hardness.py --losses --output=losses_hardness.png

The gradient of an anchor's loss is a sum with one term per other row (Eq. 4-5 of arXiv 2004.11362).
The picture shows the length of each term, as a share of the sum of lengths, against the row's
similarity to the anchor. A positive is hard when its similarity is low, a negative when it is high.
Normalisation multiplies each term by sqrt(1 - similarity^2), which suppresses the easy ones.
With --losses the picture compares the losses of the family instead, with normalisation.
"""

import argparse
from typing import Any

import numpy as np

SUMMATIONS = ("outside", "inside")
# Options of supcon_loss.
LOSSES: dict[str, dict[str, Any]] = {
    "SupCon": {},
    "SupCon, L_in": {"summation": "inside"},
    "decoupled": {"denominator": "only_negatives"},
    "SINCERE": {"denominator": "one_positive"},
    "eps-SupInfoNCE, margin 3": {"denominator": "one_positive", "margin": 3.0},
    'eps-SupInfoNCE "in", margin 3': {
        "denominator": "mean_positive",
        "summation": "inside",
        "margin": 3.0,
    },
}


def gradient_terms(
    anchor: np.ndarray,
    others: np.ndarray,
    is_positive: np.ndarray,
    *,
    temperature: float,
    summation: str,
    normalize: bool,
) -> np.ndarray:
    """The term of each other row in the gradient of the anchor's loss.

    Args:
      anchor: [D], of unit length if not `normalize`.
      others: [A, D], of unit length.
      is_positive: bool [A].
      temperature: divides the similarities.
      summation: "outside" (Eq. 2) or "inside" (Eq. 3) the logarithm.
      normalize: whether the gradient includes the anchor's normalisation (Eq. 6).

    Returns:
      float64 [A, D].
    """
    length = np.linalg.norm(anchor) if normalize else 1.0
    unit = anchor / length
    logits = others @ unit / temperature
    exponentials = np.exp(logits - logits.max())
    softmax = exponentials / exponentials.sum()
    over_positives = is_positive if summation == "outside" else is_positive * exponentials
    slopes = (softmax - over_positives / over_positives.sum()) / temperature
    terms = slopes[:, None] * others
    if normalize:
        terms = (terms - (terms @ unit)[:, None] * unit) / length
    return terms


def loss_terms(
    anchor: np.ndarray,
    others: np.ndarray,
    is_positive: np.ndarray,
    *,
    temperature: float,
    **options: Any,
) -> np.ndarray:
    """Lengths of the terms of `supcon_loss`, [A], by automatic differentiation.

    For unit rows, the term of row j in the anchor's gradient is as long as the gradient of the
    anchor's loss with respect to row j. Negative where a step moves the two rows apart.
    """
    import tensorflow as tf

    from supcon_tf.losses import supcon_loss

    labels = np.concatenate([[0], np.where(is_positive, 0, 1)])
    rows = tf.constant(np.concatenate([anchor[None], others])[:, None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        loss = supcon_loss(labels, rows, temperature=temperature, **options)[0]
    gradient = tape.gradient(loss, rows)[1:, 0].numpy()
    return np.linalg.norm(gradient, axis=1) * np.where(gradient @ anchor > 0, -1, 1)


def rows_at(similarities: np.ndarray, anchor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random unit rows with the given cosine similarities to a unit anchor."""
    directions = rng.normal(size=(len(similarities), len(anchor)))
    directions -= (directions @ anchor)[:, None] * anchor
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    across = np.sqrt(1 - similarities**2)
    return similarities[:, None] * anchor + across[:, None] * directions


def example_rows(
    num_positives: int, num_negatives: int, *, hardest: float = 0.9
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Similarities by kind, the anchor [D], the other rows [A, D] and which are positives [A]."""
    rng = np.random.default_rng(0)
    anchor = np.eye(128)[0]
    similarities = {
        "positives": np.linspace(-0.5, 1, num_positives),
        "negatives": np.linspace(-1, hardest, num_negatives),
    }
    others = rows_at(np.concatenate(list(similarities.values())), anchor, rng)
    return similarities, anchor, others, np.arange(len(others)) < num_positives


def plot_losses(path: str, *, temperature: float, num_positives: int, num_negatives: int) -> None:
    """Draws the losses of the family: positives left, negatives right."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    # As later in training, when few negatives are near.
    similarities, anchor, others, is_positive = example_rows(
        num_positives, num_negatives, hardest=0.5
    )
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, options in LOSSES.items():
        lengths = loss_terms(anchor, others, is_positive, temperature=temperature, **options)
        shares = 100 * lengths / np.abs(lengths).sum()
        for axis, kind in zip(axes, similarities, strict=True):
            chosen = is_positive if kind == "positives" else ~is_positive
            style = "--" if name.startswith("eps") else "-"
            axis.plot(similarities[kind], shares[chosen], style, label=name)
    for axis, kind, side in zip(axes, similarities, ("left", "right"), strict=True):
        axis.set(title=kind, ylabel="% of all gradient terms, negative: pushed away")
        axis.set_xlabel(f"similarity to the anchor (hard to the {side})")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)


def plot(path: str, *, temperature: float, num_positives: int, num_negatives: int) -> None:
    """Draws positives left, negatives right; with normalisation above, without below."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    similarities, anchor, others, is_positive = example_rows(num_positives, num_negatives)
    figure, axes = pyplot.subplots(
        2, 2, figsize=(10, 7), layout="constrained", sharex="col", sharey="col"
    )
    for axes_row, normalize in zip(axes, (True, False), strict=True):
        for summation in SUMMATIONS:
            terms = gradient_terms(
                anchor,
                others,
                is_positive,
                temperature=temperature,
                summation=summation,
                normalize=normalize,
            )
            lengths = np.linalg.norm(terms, axis=1)
            shares = lengths / lengths.sum()
            for axis, kind in zip(axes_row, similarities, strict=True):
                chosen = is_positive if kind == "positives" else ~is_positive
                label = "L_out" if summation == "outside" else "L_in"
                axis.plot(similarities[kind], 100 * shares[chosen], label=label)
                how = "normalised" if normalize else "not normalised"
                axis.set_title(f"{kind}, {how}")
                axis.set_ylabel("% of all gradient terms")
                axis.grid(alpha=0.3)
    axes[1, 0].set_xlabel("similarity to the anchor (hard to the left)")
    axes[1, 1].set_xlabel("similarity to the anchor (hard to the right)")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", default="gradient_hardness.png", metavar="FILE.png", help="picture to write"
    )
    parser.add_argument("--temperature", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--positives", type=int, default=50, help="number of positives, default 50")
    parser.add_argument(
        "--negatives", type=int, default=450, help="number of negatives, default 450"
    )
    parser.add_argument("--losses", action="store_true", help="compare the losses of the family")
    args = parser.parse_args()
    (plot_losses if args.losses else plot)(
        args.output,
        temperature=args.temperature,
        num_positives=args.positives,
        num_negatives=args.negatives,
    )
    print(args.output)


if __name__ == "__main__":
    main()
