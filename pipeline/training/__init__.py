"""Training from a TOML file: volumes as sources, held-out ones to judge by; weights, spec, card, log and page.

settings   the TOML file
volumes    generated and real volumes at the network's voxel size, as sources of crops
judge      the running average, applied to the held-out volumes: AUC, loss, and VOI after the real post-processing
log, page  what was told along the way, as lines of JSON and as a page
changes    what is different from the training that a folder holds
ending     reasons to stop before the end: signals, the clock
session    all of it together
apply      a held-out volume as weights see it, scored under any settings of a run
tune       a search for the best settings
finish     what is tuned, stored with the weights
"""

from pipeline.training.finish import tune_weights
from pipeline.training.session import show_augmentation, train_from_config
from pipeline.training.settings import TrainConfig, load

__all__ = ["TrainConfig", "load", "show_augmentation", "train_from_config", "tune_weights"]
