"""What a stage minimises: one loss per model output, and the parts that they train."""

import dataclasses
from collections.abc import Mapping

import keras

from supcon_tf.data.sources import Source
from supcon_tf.errors import UserError
from supcon_tf.losses import (
    BalancedSupConLoss,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    SwAVLoss,
    loss_input,
    loss_labels,
)
from supcon_tf.models import MemoryLoss, find_balanced_classifier, find_memory, model_parts


@dataclasses.dataclass(frozen=True)
class Objective:
    """A weighted sum of losses.

    Args:
      losses: output of the model -> its loss; each takes the labels.
      weights: output -> weight of its loss.
      trained_parts: the parts of the model, as in `models.model_parts`, that the losses train and
        weight decay acts on.
    """

    losses: Mapping[str, keras.losses.Loss]
    weights: Mapping[str, float]
    trained_parts: tuple[str, ...]

    @property
    def classifies(self) -> bool:
        """Whether the classifier is a result of the stage, and not only a probe."""
        return "classifier" in self.trained_parts

    @property
    def needs_positives(self) -> bool:
        """Whether a loss of projections takes positives from the labels of the batch.

        A queue has positives of its own.
        """
        return any(
            loss_labels(loss) in ("any", "single", "multi") and not isinstance(loss, MemoryLoss)
            for output, loss in self.losses.items()
            if output in ("projection", "logits_and_projection")
        )


def classification_objective(
    loss: keras.losses.Loss | None,
    source: Source,
    *,
    weight: float = 1.0,
    trained_parts: tuple[str, ...] = ("encoder", "classifier"),
) -> Objective:
    """One loss of the class logits.

    Args:
      loss: loss of the logits [B, C]; None is the cross-entropy for the labels of the source.
      source: labelled images.
      weight: weight of the loss.
      trained_parts: as in `Objective`.

    Raises:
      UserError: a loss of another output, or for the other kind of labels.
    """
    return Objective(
        {"logits": classification_loss(loss, source)}, {"logits": weight}, trained_parts
    )


def pretraining_objective(
    model: keras.Model,
    loss: keras.losses.Loss | Mapping[str, keras.losses.Loss],
    source: Source,
    *,
    weight: float = 1.0,
    joint_loss: keras.losses.Loss | None = None,
    joint_weight: float = 1.0,
) -> Objective:
    """The losses of an encoder's training, chosen by what `loss` takes.

    A loss of class logits is the only loss. A contrastive loss is trained together with a linear
    probe, which ignores samples with the label -1, or with the joint loss of a classifier.

    Args:
      model: the built model; with a momentum memory the loss reads and fills its queue.
      loss: one loss, or output -> loss.
      source: labelled images.
      weight: weight of each of these losses.
      joint_loss: loss of the logits that also trains the encoder; None for a probe.
      joint_weight: weight of the joint loss, or of the probe's.

    Raises:
      UserError: the model does not have a loss's output, or does not fit the loss.
    """
    given = loss if isinstance(loss, Mapping) else {loss_input(loss): loss}
    losses = {str(output): _with_log_prior(each, source) for output, each in given.items()}
    for output, each in losses.items():
        _check_output(model, output, each)
        if not source.has_labels and loss_labels(each) != "none":
            raise UserError(
                f"{type(each).__name__} needs labels, {source.name!r} has none: take "
                "@losses.SimCLRLoss(), or SwAV as in semi/swav_cifar10_resnet18.gin"
            )
    if "logits" in losses:
        if len(losses) > 1 or joint_loss is not None:
            raise UserError(
                "a loss of class logits beside others is given as pretrain.run.classification_loss "
                f"with a contrastive pretrain.run.loss, got {tuple(losses)}"
            )
        return classification_objective(losses["logits"], source, weight=weight)
    for each in losses.values():
        _check_single_label(each, source)
    if "logits_and_projection" in losses:
        if len(losses) > 1 or joint_loss is not None:
            raise UserError(
                "ParametricSupConLoss trains encoder and classifier alone: give no other loss and "
                f"no pretrain.run.classification_loss, got {tuple(losses)}"
            )
        _check_num_classes(losses["logits_and_projection"], source)
        losses = _with_memory(losses, model)
        return Objective(losses, dict.fromkeys(losses, weight), tuple(model_parts(model)))
    for each in losses.values():
        options = each.get_config()
        if options.get("scale_by_temperature") and options["temperature"] != 1:
            print(f"pretrain: the loss is shown times its temperature, {options['temperature']}")
    losses = _with_memory(losses, model)
    is_joint = joint_loss is not None
    losses = {
        output: _with_centers(each, model, is_joint=is_joint) for output, each in losses.items()
    }
    return Objective(
        {**losses, "logits": classification_loss(joint_loss, source, ignore_class=-1)},
        {**dict.fromkeys(losses, weight), "logits": joint_weight},
        tuple(part for part in model_parts(model) if is_joint or part != "classifier"),
    )


def classification_loss(
    loss: keras.losses.Loss | None, source: Source, *, ignore_class: int | None = None
) -> keras.losses.Loss:
    """The loss of the logits: the given one, or the cross-entropy for the source's labels.

    Args:
      loss: loss of the logits [B, C], or None.
      source: whose labels the loss takes.
      ignore_class: label that a cross-entropy leaves out, unless it has one itself.

    Raises:
      UserError: a loss of another output, or for the other kind of labels.
    """
    if loss is None:
        if source.is_multi_label:
            return BinaryCrossEntropyLoss()
        return CrossEntropyLoss(ignore_class=ignore_class)
    name = type(loss).__name__
    if loss_input(loss) != "logits":
        raise UserError(
            f"{name} takes the output {loss_input(loss)!r} and not class logits: take "
            "@losses.CrossEntropyLoss() or another classification loss"
        )
    if not getattr(loss, "from_logits", True):
        raise UserError(
            f"{name} must have from_logits = True, as the model gives logits: set "
            f"keras.losses.{name}.from_logits = True"
        )
    if source.is_multi_label and loss_labels(loss) == "single":
        raise UserError(
            f"{name} is for one label per image, those of {source.name!r} may have several: take "
            "@losses.BinaryCrossEntropyLoss()"
        )
    if not source.is_multi_label and loss_labels(loss) == "multi":
        raise UserError(
            f"{name} is for images with several labels, those of {source.name!r} have one: take "
            "@losses.CrossEntropyLoss(), or sources.table.multi_label = True"
        )
    if (
        ignore_class is not None
        and isinstance(loss, CrossEntropyLoss)
        and loss.ignore_class is None
    ):
        loss = CrossEntropyLoss.from_config({**loss.get_config(), "ignore_class": ignore_class})
    return _with_log_prior(loss, source)


def _with_log_prior(loss: keras.losses.Loss, source: Source) -> keras.losses.Loss:
    """The loss with the shares of the source's classes, if its log_prior is "source"."""
    if getattr(loss, "log_prior", None) != "source":
        return loss
    return type(loss).from_config({**loss.get_config(), "log_prior": source.log_prior})


def _trained_by(model: keras.Model) -> str:
    """The output that a model is built to be trained by; its logits may be a probe's."""
    names = ("prototypes", "projection", "logits_and_projection", "logits")
    return next(name for name in names if name in model.output)


def _with_memory(
    losses: dict[str, keras.losses.Loss], model: keras.Model
) -> dict[str, keras.losses.Loss]:
    """The losses over the keys of the model's momentum memory, if it has one."""
    memory = find_memory(model)
    if memory is None:
        return losses
    print(f"pretrain: a memory of {memory.size:,} keys, {memory.num_bytes / 2**20:.1f} MiB")
    return {output: MemoryLoss(each, memory) for output, each in losses.items()}


def _with_centers(
    loss: keras.losses.Loss, model: keras.Model, *, is_joint: bool
) -> keras.losses.Loss:
    """A balanced SupCon loss with the class centres of the model; another loss unchanged."""
    if not isinstance(loss, BalancedSupConLoss):
        return loss
    classifier = find_balanced_classifier(model)
    if classifier is None:
        raise UserError(
            "BalancedSupConLoss needs class centres: set "
            "models.contrastive_model.classification_head = @models.balanced_classifier"
        )
    if not is_joint:
        raise UserError(
            "BalancedSupConLoss takes its centres from a classifier that trains too: set "
            "pretrain.run.classification_loss = @losses.CrossEntropyLoss()"
        )
    config = {**loss.get_config(), "centers": classifier.centers}
    return BalancedSupConLoss.from_config(config)


def _check_single_label(loss: keras.losses.Loss, source: Source) -> None:
    """Requires one label per image, if the loss does."""
    if source.is_multi_label and loss_labels(loss) == "single":
        raise UserError(
            f"{type(loss).__name__} is for one label per image, those of {source.name!r} may have "
            "several: take @losses.SupConLoss()"
        )


def _check_num_classes(loss: keras.losses.Loss, source: Source) -> None:
    if getattr(loss, "num_classes", source.num_classes) != source.num_classes:
        raise UserError(
            f"losses.{type(loss).__name__}.num_classes must be {source.num_classes}, the classes "
            f"of {source.name!r}, got {loss.num_classes}"
        )


def _check_output(model: keras.Model, output: str, loss: keras.losses.Loss) -> None:
    """Requires that the model has the output and is made for this loss."""
    name, taken = type(loss).__name__, loss_input(loss)
    if taken != output:
        raise UserError(f"{name} takes the output {taken!r}, got it for {output!r}")
    if output not in model.output or (output == "logits" and len(model.output) > 1):
        fix = {
            "logits": "pretrain.run.model = @models.classification_model, or give the loss as "
            "pretrain.run.classification_loss",
            "projection": "pretrain.run.model = @models.contrastive_model",
            "prototypes": "pretrain.run.model = @swav.swav_model",
            "logits_and_projection": "pretrain.run.model = @models.parametric_model, or "
            "momentum_memory.momentum_memory_model.parametric = True",
        }
        raise UserError(
            f"{name} takes {output!r}, and the model is trained by {_trained_by(model)!r}: set "
            f"{fix.get(output, 'pretrain.run.model to one that has it')}"
        )
    if isinstance(loss, SwAVLoss):
        assigned = model.get_layer("prototypes").options["num_assigned"]
        if loss.num_assigned != assigned:
            raise UserError(
                f"losses.{name}.num_assigned must be {assigned}, the crops of the first group, "
                f"got {loss.num_assigned}"
            )
