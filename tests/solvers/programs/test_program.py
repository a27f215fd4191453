"""The program format: what it says of itself, what is pruned, and what tells programs apart."""

import numpy as np
import pytest

import logsnr
from logsnr.solvers.programs.program import Call, NoiseKey, Program

SCH = logsnr.VPLinear()


def call(t: float, reads: tuple[int, ...], writes: tuple[int, ...], rows: list, **options: object) -> Call:
    return Call(t, reads, writes, np.array(rows, dtype=float), **options)  # type: ignore[arg-type]


def test_programs_are_immutable() -> None:
    """Neither the fields nor the coefficients of a program can be changed."""
    program = logsnr.solver("ddim").program(SCH, [1.0, 0.5])
    with pytest.raises(AttributeError):
        program.order = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        program.calls[0].matrix[0, 0] = 1


def test_length_is_nfe_and_print_shows_every_coefficient() -> None:
    """len(program) counts its calls, and each line of the print names time, input and coefficients."""
    program = logsnr.solver("dpmpp-2s").program(SCH, [1.0, 0.5, 0.2])
    assert len(program) == 4
    text = str(program)
    assert text.startswith("dpmpp-2s: order 2, 2 steps, 4 model evaluations")
    assert text.count("model(") == 4
    assert f"{program.calls[0].matrix[0, 0]:+.6g} x0" in text


def test_dead_rows_and_zero_columns_are_pruned() -> None:
    """The last history value is never written and a zero weight never read."""
    program = Program(
        "p", 1, (1.0, 0.5, 0.2),
        (call(1.0, (0,), (0, 1), [[1, 0, 1], [1, 0, 0]]), call(0.5, (0, 1), (0, 1), [[1, 0, 1, 0], [1, 0, 0, 0]])),
    )  # fmt: skip
    assert [c.writes for c in program] == [(0,), (0,)]
    assert [c.reads for c in program] == [(0,), (0,)]


def test_programs_know_two_output_rows_noise_and_per_element_columns() -> None:
    """A corrector's two rows, noise columns and per-channel coefficients are ordinary data of the format."""
    matrix = np.ones((2, 4, 3, 1, 1))
    program = Program(
        "p", 1, (1.0, 0.5, 0.2),
        (Call(1.0, (0,), (0, 1), matrix, noises=((1.0, 0.5),)), call(0.5, (0, 1), (0,), [[1, 0, 1, 1]], at=1)),
    )  # fmt: skip
    assert program.calls[0].matrix.shape == (2, 4, 3, 1, 1)
    assert program.calls[0].noises == program.noises == (NoiseKey(1.0, 0.5),)
    assert Program.from_json(program.to_json()) == program


def adding(*keys: tuple) -> Program:
    """A program of one call that adds these noises."""
    return Program("p", 1, (1.0, 0.2), (call(1.0, (0,), (0,), [[1, 0, 1, *[2] * len(keys)]], noises=keys, node=1),))


def test_noise_keys_are_data() -> None:
    """Interval and stream of a noise tell programs apart, are printed and survive JSON; the stream is 0 if left out."""
    plain, other = adding((1.0, 0.2)), adding((1.0, 0.2, 3))
    assert plain == adding((1.0, 0.2, 0))
    assert plain != other
    assert "+2 noise(1, 0.2)" in str(plain)
    assert "+2 noise(1, 0.2, 3)" in str(other)
    assert Program.from_json(other.to_json()) == other
    assert other.noises == (NoiseKey(1.0, 0.2, 3),)


def test_noises_of_a_stream_do_not_overlap() -> None:
    """Intervals of a stream that overlap are refused; equal ones, neighbours and those of other streams are not."""
    barely = np.nextafter(0.2, 1)
    for wrong in ((0.5, 0.2), (1.0, 0.5), (0.2, 1.0), (0.8, 0.3), (0.21, 0.1), (barely, 0.1), (2.0, 1 - 1e-9)):
        with pytest.raises(ValueError, match="overlap; split them"):
            adding((1.0, 0.2), wrong)
        assert len(adding((1.0, 0.2), (*wrong, 1)).noises) == 2
    assert adding((1.0, 0.5), (1.0, 0.5), (0.5, 0.2)).noises == (NoiseKey(1.0, 0.5), NoiseKey(0.5, 0.2))


def test_the_state_at_a_node_is_kept() -> None:
    """A call that reaches a node writes the state even where later calls read another slot: trajectories hold it."""
    first = call(1.0, (0,), (0, 1), [[1, 0, 1], [1, 0, 2]], node=1)
    last = call(0.5, (1,), (0,), [[1, 0, 1]], at=1, node=2)
    assert [c.writes for c in Program("p", 1, (1.0, 0.5, 0.2), (first, last))] == [(0, 1), (0,)]
