"""The decision whether this process may append to the log: by key, server and unbroken history."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from services.shared.sealed_log import tree
from services.shared.sealed_log.entry import Entry, Site, open_entry
from services.shared.sealed_log.key_file import KeyFile
from services.shared.sealed_log.note import BadNote, Checkpoint, SignerKey, VerifierKey, open_checkpoint

COMMAND = "pulse audit continue --from-checkpoint"
LOSS = "pulse audit declare-loss --reason TEXT"


class LogBroken(Exception):
    """Raised if the log in the database contradicts a signature; nothing is appended."""


class SealingRefused(Exception):
    """Raised if this process may not append to the log. reason: label of the metric."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Announcement(NamedTuple):
    """An entry to append before the next block of rows."""

    kind: str
    reason: str
    old: str | None = None
    handover: str | None = None


def signer_of(head: Mapping[str, Any]) -> VerifierKey | None:
    """Return the key that signed the newest checkpoint, None if nothing is signed."""
    return None if head["key_id"] is None else VerifierKey(head["key_name"], head["public_key"])


def check_key(head: Mapping[str, Any], key: SignerKey | None, keys: KeyFile) -> Announcement | None:
    """Return the announcement of a new key, None if the key signed the log. Raises SealingRefused, KeyFault."""
    signer = signer_of(head)
    if signer is None or (key is not None and signer == key.verifier):
        return None
    steps = None if key is None else keys.handover(signer, key.verifier)
    if steps is None:
        raise SealingRefused(
            "no_key",
            f"the log was signed by key {signer.key_id} ({signer.name}); put that key into {keys.path}, or run "
            "`pulse audit rotate-key --lost` if it is gone",
        )
    return Announcement("key", "the key was rotated", str(signer), steps)


def check_beginning(head: Mapping[str, Any], keys: KeyFile, *, is_anchored: bool) -> None:
    """Check that no key was used here before the first one is made. Raises SealingRefused, MemoryFault."""
    signs = [
        what
        for what, is_there in (
            ("the database had a sealed log", head["is_begun"]),
            (f"{keys.path.parent} has files of an earlier key", keys.has_traces()),
            ("there are kept checkpoints", is_anchored),
        )
        if is_there
    ]
    if signs:
        raise SealingRefused(
            "no_key",
            f"there is no key in {keys.path}, and {', '.join(signs)}: put the key back, or run "
            "`pulse audit rotate-key --lost` if it is gone; a new log has its own directory for key and checkpoints",
        )


def check_installation(head: Mapping[str, Any], known: str | None, keys: KeyFile) -> None:
    """Check that the key's memory belongs to this installation's log. Raises SealingRefused.

    A wrong URL or directory is the common cause, so no lasting alarm is raised. Nothing is signed meanwhile.
    """
    if known is not None and known != head["installation_id"]:
        raise SealingRefused(
            "moved",
            f"{keys.path} and the files beside it belong to the log of installation {known}, and this database is "
            f"installation {head['installation_id']}: correct PULSE_OPS_DATABASE_URL or PULSE_AUDIT_KEY_FILE; a new "
            f"log has its own directory for key and checkpoints; if the id was altered, keep a copy and run `{LOSS}`",
        )


def recorded_site(head: Mapping[str, Any], verifiers: Iterable[VerifierKey]) -> Site | None:
    """Return the place where the log was last sealed or continued, None without a record. Raises BadNote."""
    if head["entry"] is not None:
        return open_entry(head["entry"], verifiers)[0].after
    return None if head["epoch"] is None else Site.read(head)


def check_site(
    head: Mapping[str, Any], site: Site, seen: Checkpoint | None, verifiers: Iterable[VerifierKey]
) -> Announcement | None:
    """Return the announcement of a new server, None if the log has not moved. Raises SealingRefused, BadNote."""
    recorded = recorded_site(head, verifiers)
    differs = set() if recorded is None else set(recorded.differences(site))
    if not differs:
        return None
    if differs == {"timeline"} and seen is not None:
        return Announcement("timeline", "a standby was promoted")
    what = "another timeline" if differs == {"timeline"} else "another server or database"
    raise SealingRefused(
        "moved",
        f"the log of {head['tree_size']} blocks was sealed on {what} ({recorded}; this is {site}); if you restored or "
        f"upgraded it, run `{COMMAND} {head['tree_size']} --reason TEXT`",
    )


def check_head(head: Mapping[str, Any], seen: Checkpoint | None, verifiers: Sequence[VerifierKey]) -> tree.Frontier:
    """Return the frontier to append to, checked against the signature. Raises LogBroken."""
    size = head["tree_size"]
    if seen is not None and size < seen.tree_size:
        remedy = (
            f"after a restore to an earlier moment run `{COMMAND} {size} --reason TEXT`"
            if size
            else f"begin another log, with a directory of its own for key and checkpoints, or run `{LOSS}`"
        )
        raise LogBroken(
            f"the log had {seen.tree_size} blocks and has {size}: its end was cut off,"
            f" or the key and checkpoints here are those of another database; {remedy}"
        )
    if size == 0 and head["is_begun"]:
        raise LogBroken(f"the log was begun and has no blocks: its tables were emptied; run `{LOSS}`")
    try:
        frontier = tree.Frontier(size, head["frontier"])
        if size == 0:
            return frontier
        checkpoint = open_checkpoint(head["note"] or "", verifiers)
    except (TypeError, ValueError, BadNote) as fault:
        raise LogBroken(f"the log of {size} blocks is damaged: {fault}; `{LOSS}`") from None
    if (checkpoint.tree_size, checkpoint.root, checkpoint.row_count) != (size, frontier.root(), head["row_count"]):
        raise LogBroken(f"the log of {size} blocks is not the one that was signed; `{LOSS}`")
    if seen is not None and seen.tree_size == size and seen.root != checkpoint.root:
        raise LogBroken(two_histories(size, seen.tree_size))
    return frontier


def two_histories(size: int, signed: int) -> str:
    """Return the fault of a log whose signed tree is another one."""
    return (
        f"the log of {size} blocks has two histories: its first {signed} blocks are not those that were signed; keep a "
        f"copy of the database and run `{LOSS}`"
    )


def is_lost(checkpoint: Checkpoint, entries: Iterable[Entry]) -> bool:
    """Return whether an entry declares a checkpoint's blocks lost."""
    return any(entry.leaves_out(checkpoint.tree_size, checkpoint.signed_at) for entry in entries)
