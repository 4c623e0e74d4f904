"""The sealed log's format: blocks, tree, signed notes, entries, tombstones, keys, and their verification."""
