"""Options together, and models and callbacks that do what they may: what one part does, the others follow."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parallel_runs import exact

import logsnr
from logsnr.control import previews
from logsnr.solvers import DCT, Basis, Principal
from logsnr.solvers.denoisers.guidance_rules import KINDS

SCH = logsnr.VPLinear()
X = logsnr.randn((2, 3, 4), seed=1)
MASK = (torch.arange(4) < 2).float()
Y = torch.tensor([1.0, 2.0]).reshape(2, 1, 1)
WIENER = logsnr.Wiener(np.full((3, 4), 0.1), np.geomspace(0.1, 1.0, 12).reshape(3, 4), basis=DCT())
GRID = logsnr.grid(SCH, 5)
PLAIN = logsnr.solver("dpm-2m").program(SCH, GRID)
KNOWN = PLAIN.with_known(SCH, WIENER)


def net(x: torch.Tensor, t: torch.Tensor, y: Any = 0.0) -> torch.Tensor:
    return torch.tanh(x + 0.5 * x.roll(1, 2) + y)


def written(node: int, t: Any, state: torch.Tensor) -> None:
    state.mul_(MASK)


def uncounted(node: int, t: Any, state: torch.Tensor) -> None:
    state.data.mul_(MASK)


EDITED: dict[str, dict[str, Any]] = {
    "plain": {"solver": "dpm-2m", "steps": 5},
    "starts": {"solver": "dpm-2m", "steps": 5, "t_start": torch.tensor([1.0, 0.7])},
    "basis": {"solver": KNOWN},
    "checkpoint": {"solver": "dpm-2m", "steps": 5, "grad": True, "checkpoint": 2},
}


@pytest.mark.parametrize("how", EDITED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_edits_that_torch_does_not_count(how: str, dtype: torch.dtype) -> None:
    """In inference mode, and by .data: the run goes on from them as from a state that is returned."""
    den = logsnr.Denoiser(net, SCH, "x0", dtype=dtype)
    wanted = logsnr.sample(den, X, callback=lambda node, t, state: state * MASK, **EDITED[how])
    unlike = logsnr.sample(den, X, **EDITED[how])
    assert (wanted - unlike).abs().max() > 0.1
    for callback, mode in ((uncounted, nullcontext()), (written, torch.inference_mode())):
        with mode:
            found = logsnr.sample(den, X, callback=callback, **EDITED[how])
        torch.testing.assert_close(found.clone(), wanted.detach(), rtol=0, atol=1e-6 if how == "basis" else 0)


@pytest.mark.parametrize("how", ["basis", "complex"])
def test_no_x0_where_nobody_asked(how: str, tmp_path: Path) -> None:
    """A callback is told so, whatever the states are; previews have nothing to show there."""
    told, x = list[tuple[int, bool, torch.Size]](), X if how == "basis" else torch.complex(X, X)
    den = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, "x0")
    known = KNOWN if how == "basis" else PLAIN.with_known(SCH, logsnr.Wiener(0.0, 0.3))
    logsnr.sample(den, x, solver=known, callback=lambda node, t, x, x0: told.append((node, x0 is None, x.shape)))
    assert told == [(n, n == 1, X.shape) for n in range(1, 6)]
    images = X.reshape(2, 1, 3, 4)
    known = PLAIN.with_known(SCH, logsnr.Wiener(0.0, 0.3))
    logsnr.sample(den, images, solver=known, callback=previews(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"000{n}.png" for n in range(2, 6)]


def one_memory() -> Callable[..., torch.Tensor]:
    """A model that writes all its answers to the same memory, as those in CUDA graphs do."""
    memory = torch.empty(64, 3, 4)

    def model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        memory[: len(x)] = net(x, t, y)
        return memory[: len(x)]

    return model


@pytest.mark.parametrize("kind", ["cfg", "rescale"])
@pytest.mark.parametrize("interval", [None, (-1.0, 20.0)])
@pytest.mark.parametrize("parallel", [None, exact(), logsnr.Rounds()])
def test_both_answers_in_the_same_memory(kind: str, interval: Any, parallel: Any) -> None:
    """The second does not take the place of the first."""

    def run(model: Any) -> torch.Tensor:
        guidance = logsnr.Guidance(3.0, interval=interval, uncond={"y": -Y}, batched=False, kind=kind)
        den = logsnr.Denoiser(model, SCH, "x0", conditions={"y": Y}, guidance=guidance)
        return logsnr.sample(den, X, solver="dpm-2m", steps=5, parallel=parallel)

    assert torch.equal(run(one_memory()), run(net))


@pytest.mark.parametrize("other", [np.zeros((2, 1, 1)), torch.zeros(2, 1, 1, dtype=torch.float64)])
def test_conditions_of_two_kinds_are_asked_apart(other: Any) -> None:
    """Of two dtypes, or of arrays: put together, one would be turned into the other."""
    seen = set[Any]()

    def model(x: torch.Tensor, t: torch.Tensor, y: Any) -> torch.Tensor:
        seen.add(y.dtype)
        return net(x, t, torch.as_tensor(y).to(x.dtype))

    given = np.ones((2, 1, 1)) if isinstance(other, np.ndarray) else Y
    guidance = logsnr.Guidance(2.0, uncond={"y": other})
    den = logsnr.Denoiser(model, SCH, "x0", conditions={"y": given}, guidance=guidance)
    assert torch.isfinite(logsnr.sample(den, X, solver="ddim", steps=2)).all()
    assert seen == {given.dtype, other.dtype}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cfg++"])
@pytest.mark.parametrize("event", [(), (1,), (4,)])
@pytest.mark.parametrize("scale", [3.0, torch.tensor([3.0, 3.0, 3.0])])
def test_every_rule_for_samples_of_one_element(kind: str, event: tuple[int, ...], scale: Any) -> None:
    """Finite, and a sample's answer is its own; also where the answers have no deviation."""
    y = torch.tensor([1.0, 2.0, 0.0]).reshape(-1, *[1] * len(event))

    def run(samples: slice) -> torch.Tensor:
        w = scale[samples] if isinstance(scale, torch.Tensor) else scale
        guidance = logsnr.Guidance(w, uncond={"y": -y[samples]}, kind=kind)
        model = lambda x, t, y: torch.tanh(x + y) if y.any() else 0 * x  # noqa: E731
        den = logsnr.Denoiser(model, SCH, "x0", conditions={"y": y[samples]}, guidance=guidance)
        return logsnr.sample(den, logsnr.randn((3, *event), seed=0)[samples], solver="dpm-2m", steps=3)

    whole = run(slice(None))
    assert torch.isfinite(whole).all()
    for b in range(2):
        torch.testing.assert_close(run(slice(b, b + 1)), whole[b : b + 1])


def in_place(x: torch.Tensor, t: torch.Tensor, y: Any = 0.0) -> torch.Tensor:
    return torch.tanh(x.mul_(2) + y)


HALVES = {"dtype": torch.float16}  # the model sees casts, which it may write to


@pytest.mark.parametrize("options", [{}, HALVES], ids=["state", "cast"])
@pytest.mark.parametrize("more", [{}, {"parallel": logsnr.Rounds()}, {"parallel": exact()}], ids=str)
def test_what_is_needed_again_must_not_be_written_to(options: Any, more: Any) -> None:
    """By a model that is asked for a second answer, or whose x0 is mapped: it would be of another x."""
    guidance = logsnr.Guidance(3.0, uncond={"y": -Y}, batched=False)
    for asked in ({"conditions": {"y": Y}, "guidance": guidance}, {"map_x0": lambda x0, x, t: x0.clamp(-1, 1)}):
        den = logsnr.Denoiser(in_place, SCH, "v", **asked, **options)
        with pytest.raises(ValueError, match="the model has changed x in place"):
            logsnr.sample(den, X, solver="ddim", steps=3, **more)


def test_a_stepper_of_complex_states_passes_known_calls() -> None:
    """With the bits of the run."""
    known, x = PLAIN.with_known(SCH, logsnr.Wiener(0.0, 0.3)), torch.complex(X, X.flip(0))
    stepper = logsnr.Stepper(known, SCH, "x0", x)
    while not stepper.done:
        stepper.step(0.5 * stepper.x)
    assert torch.equal(stepper.x, logsnr.sample(logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, "x0"), x, solver=known))


@pytest.mark.parametrize("basis", [DCT(), DCT(1), Principal(np.linalg.qr(np.vander(np.arange(12.0) / 6))[0], (3, 4))])
def test_autocast_is_for_models(basis: Basis) -> None:
    """States are transformed in their own dtype."""
    known = PLAIN.with_known(SCH, logsnr.Wiener(np.zeros((3, 4)), 0.3, basis=basis))
    den = logsnr.Denoiser(lambda x, t: 0.5 * x, SCH, "x0")
    wanted = logsnr.sample(den, X, solver=known)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(logsnr.sample(den, X, solver=known), wanted)


def test_rows_that_half_precision_needs() -> None:
    """A call that writes three slots has none left for what the model sees, and says so."""
    first = logsnr.Call(1.0, (0,), (0, 1, 2), [[0.1, 0.1, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    last = logsnr.Call(0.5, (0, 1, 2), (0,), [[0.1, 0.1, 0.3, 0.2, 0.1]], node=1)
    program = logsnr.Program("three", 1, (1.0, 0.2), (first, last))
    assert torch.isfinite(logsnr.sample(logsnr.Denoiser(net, SCH, "x0"), X, solver=program)).all()
    with pytest.raises(ValueError, match=r"t = 1 writes 3 slots, and there is no row left for what the model sees"):
        logsnr.sample(logsnr.Denoiser(net, SCH, "x0", dtype=torch.float16), X, solver=program)
