"""`treadle demo`: an MLP learns the shipped digits through a jitted train step."""

from treadle.examples.mlp_digits import add_arguments, run

__all__ = ["add_arguments", "run"]
