"""`pulse audit keys` and `pulse audit rotate-key`: the keys that checkpoints are signed with."""

from services.local.audit.app import app
from services.local.audit.places import key_file, public_keys
from services.local.errors import LocalError
from services.local.home import Home
from services.ops_worker.sealing.key_file import KeyFault, KeyFile


@app.command()
def keys() -> None:
    """Print the public keys, the newest last: what an auditor takes away."""
    for key in public_keys(Home.find(), None):
        print(key)


@app.command("rotate-key")
def rotate_key() -> None:
    """Sign with a new key from now on.

    What older keys signed stays verifiable with the public keys on record; the sealer takes the new key by itself.
    """
    found = key_file(Home.find())
    if not found.path.exists():
        raise LocalError(f"there is no key in {found.path} yet: the sealer makes it at its first pass")
    try:
        # The log keeps its name, whatever the settings of this shell say.
        key = KeyFile(found.path, found.load().name).rotate()
    except KeyFault as fault:
        raise LocalError(str(fault)) from None
    print(f"New checkpoints are signed with {key.verifier}")
    print(f"Give {found.public_path} to your auditors again: it has the older keys too.")
