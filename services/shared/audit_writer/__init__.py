"""The parts of services.shared.audit, which alone imports them.

event ─▶ aggregation ─▶ line (cleaning) ─▶ buffer ─▶ journal ─▶ database
                                                        └─▶ spool ─▶ spool_directory ─▶ drain ─▶ database

ledger counts events that are not durable yet, gaps makes the rows about lost ones, keeper runs drain and writes the
rows that fall due, metrics reads every part.
"""
