"""Where the noise of a run comes from: seeds, ids, generators, functions; what is the same in every batch."""

import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from checks import one_graph

import logsnr
from logsnr.kernels import normals

SCH = logsnr.VPLinear()
SHAPE = (16, 2, 3, 3)
NOISY = [name for name in logsnr.solver_names() if logsnr.solver(name).stochastic]


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Elementwise, so that the model's own results do not depend on the batch either."""
    return torch.clamp(x, -1, 1) * (1 - t).to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


DEN = logsnr.Denoiser(net, SCH, "x0")


def sample(x: torch.Tensor, solver: str = "sde-dpmpp-2m", **options: object) -> torch.Tensor:
    return logsnr.sample(DEN, x, solver=solver, steps=5, **options)


PATHS = ["ddpm", "sde-dpmpp-2m", "seeds-2", "er-sde-2", "edm-churn"]


@pytest.mark.parametrize(
    ("solver", "brownian"), [*((name, False) for name in NOISY), *((name, True) for name in PATHS)]
)
def test_a_sample_is_the_same_alone_and_in_any_batch(solver: str, brownian: bool) -> None:
    """Sample i of 16 has the bits of the same sample alone, in a part of the batch, and in reversed order."""
    x = logsnr.randn(SHAPE, seed=1)
    whole = sample(x, solver, seed=7, brownian=brownian)
    assert torch.equal(sample(x[5:6], solver, seed=7, sample_ids=[5], brownian=brownian), whole[5:6])
    assert torch.equal(sample(x[10:13], solver, seed=7, sample_ids=range(10, 13), brownian=brownian), whole[10:13])
    ids = torch.arange(16).flip(0)
    assert torch.equal(sample(x.flip(0), solver, seed=7, sample_ids=ids, brownian=brownian), whole.flip(0))
    assert not torch.equal(sample(x, solver, seed=8, brownian=brownian), whole)


def test_seeds_of_single_samples() -> None:
    """With a list every sample has its own seed, wherever it stands; equal seeds and starts give equal samples."""
    x = logsnr.randn((1, 3, 4), seed=0).expand(4, 3, 4)
    found = sample(x, seed=[3, 9, 3, (1 << 64) - 1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(sample(x[:1], seed=[9])[0], found[1])
    assert torch.equal(sample(x[:1], seed=9, sample_ids=[0])[0], found[1])
    assert torch.equal(sample(x, seed=torch.tensor([3, 9, 3, 5]))[:3], found[:3])
    assert torch.equal(sample(x, seed=np.array([3, 9, 3, 5]))[:3], found[:3])
    whole = sample(x, seed=9, sample_ids=np.arange(4))
    for one in (9, np.int32(9), np.uint64(9), torch.tensor(9)):
        assert torch.equal(sample(x, seed=one), whole)


def test_threads_backends_and_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads at once, any number of torch's threads, every backend, and runs that are watched give the same
    bits."""
    x = logsnr.randn((8, 4, 32, 32), seed=2)
    whole = sample(x, seed=3)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: sample(x, seed=3), range(8)):
            assert torch.equal(found, whole)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(sample(x.repeat(40, 1, 1, 1), seed=[5] * 320)[313], sample(x[1:2], seed=[5])[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(logsnr.solve(DEN, x, solver="sde-dpmpp-2m", steps=5, seed=3, trajectory=True).x, whole)
    monkeypatch.setenv("LOGSNR_BACKEND", "torch")
    assert torch.equal(sample(x, seed=3), whole)


def test_starts_are_made_by_the_backend_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`randn` has the same bits by compiled code, which is the default, and by torch, which then is alone at it."""
    used = list[str]()
    module = importlib.import_module("logsnr.kernels.execute")
    found = module._launcher
    monkeypatch.setattr(module, "_launcher", lambda backend: used.append(backend) or found(backend))
    x = logsnr.randn((3, 5, 7), seed=2)
    assert used == ["cpu"]
    monkeypatch.setenv("LOGSNR_BACKEND", "torch")
    assert torch.equal(logsnr.randn((3, 5, 7), seed=2), x)
    assert used == ["cpu"]
    monkeypatch.setenv("LOGSNR_BACKEND", "quick")
    with pytest.raises(ValueError, match="LOGSNR_BACKEND must be one of"):
        logsnr.randn((3, 5, 7), seed=2)


def test_gradients_and_layouts() -> None:
    """Recorded runs and other layouts of the start draw the same noise."""
    x = logsnr.randn((2, 3, 4, 4), seed=2)
    whole = sample(x, seed=3)
    recorded = sample(x.clone().requires_grad_(), seed=3)
    torch.testing.assert_close(recorded, whole, rtol=0, atol=1e-6)
    assert recorded.requires_grad
    assert torch.equal(sample(x.to(memory_format=torch.channels_last), seed=3), whole)


@one_graph
def test_compiled_loops() -> None:
    """They draw the same noise, or ask for it."""
    x = logsnr.randn((2, 3, 4, 4), seed=2)
    compiled = torch.compile(lambda x: sample(x, seed=3), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), sample(x, seed=3))
    asking = lambda x: sample(x, "seeds-2", noise=lambda key, like: torch.full_like(like, key.t))  # noqa: E731
    assert torch.equal(torch.compile(asking, fullgraph=True, backend="eager")(x), asking(x))


@pytest.mark.parametrize("state", [torch.float64, torch.float16])
@pytest.mark.parametrize("model", [torch.float32, torch.float16])
def test_dtypes(state: torch.dtype, model: torch.dtype) -> None:
    """The noise does not depend on the dtypes of state and model."""
    x = logsnr.randn((2, 3, 8), seed=2).to(state)
    den = logsnr.Denoiser(net, SCH, "x0", dtype=model)
    found = logsnr.sample(den, x, solver="sde-dpmpp-2m", steps=5, seed=3)
    exact = sample(x.double(), seed=3)
    assert found.dtype == state
    half = torch.float16 in (state, model)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-2 if half else 1e-5)


def test_seeds_from_generators() -> None:
    """Without a seed torch.manual_seed decides, with generator= its state; either moves on from run to run."""
    x = logsnr.randn((2, 3), seed=0)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(6)
        runs.append([sample(x), sample(x), sample(x, generator=generator), sample(x, generator=generator)])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)
    assert len({tuple(end.flatten().tolist()) for end in runs[0]}) == 4


def test_deterministic_solvers_ignore_all_of_it() -> None:
    """A deterministic solver takes seeds, ids, generators, paths and noise, and does what it does without."""
    x = logsnr.randn((2, 3), seed=0)
    plain = sample(x, "dpmpp-2m")
    for options in (
        {"seed": 1},
        {"seed": [1, 2]},
        {"brownian": True},
        {"noise": print},
        {"seed": 1, "sample_ids": [1]},
    ):
        assert torch.equal(sample(x, "dpmpp-2m", **options), plain)
    assert torch.equal(sample(x, "sde-dpmpp-2m", eta=0.0, seed=3), plain)


def test_randn() -> None:
    """randn gives addressed standard normals, in any dtype, that no run draws again."""
    x = logsnr.randn((3, 2, 5), seed=4, sample_ids=[7, 1, 9])
    assert torch.equal(x[1:2], logsnr.randn((1, 2, 5), seed=4, sample_ids=[1]))
    assert torch.equal(x[0].flatten(), normals(4, 7, 0, 10, stream=2))
    assert torch.equal(x.double(), logsnr.randn((3, 2, 5), seed=4, sample_ids=[7, 1, 9], dtype=torch.float64))
    many = logsnr.randn((1000, 1000), seed=1)
    assert abs(float(many.mean())) < 5e-3
    assert abs(float(many.std()) - 1) < 5e-3


def test_seeds_of_all_64_bits() -> None:
    """torch's integers are signed: from 2^63 on they are negative there, and the same seed all the same."""
    for seed in (0, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1):
        wanted = normals(seed, 0, 0, 6, stream=2)
        assert torch.equal(logsnr.randn((1, 6), seed=seed)[0], wanted)
        assert torch.equal(logsnr.randn((2, 6), seed=[1, seed])[1], wanted)
    ends = [sample(torch.zeros(1, 3), seed=seed) for seed in (0, 2**63 - 1, 2**63, 2**64 - 1)]
    assert len({tuple(end[0].tolist()) for end in ends}) == 4


X = torch.zeros(2, 3)
BAD = {
    "one of seed, generator and noise": {"seed": 1, "generator": torch.Generator()},
    "leave out brownian": {"noise": lambda key, like: like, "brownian": True},
    "one number for each of the 2 samples, not 3": {"seed": [1, 2, 3]},
    "sample_ids must have one number for each of the 2": {"seed": 1, "sample_ids": range(3)},
    r"seed must be integers from 0 to 2\^64 - 1, not -1": {"seed": -1},
    r"seed must be integers from 0 to 2\^64 - 1, not 1.5": {"seed": [1.5, 2]},
    r"sample_ids must be integers from 0 to 2\^32": {"seed": 1, "sample_ids": [0, 1 << 32]},
    "must return a tensor .2, 3. on cpu, not .3,.": {"noise": lambda key, like: torch.zeros(3)},
    "must return a tensor .2, 3. on cpu, not NoneType": {"noise": lambda key, like: None},
    "floating numbers, not torch.int64": {"noise": lambda key, like: torch.zeros(2, 3, dtype=torch.int64)},
    "^noise.1, .*returned infinities or NaNs": {"noise": lambda key, like: like / 0},
    r"seed must be integers from 0 to 2\^64 - 1, not 2.5": {"seed": 2.5},
    r"seed must be integers from 0 to 2\^64 - 1, not 'ab'": {"seed": "ab"},
    r"seed must be integers from 0 to 2\^64 - 1, not True": {"seed": True},
    "sample_ids must have one number for each of the 2 samples, not 3 alone": {"seed": 1, "sample_ids": 3},
    "eta = -1 must be": {"eta": -1},
    "step = 3 is not an option.*did you mean steps": {"step": 3},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_sources(message: str) -> None:
    """Sources that contradict each other or do not fit the batch are refused, by name."""
    with pytest.raises(ValueError, match=message):
        sample(X, **BAD[message])  # type: ignore[arg-type]
    for shape in ((), 3, (2, -1), (2, 1.5)):
        with pytest.raises(ValueError, match="batch dimension"):
            logsnr.randn(shape, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dtype must be .*not torch.int32"):
        logsnr.randn((2, 3), seed=0, dtype=torch.int32)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"noise": 3}, "noise must be a callable"), ({"generator": 3}, "generator must be a torch.Generator, not int")],
)
def test_sources_that_are_none(options: dict[str, object], message: str) -> None:
    """What can give no noise is refused before the model is called."""
    with pytest.raises(TypeError, match=message):
        logsnr.sample(logsnr.Denoiser(lambda x, t: 1 / 0, SCH), X, solver="ddpm", steps=3, **options)
