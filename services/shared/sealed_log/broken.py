"""What is wrong with a log, in a sentence for people."""


class Broken(Exception):
    """The log contradicts itself or what was signed. block_no: where, None when no single block is to blame."""

    def __init__(self, message: str, *, block_no: int | None = None) -> None:
        super().__init__(message)
        self.block_no = block_no
