"""Pictures beside peers: the best peer at each budget and `auto`, with the errors that the tables have."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from logsnr.bench.peers import pictures
from logsnr.bench.peers.accuracy import PEER_GRIDS, cases
from logsnr.bench.peers.pictures import Strip, beside, drawn, strips_of
from logsnr.bench.problems import load_problem
from logsnr.bench.references import PathReference
from logsnr.bench.results import Results, Row

NFE = 5


def test_the_best_peer_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rows that are known, with the error of what is drawn; without any, the error says what to run."""
    problem = load_problem("mixture")
    start = problem.start(64, 0)
    reference = PathReference(start, problem.exact(start), 0.0)
    known = Results(tmp_path / "peers.csv", version=lambda package: "1")
    with pytest.raises(ValueError, match="no row of a peer for mixture at 5 evaluations: run `accuracy`"):
        strips_of(problem, reference, known, (NFE,), 0)
    planned = [case for case, _ in cases(problem, "azula", (NFE,), PEER_GRIDS, 0)]
    for k, case in enumerate(planned[:4]):
        statistics = {"median": 1.0 + abs(k - 2), "rms": 2.0, "p90": 2.0, "far": 0.0, "reference_error": 0.0}
        known.add(Row(case, NFE, statistics, "1"))
    asked = []

    def end_of_peer(*asked_of: object) -> tuple[torch.Tensor, int]:
        _, _, kind, nfe, _, sampler = asked_of
        asked.append(replace(planned[2], solver=sampler.name, grid=kind, nfe=nfe))  # type: ignore[attr-defined]
        return reference.answer + 0.5, NFE

    monkeypatch.setattr(pictures, "end_of_peer", end_of_peer)
    peer, ours = strips_of(problem, reference, known, (NFE,), 0)
    assert asked == [planned[2]]
    assert peer.label == f"{NFE}: {planned[2].solver.split(',')[0]}, azula"
    assert peer.median == pytest.approx(0.5)
    assert ours.label == f"{NFE}: auto"
    assert 0 < ours.median < 0.05
    assert replace(planned[2], nfe=6) not in asked


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_for_each(channels: int) -> None:
    """Samples side by side, and their errors but for the exact ends."""
    exact = torch.rand(3, channels, 8, 8, dtype=torch.float64) * 2 - 1
    strip = beside(exact)
    assert strip.shape[:2] == (8, 3 * 8 + 2 * 1)
    found = drawn(exact, [Strip("5: auto", torch.cat([exact, exact]), 0.125), Strip("6: auto", exact, 0.0)])
    assert isinstance(found, Figure)
    labels = [text.get_text() for ax in found.axes for text in ax.get_yticklabels()]
    assert labels == ["exact ends", "5: auto", "0.125", "6: auto", "0.000"]
