"""The command line: `treadle demo | dump | opt | bench`."""
