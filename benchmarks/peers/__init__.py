"""One model as its users would write it in other simulators of Python, checked against simlib and timed beside it.

`message_queue` is `simlib.bench.queue_with_database`; `tandem` is what all can express: stations in a row with feedback.
Each peer's module has one function for each model that it can express, of the messages and the seed; `model.py` has the
numbers, and `python -m benchmarks.peers` makes the table.
"""
