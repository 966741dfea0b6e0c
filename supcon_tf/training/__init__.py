"""What the training stages share: settings, the model as it is trained, the epoch loop."""
