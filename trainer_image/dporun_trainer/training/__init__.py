"""The training pod: launcher, training processes, checkpoints, live progress."""
