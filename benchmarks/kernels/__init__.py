"""Each kernel beside its peers: CPU time as ratios in one run, peak memory, and whether the results agree."""
