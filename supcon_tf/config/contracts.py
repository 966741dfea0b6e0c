"""How the program calls the functions of a configuration, by the parameter that takes them.

A binding of an argument that the program passes itself would have no effect.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Contract:
    """How a function is called.

    Args:
      positional: number of positional arguments.
      passes: keyword argument -> what to set instead; "{owner}" is replaced by the caller, such as
        "pretrain.run".
      names: usual names of the positional arguments, and others that the caller adds, in the same
        way.
    """

    positional: int = 0
    passes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Arguments of stages and studies that the commands pass.
BY_COMMANDS = {
    "configured": "leave it out",
    "root": "give --workdir",
    "run_dir": "give --workdir",
    "trial": "leave it out",
}

_BATCHES = {
    "preprocessing": "{owner}.preprocessing",
    "augmentation": "{owner}.augmentation",
    "num_views": "num_views of the model, such as models.contrastive_model.num_views",
    "batch_size": "{owner}.batch_size",
    "num_classes": "{owner}.source",
    "seed": "{owner}.seed",
    "shard": "distribution.strategy.name",
    "needs_positives": "{owner}.loss",
}
CONTRACTS: dict[str, Contract] = {
    "optimizer": Contract(
        passes={"learning_rate": "the base_learning_rate of {owner}.schedule"},
    ),
    "schedule": Contract(
        passes={
            "batch_size": "{owner}.batch_size",
            "steps_per_epoch": "{owner}.batch_size, on which it depends",
            "epochs": "{owner}.epochs",
        }
    ),
    "model": Contract(
        passes={
            "image_shape": "views.Preprocessing.image_px",
            "num_classes": "{owner}.source, which has the classes",
        },
    ),
    "projection_head": Contract(
        positional=1,
        passes={"units": "{owner}.projection", "batch_norm": "{owner}.batch_norm"},
        names={"input_dim": "{owner}.encoder"},
    ),
    "classification_head": Contract(
        positional=2,
        passes={"zero_init": "{owner}.zero_init, or zero_init_classifier where it has that"},
        names={
            "input_dim": "the encoder",
            "num_classes": "the source, which has the classes",
        },
    ),
    "batches": Contract(positional=1, passes=_BATCHES, names={"split": "{owner}.source"}),
    "callbacks": Contract(passes={"steps": "{owner}.epochs"}),
    "augmentation": Contract(
        positional=1,
        passes={"seed": "{owner}.seed"},
        names={"image": "{owner}.source"},
    ),
    "crop": Contract(
        positional=1,
        passes={"seed": "pretrain.run.seed", "size_px": "views.Preprocessing.image_px"},
        names={"image": "pretrain.run.source"},
    ),
    "eval_crop": Contract(
        positional=1,
        passes={"size_px": "views.Preprocessing.image_px"},
        names={"image": "pretrain.run.source"},
    ),
    "mixing": Contract(
        positional=2,
        passes={"seed": "pretrain.run.seed"},
        names={"images": "pretrain.run.source", "targets": "pretrain.run.source"},
    ),
    "corrupted": Contract(
        positional=1,
        passes={
            "cells": "{owner}.corruptions and {owner}.severities",
            "num_images": "{owner}.max_images",
            "seed": "{owner}.seed",
        },
        names={"source": "{owner}.source"},
    ),
    "classifier": Contract(positional=1, names={"path": "{owner}.export"}),
    # Of semi-supervised batches, which pass on what they get and add their own.
    "views": Contract(
        positional=1,
        passes={
            "batch_size": "pretrain.run.batch_size",
            "seed": "pretrain.run.seed",
            "num_classes": "pretrain.run.source",
            "shard": "distribution.strategy.name",
            "needs_positives": "pretrain.run.loss",
            **{
                name: _BATCHES[name].format(owner="pretrain.run")
                for name in ("preprocessing", "augmentation", "num_views")
            },
        },
        names={"split": "pretrain.run.source"},
    ),
}
