"""Whole runs of `python -m supcon_tf.train` that take seconds."""

from supcon_tf import train

# Few images, few steps, views that are traced quickly, and an encoder of three layers, since any
# Keras model can be the encoder.
SMALL = (
    "models.contrastive_model.encoder = @keras.Sequential()",
    "models.classification_model.encoder = @keras.Sequential()",
    "keras.Sequential.layers = [@keras.layers.Conv2D(), @keras.layers.BatchNormalization(), "
    "@keras.layers.GlobalMaxPooling2D()]",
    "keras.layers.Conv2D.filters = 8",
    "keras.layers.Conv2D.kernel_size = 3",
    "models.contrastive_model.projection = (16,)",
    "pretrain.run.epochs = 2",
    "linear.run.epochs = 1",
    "pretrain.run.batch_size = 8",
    "linear.run.batch_size = 8",
    "views.Preprocessing.image_px = 16",
    *(
        f"{stage}.run.augmentation = @views.identity"
        for stage in ("pretrain", "linear", "finetune")
    ),
)


def run(workdir, *bindings, gin_file="folder/supcon.gin"):
    """Runs the command in this process, with SMALL and then `bindings`."""
    parameters = [f"--gin_param={binding}" for binding in (*SMALL, *bindings)]
    train.main([f"--gin_file={gin_file}", f"--workdir={workdir}", *parameters])
