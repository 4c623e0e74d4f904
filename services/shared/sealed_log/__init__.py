"""The sealed log: its format, and the functions with which the sealer and `pulse audit` append to it and verify it.

tree, block, note, entry, tombstone, key_file    the format
memory, appending                                what was signed last; blocks and entries for the database
kept, chain, chain_reading, contents, database   checkpoints kept outside; blocks, tree and rows of the database
verification                                     the whole log and its rows
"""
