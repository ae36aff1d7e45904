"""The examples' networks written in PyTorch, one file each; `--peer torch` runs them.

Nothing in them knows of Treadle: a program takes NumPy arrays and gives a train step and what is
needed to judge its result. With the import lines changed to `treadle.torch` it trains on Treadle.
"""
