"""The benchmark compares what does the same work, and says what it measured."""

import math
import subprocess
import sys

from simlib import bench


def test_a_ratio_is_of_engines_that_agree_and_has_its_range():
    one = bench._engines("queue", lambda engine: bench.simulate(bench.queue_with_database(), 300, engine=engine), 3)
    assert one.pairs == 3
    assert 0 < one.least <= one.ratio <= one.most < math.inf
    ((what, ratio, time),) = bench.table([one])
    assert what == "queue: simpy / compiled"
    assert "(3)" in ratio
    assert time.endswith("ms")


def test_a_first_run_waits_for_no_library_that_it_does_not_need():
    run = "import simlib, sys; simlib.run('rest', messages=50); print('pandas' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", run], text=True) == "False\n"
