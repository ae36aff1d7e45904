"""The recipe: what to look at before a model is trained, after Karpathy (2019)."""

from treadle.nn.recipe.checking import check
from treadle.nn.recipe.report import Finding, Report, Section

__all__ = ["Finding", "Report", "Section", "check"]
