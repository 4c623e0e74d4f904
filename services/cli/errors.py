"""Failures of a command, whose text is the one line that `pulse` prints."""


class CommandFailed(Exception):
    """The command cannot do its work."""

    status = 1
    """Exit status of the command."""


class BadSettingError(CommandFailed):
    """An environment variable has a value that cannot be used."""

    status = 2
