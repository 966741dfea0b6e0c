"""The stages of a run: pretrain, linear, finetune, and the experiment that puts them in order."""
