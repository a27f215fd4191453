"""torch.compile: a whole sampling loop is one graph, in which every update is one operator with its own backward."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from checks import one_graph
from torch._dynamo.testing import CompileCounterWithBackend

import logsnr
from logsnr.kernels import Noise, combine
from logsnr.kernels.combine_op import _fake

COEFS = np.array([[0.75, -1.25, 0.5], [2.0, 0.0, 3.0]])
SHAPE = (2, 3, 4, 4)

torch._dynamo.config.cache_size_limit = 64


def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (1 + t.to(x.dtype)).reshape(-1, 1, 1, 1)


def loop(solver: str, steps: int = 3, **options: object) -> Callable[..., torch.Tensor]:
    den = logsnr.Denoiser(net, logsnr.VPLinear(), "eps", **options)  # type: ignore[arg-type]
    return lambda x: logsnr.sample(den, x, solver=solver, steps=steps)


@one_graph
@pytest.mark.parametrize(("solver", "steps"), [("deis-4", 4), pytest.param("heun", 2, marks=pytest.mark.slow)])
def test_a_loop_is_one_graph(solver: str, steps: int) -> None:
    """A loop compiles with fullgraph=True to one graph with one update a model call; its results, and the gradients
    with respect to the start, are those of the loop itself, bit for bit."""
    torch._dynamo.reset()  # which would take a number of steps that changes for a symbol
    counter = CompileCounterWithBackend("aot_eager")
    plain, compiled = loop(solver, steps), torch.compile(loop(solver, steps), fullgraph=True, backend=counter)
    x = torch.randn(SHAPE)
    assert torch.equal(compiled(x), plain(x))
    assert counter.frame_count == 1
    nodes = [node.target for node in counter.graphs[0].graph.nodes]
    den = logsnr.Denoiser(net, logsnr.VPLinear())
    assert nodes.count(torch.ops.logsnr.combine) == logsnr.solve(den, x, solver=solver, steps=steps).nfe
    found = torch.autograd.grad(compiled(x.requires_grad_()).square().sum(), x)[0]
    assert torch.equal(found, torch.autograd.grad(plain(x).square().sum(), x)[0])


@one_graph
def test_one_compilation_per_shape() -> None:
    """Another call with a shape compiles nothing; a new shape compiles once, and then all batch sizes are known."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loop("dpmpp-2m"), fullgraph=True, backend=counter)
    frames = []
    for batch in (2, 2, 2, 3, 3, 4, 5, 2):
        compiled(torch.randn(batch, *SHAPE[1:]))
        frames.append(counter.frame_count)
    assert frames == [1, 1, 1, 2, 2, 2, 2, 2]


@one_graph
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("steps", (2, 3)),
        pytest.param("nfe", (2, 3, 4), marks=pytest.mark.slow),
        pytest.param("t_end", (0.1, 0.2), marks=pytest.mark.slow),
        ("seed", (1, 1 << 63)),
    ],
)
def test_numbers_that_change(name: str, values: tuple) -> None:
    """Dynamo takes a number for a symbol once it has changed: every number is a graph of its own, with its bits."""
    torch._dynamo.reset()
    den, x = logsnr.Denoiser(net, logsnr.VPLinear(), "eps"), torch.randn(SHAPE)
    solver, given = (
        ("sde-dpmpp-1", {"steps": 2}) if name == "seed" else ("ddim", {} if name != "t_end" else {"steps": 2})
    )

    def plain(x: torch.Tensor, value: float) -> torch.Tensor:
        return logsnr.sample(den, x, solver=solver, **given, **{name: value})

    compiled = torch.compile(plain, fullgraph=True, backend="eager")
    for value in (*values, values[0]):
        assert torch.equal(compiled(x, value), plain(x, value))


@one_graph
def test_options_and_grids_of_a_graph() -> None:
    """A solver with its options, and a program on any grid, are made outside of it."""
    den, x = logsnr.Denoiser(net, logsnr.VPLinear(), "eps"), torch.randn(SHAPE)
    made = [logsnr.solver("sde-dpmpp-2m", eta=0.3), logsnr.solver("dpmpp-2m").program(den.schedule, [1.0, 0.5, 0.1])]
    for solver in made:
        given = {} if isinstance(solver, logsnr.Program) else {"steps": 3, "seed": 1}

        def plain(x: torch.Tensor, solver: object = solver, given: dict = given) -> torch.Tensor:
            return logsnr.sample(den, x, solver=solver, **given)

        assert torch.equal(torch.compile(plain, fullgraph=True, backend="eager")(x), plain(x))


@one_graph
@pytest.mark.parametrize(
    ("state", "model"), [(torch.float32, torch.float16), pytest.param(torch.bfloat16, None, marks=pytest.mark.slow)]
)
def test_loops_of_half_precision(state: torch.dtype, model: torch.dtype | None) -> None:
    """Casts for the model are part of the graph."""
    plain = loop("dpmpp-2m", dtype=model)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    x = torch.randn(SHAPE).to(state)
    assert torch.equal(compiled(x), plain(x))


@one_graph
def test_vmap_inside_of_a_graph() -> None:
    """vmap of a loop compiles as well, over any dimension and with what is not mapped."""
    plain, x = loop("deis-2"), torch.randn(3, *SHAPE)
    compiled = torch.compile(torch.func.vmap(plain, in_dims=1, out_dims=2), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x.movedim(0, 1)), plain(x.flatten(0, 1)).reshape(x.shape).movedim(0, 2))
    y = torch.randn(())
    found = torch.compile(torch.func.vmap(lambda a: combine([a, y, a], COEFS)[0][1]), backend="aot_eager")(
        x[0, 0, 0, 0]
    )
    assert torch.equal(found, combine([x[0, 0, 0, 0]] * 2, [[2.0, 3.0]])[0][0])


def test_the_operator() -> None:
    """torch.library's own checks hold: schema, fake kernel, autograd registration and traceability."""
    x, y = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5, dtype=torch.float64)
    coefs = torch.from_numpy(COEFS[:, :2].copy())
    arguments = ([x, y], coefs, [1, 2], 1, None, None, [], None)
    torch.library.opcheck(torch.ops.logsnr.combine.default, arguments)
    made = _fake(*arguments[:3])
    assert [(m.shape, m.dtype) for m in made] == [((2, 5), torch.float32), ((2, 5), torch.float16), ((), torch.bool)]


def test_backward_is_the_transposed_map() -> None:
    """First and second derivatives of recorded combinations are right, also where noise is added; gradients have the
    dtypes of their inputs."""
    xs = [torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    noise = Noise(torch.arange(2), torch.arange(2), ((1, 0),))
    coefs = np.concatenate([COEFS, [[1.5], [0.25]]], axis=1)

    def outputs(*xs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return combine(xs, coefs, noise=noise)[0]

    assert type(outputs(*xs)[0].grad_fn).__name__.startswith("Generated")  # of the operator, not of its parts
    assert torch.autograd.gradcheck(outputs, xs)
    assert torch.autograd.gradgradcheck(outputs, xs)
    half = xs[0].detach().half().requires_grad_()
    combine([half, xs[1]], COEFS[:, :2], dtypes=[torch.float32] * 2)[0][0].sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.float16
    assert half.grad.unique().tolist() == [0.75]


def test_many_inputs_and_coefficients_by_element() -> None:
    """Backward of twelve inputs takes them three at a time, and coefficients by element go with their elements."""
    xs = [torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(12)]
    coefs = np.random.default_rng(0).normal(size=(3, 12, 3, 1))
    weights = [torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(3)]
    total = sum((w * y).sum() for w, y in zip(weights, combine(xs, coefs)[0], strict=True))
    grads = torch.autograd.grad(total, xs)  # type: ignore[arg-type]
    for j, grad in enumerate(grads):
        torch.testing.assert_close(grad, sum(torch.from_numpy(coefs[r, j]) * weights[r] for r in range(3)))


def test_errors_of_a_graph() -> None:
    """What does not fit is refused while the graph is made, and a backend that cannot serve when it runs."""
    x = torch.randn(2, 3)
    for function, message in [
        (lambda x: combine([x, x[:1]], COEFS[:, :2])[0][0], "all tensors must have the shape"),
        (lambda x: combine([x], COEFS)[0][0], r"coefs must have shape"),
    ]:
        with pytest.raises(Exception, match=message):
            torch.compile(function, fullgraph=True, backend="eager")(x)
    with pytest.raises(RuntimeError, match="cannot serve"):
        torch.compile(lambda x: combine([x.T, x.T.contiguous()], COEFS[:, :2], backend="cpu")[0][0], backend="eager")(x)
