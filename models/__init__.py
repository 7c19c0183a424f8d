"""Networks, losses, augmentation, the training loop, checkpoints and the engine: arrays in, arrays out.

errors      what can be wrong with weights
spec        what a weights file says about itself; no torch
lattice     where patches lie, how they are blended; no torch
rsunet      the network
losses      affinity targets and the masked, rebalanced loss
augment     random changes of training crops
train       the loop: reproducible, resumable
checkpoint  weights and resume state as safetensors; nothing is ever unpickled
blend       weighted sums of patches in integers
engine      an image with context in, uint8 affinity codes out

Knows no files but its own checkpoints and imports neither `pipeline` nor `workers`.
"""
