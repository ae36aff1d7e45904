"""Part of the treadle package; see docs/architecture.md."""
