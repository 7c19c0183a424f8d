"""What the shipped networks and the engine that applies them are worth, measured.

    python -m benchmarks.models.scores ac4_affinity --cache FOLDER          every recipe on every held-out volume
    python -m benchmarks.models.code_bits ac4_affinity --cache FOLDER       what 8 bits an edge cost
    python -m benchmarks.models.robustness ac4_affinity --cache FOLDER      missing, shifted, brighter sections
    python -m benchmarks.models.engine_speed ac4_affinity                   the predict stage beside the bare network
    python -m benchmarks.models.training_step                               models.convolution beside nn.Conv3d

Weights are shipped names or paths. Volumes are those of the data folder (--data, or $NEUROTILE_DATA). Everything is
printed as Markdown, to be pasted into RESULTS.md.
"""
