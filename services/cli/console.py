"""Tables on the terminal."""

import sys

from rich.console import Console


def open_console(*, width: int = 160) -> Console:
    """Return the terminal, or a file or pipe with lines of this width. Text is never read as markup."""
    return Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False, highlight=False)
