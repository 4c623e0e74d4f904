"""Typer applications with the look that every command of `pulse` shares."""

import typer

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of a command that passes its further arguments to another program."""


def new_app(group_help: str | None = None) -> typer.Typer:
    """Return an application for one command or, with a help text, for a group of commands."""
    return typer.Typer(
        help=group_help,
        no_args_is_help=group_help is not None,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
