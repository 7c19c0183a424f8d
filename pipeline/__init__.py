"""The domain: what is computed, from what, in which order.

cli > commands > run, report, training > plan > stages > volumes | tables > ops | config > geometry | errors
"""
