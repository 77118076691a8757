"""The campaign of faults: kills, cuts, forks, signals, full queues and broken networks, judged by one oracle.

`python -m tests.faults` runs it, on databases of its own in temporary folders, and prints a table. Each module has
one kind of fault and a list `FAULTS`. A fault is played in rounds, and a round can be repeated by its seed. What the
recorder acknowledged is written down outside of it, and `tests.oracle.judge` compares that with the database.
"""
