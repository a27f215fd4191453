"""The first runs of a process, made by several threads at once: what is loaded and made only then is made once."""

import subprocess
import sys

CODE = """
import threading
import logsnr, torch

def settings():
    runs = [{"solver": name, "steps": 6, "seed": 3} for name in ("dpmpp-2m", "sde-dpmpp-2m", "rk4", "dpmpp-2m")]
    runs.append({"solver": "sde-dpmpp-1", "steps": 6, "seed": 3, "brownian": True, "trajectory": True})
    return [*runs, runs[1] | {"parallel": logsnr.Picard(tol=0.0)}, {"solver": "dopri5", "rtol": 1e-3, "atol": 1e-3}]

def net(x, t):
    return x / (1 + x * x)

given = settings()
x = torch.linspace(-1, 1, 240).reshape(2, 3, 40)
kinds = [torch.float32, torch.float64]
ends, barrier = {}, threading.Barrier(2 * len(given))

def use(kind, k):
    barrier.wait()
    ends[kind, k] = logsnr.sample(logsnr.Denoiser(net, logsnr.VPLinear()), x.to(kind), **given[k])

threads = [threading.Thread(target=use, args=(kind, k)) for kind in kinds for k in range(len(given))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for (kind, k), end in ends.items():
    again = logsnr.sample(logsnr.Denoiser(net, logsnr.VPLinear()), x.to(kind), **settings()[k])
    assert torch.equal(end, again), (kind, given[k])
print(len(ends))
"""


def test_first_use_by_several_threads() -> None:
    """Imports, plans, noise, compiled loops and the tables of adaptive methods: every thread gets the bits that it gets
    alone."""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, timeout=300)
    assert (ran.stdout, ran.stderr) == ("14\n", "")
