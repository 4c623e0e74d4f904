"""The one error of the local stack; its text is the line a person reads."""


class LocalError(Exception):
    """Something on this machine is not as the local stack needs it."""

    status = 1
    """Exit status of the command."""


class BadSettingError(LocalError):
    """An environment variable cannot be used."""

    status = 2
