"""The command line, called in this process."""

from treadle.cli import main


def run(*words: str) -> int:
    """The exit code of `treadle WORDS`."""
    try:
        return main(list(words))
    except SystemExit as stopped:
        return int(stopped.code or 0)
