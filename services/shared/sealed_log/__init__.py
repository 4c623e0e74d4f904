"""The sealed log: its format, and what the sealer and `pulse audit` share to append to it and to verify it.

tree, block, note, entry, tombstone, key_file    the format
memory, appending                                what was signed last; blocks and entries for the database
kept, chain, chain_reading, contents, database   checkpoints kept outside; blocks, tree and rows of the database
verification                                     all of it, held against each other
"""
