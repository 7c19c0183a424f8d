"""What the correction of self-touches is worth, and what it costs, measured on runs of the real pipeline.

    python -m benchmarks.self_touch.synthetic --weights EMBEDDING   known loops in generated volumes, three routes
    python -m benchmarks.self_touch.tissue EMBEDDING --folder FOLDER   the held-out volumes of serial sections
    python -m benchmarks.self_touch.cost --weights EMBEDDING          its share of a run, and the memory that it needs

Weights are shipped names or paths of an embedding net. Everything is printed as Markdown, to be pasted into RESULTS.md.
"""
