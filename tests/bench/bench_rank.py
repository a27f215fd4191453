"""One rank of a bench: ``bench_rank.py CASE OUT ARGS...`` is ``logsnr bench --out OUT ARGS...``, and leaves in OUT/RANK
how many cases it has measured. CASE: "right", or "fails": the last of two ranks does, in its second case."""

import os
import sys
from pathlib import Path
from typing import Any

from logsnr.bench import job, references
from logsnr.bench.report import explorer
from logsnr.bench.work_precision import measure
from logsnr.cli import main

_, case, out, *args = sys.argv
log = Path(out) / os.environ["RANK"]
calls = 0


def counted(*given: Any) -> Any:
    global calls
    calls += 1
    log.write_text(str(calls))
    if case == "fails" and log.name == "1" and calls == 2:
        raise ArithmeticError("made to fail")
    return measure(*given)


job.measure = counted  # type: ignore[assignment]
references.REPLICAS = 4
explorer.available = lambda: False  # a page without curves
sys.argv = ["logsnr", "bench", "--out", out, *args]
main()
