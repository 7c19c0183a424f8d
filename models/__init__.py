"""Networks, losses, augmentation, the training loop, checkpoints and the engine: arrays in, arrays out.

errors          what can be wrong with weights
spec            what a weights file says about itself; no torch
architecture    the part of the spec that a network is built from; no torch
offsets         the published sets of edges; no torch
lattice         where patches lie, how they are blended; no torch
networks        the networks by name
rsunet          RSUNet-L
rsunet_p        RSUNet-P
heads           what both end in
losses          affinity targets and the masked, rebalanced loss
label_parts     the truth of an embedding: connected parts, background; no torch
embedding_loss  the means-based loss, and the background's
edge_pull       the same seen from single edges
metric_graph    affinities from embeddings
augmentation    random changes of training crops
train           the loop: reproducible, resumable
checkpoint      weights and resume state as safetensors; nothing is ever unpickled
blend           weighted sums of patches in integers
engine          an image with context in, uint8 affinity codes out

Knows no files but its own checkpoints and imports neither `pipeline` nor `workers`.
"""
