"""Shards of pairs: what they hold, and that an interrupted run goes on with the same bits."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import logsnr
from logsnr.control import Pairs, pairs

SCH = logsnr.FlowMatching()
OPTIONS: dict[str, Any] = {"solver": "ddim", "steps": 3, "grid": "time"}


class Net(torch.nn.Module):
    """A network that is interrupted at its ``last`` call."""

    def __init__(self, last: int = 1 << 30) -> None:
        super().__init__()
        self.scale, self.left = torch.nn.Parameter(torch.tensor(0.7)), last

    def forward(self, x: torch.Tensor, t: torch.Tensor, **conditions: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.scale * torch.sin(x) + sum(y[:, None] for y in conditions.values())


def den(last: int = 1 << 30, **options: Any) -> logsnr.Denoiser:
    return logsnr.Denoiser(Net(last), SCH, "velocity", **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pairs_are_noise_and_sample(tmp_path: Path) -> None:
    """Sample i of any shard is what `logsnr.sample` makes of the start i."""
    found = pairs(den(), tmp_path / "a", 10, 4, (3,), 5, **OPTIONS)
    assert (len(found), found.count) == (3, 10)
    noise, made = (torch.cat([shard[name] for shard in found]) for name in ("noise", "sample"))
    assert torch.equal(noise, logsnr.start(SCH, (10, 3), seed=5))
    torch.testing.assert_close(made, logsnr.sample(den(), noise, **OPTIONS))
    again = Pairs.open(tmp_path / "a")
    assert again.count == 10
    assert torch.equal(again[2]["sample"], made[8:])
    with pytest.raises(IndexError):
        again[3]


@pytest.mark.parametrize("solver", ["ddim", "sde-dpmpp-1"])
def test_goes_on_with_the_same_bits(tmp_path: Path, solver: str) -> None:
    """A run that is interrupted in a shard, with a torn file left; and one with a smaller count before."""
    options = OPTIONS | {"solver": solver, "t_start": 0.9}
    pairs(den(), tmp_path / "whole", 10, 4, (3,), **options)
    with pytest.raises(KeyboardInterrupt):
        pairs(den(last=5), tmp_path / "cut", 10, 4, (3,), **options)
    assert Pairs.open(tmp_path / "cut").count == 4
    (tmp_path / "cut" / "pairs-000001.safetensors.1.tmp").write_bytes(b"torn")
    model = Net()
    pairs(logsnr.Denoiser(model, SCH, "velocity"), tmp_path / "cut", 10, 4, (3,), **options)
    assert (1 << 30) - model.left == 6  # calls, of two shards
    pairs(den(), tmp_path / "grown", 6, 4, (3,), **options)
    pairs(den(), tmp_path / "grown", 10, 4, (3,), **options)
    assert content(tmp_path / "whole") == content(tmp_path / "cut") == content(tmp_path / "grown")
    pairs(den(last=0), tmp_path / "whole", 7, 4, (3,), **options)  # nothing to do, nothing lost
    assert Pairs.open(tmp_path / "whole").count == 10


@pytest.mark.parametrize(
    "options",
    [
        {"grid": [0.8, 0.4, 0.1]},
        {"sigmas": [0.8, 0.4, 0.1]},
        {"solver": logsnr.solver("ddim").program(SCH, [0.8, 0.4, 0.1])},
        {"steps": 2, "t_start": 0.8},
    ],
    ids=lambda options: next(iter(options)),
)
def test_starts_where_the_run_starts(tmp_path: Path, options: dict[str, Any]) -> None:
    found = pairs(den(), tmp_path, 2, 2, (3,), **options)
    torch.testing.assert_close(found[0]["noise"], logsnr.start(SCH, (2, 3), seed=0, t_start=0.8))


def test_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    found = pairs(den(), tmp_path, 4, 4, (3,), **OPTIONS)
    right = content(tmp_path)
    found.shard(0).write_bytes(b"damaged")
    pairs(den(), tmp_path, 4, 4, (3,), **OPTIONS)
    assert content(tmp_path) == right


def test_a_damaged_shard_is_told(tmp_path: Path) -> None:
    found = pairs(den(), tmp_path, 10, 4, (3,), **OPTIONS)
    found.shard(1).write_bytes(b"lost")
    with pytest.raises(ValueError, match=r"pairs-000001.* is lost or damaged .* the same call of pairs writes it"):
        list(found)
    found.shard(1).unlink()
    with pytest.raises(ValueError, match=r"pairs-000001.* is lost or damaged"):
        found[1]
    assert len(list(pairs(den(), tmp_path, 10, 4, (3,), **OPTIONS))) == 3
    with pytest.raises(ValueError, match="t_start must be one number for all pairs"):
        pairs(den(), tmp_path / "more", 4, 4, (3,), t_start=torch.full((4,), 0.9), **OPTIONS)


def test_another_setting_is_refused(tmp_path: Path) -> None:
    """By name, and before the model is called."""
    pairs(den(), tmp_path, 4, 4, (3,), **OPTIONS)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("seed was 0, not 1", {"seed": 1}),
        ("batch was 4, not 2", {"batch": 2}),
        ("shape was [3], not [2]", {"shape": (2,)}),
        ("steps was 3, not 4", {"steps": 4}),
        ("solver was 'ddim', not 'dpmpp-2m'; shift was given, not 3.0", {"solver": "dpmpp-2m", "shift": 3.0}),
        ("dtype was 'torch.float32', not 'torch.float64'", {"dtype": torch.float64}),
        ("grid was 'time', not [1.0, 0.5, 0.0]", {"grid": torch.tensor([1.0, 0.5, 0.0])}),
    ]
    for message, change in changes:
        given = {"count": 4, "batch": 4, "shape": (3,), **OPTIONS} | change
        with pytest.raises(ValueError, match=re.escape(f"pairs of another setting: {message}")):
            pairs(den(last=0), tmp_path, **given)
    other = den(last=0)
    torch.nn.init.ones_(other.model.scale)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"denoiser was 'Net \(1 weights"):
        pairs(other, tmp_path, 4, 4, (3,), **OPTIONS)
    assert len(pairs(den(last=0), tmp_path, 4, 4, (3,), rtol=None, **OPTIONS)) == 1  # what is the default is the same


def test_conditions_follow_their_samples(tmp_path: Path) -> None:
    """Rows of conditions, guidance and its scale by sample; they are written, and others refused."""
    y = torch.arange(6.0)
    guidance = logsnr.Guidance(1 + y, uncond={"y": 0 * y})
    teacher = den(conditions={"y": y}, guidance=guidance)
    found = pairs(teacher, tmp_path, 6, 4, (3,), **OPTIONS)
    whole = {name: torch.cat([shard[name] for shard in found]) for name in found[0]}
    assert torch.equal(whole["condition.y"], y)
    torch.testing.assert_close(whole["sample"], logsnr.sample(teacher, whole["noise"], **OPTIONS))
    with pytest.raises(ValueError, match=r"pairs-000001.safetensors has other rows of condition.y"):
        pairs(den(conditions={"y": y.clamp(max=4)}, guidance=guidance), tmp_path, 6, 4, (3,), **OPTIONS)
    with pytest.raises(ValueError, match="has 6 rows for 8 pairs"):
        pairs(teacher, tmp_path, 8, 4, (3,), **OPTIONS)


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="callback and sample_ids: pairs has no such option"):
        pairs(den(), tmp_path, 4, 4, (3,), callback=print, sample_ids=[1], **OPTIONS)
    with pytest.raises(ValueError, match="seed must be one whole number"):
        pairs(den(), tmp_path, 4, 4, (3,), [1, 2, 3, 4], **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count = 0 must be an integer"):
        pairs(den(), tmp_path, 0, 4, (3,), **OPTIONS)
    with pytest.raises(TypeError, match=r"den must be a logsnr\.Denoiser"):
        pairs(Net(), tmp_path, 4, 4, (3,))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        Pairs.open(tmp_path)
    (tmp_path / "pairs-000000.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds shards and no manifest\.json"):
        pairs(den(), tmp_path, 4, 4, (3,), **OPTIONS)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="is no manifest of pairs: its format is 'other'"):
        pairs(den(), tmp_path, 4, 4, (3,), **OPTIONS)


def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(den(), tmp_path / "a", 2, 1, (3,), **OPTIONS)
    assert capsys.readouterr() == ("", "")
    pairs(den(), tmp_path / "b", 2, 1, (3,), progress=True, **OPTIONS)
    assert "2/2" in capsys.readouterr().err
