"""Treadle's version, also a part of every cache key."""

VERSION = "0.1.0"
