"""Entry point of `python -m services.cli`."""

from services.cli.program import main

main()
