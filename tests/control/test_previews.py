"""Previews: PNG files that others read, of the estimate at every node that was asked for."""

import struct
import sys
import types
import zlib
from pathlib import Path

import pytest
import torch

import logsnr
from logsnr import control
from logsnr.control.previews import png, tiled

SCH = logsnr.VPLinear()


def unpacked(data: bytes) -> torch.Tensor:
    """(H, W, C) of a PNG file, each of its checksums looked at."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, chunks[b"IEND"]) == (8, b"")
    lines = torch.frombuffer(bytearray(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8).reshape(height, -1)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_the_estimate(tmp_path: Path, channels: int) -> None:
    """Every second node's; a batch of five is two rows of three."""
    den = logsnr.analysis.Gaussian(0.2, 0.1).denoiser(SCH)
    x = logsnr.randn((5, channels, 4, 6), seed=0)
    kept = {}

    def keep(node: int, t: float, state: torch.Tensor, x0: torch.Tensor) -> None:
        kept[node] = x0.clone()

    show = control.previews(tmp_path / "new" / "folder", every=2)
    logsnr.sample(den, x, solver="ddim", steps=5, callback=keep)
    logsnr.sample(den, x, solver="ddim", steps=5, callback=show)
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert [file.name for file in files] == ["0002.png", "0004.png"]
    found = unpacked(files[0].read_bytes())
    assert found.shape == (8, 18, channels)
    wanted = ((kept[2][4].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(found[4:, 6:12], wanted.permute(1, 2, 0))
    assert (found[4:, 12:] == 0).all()


def test_other_readers_read_it(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    levels = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3) * 10
    (tmp_path / "a.png").write_bytes(png(levels))
    with image.open(tmp_path / "a.png") as read:
        assert read.mode == "RGB"
        assert bytes(read.tobytes()) == bytes(levels.numpy().tobytes())


def test_values_beyond_the_range_are_cut() -> None:
    x = torch.tensor([-7.0, -1.0, 0.0, 1.0, 9.0, torch.nan]).reshape(1, 1, 1, 6)
    assert tiled(x.double()).flatten().tolist() == [0, 0, 128, 255, 255, 0]


def test_a_notebook_shows_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    class Handle:
        def update(self, image: object) -> None:
            shown.append(image)

    def display(image: object, display_id: bool) -> Handle:
        shown.append("first")
        return Handle()

    fake = types.ModuleType("IPython.display")
    fake.Image, fake.display = lambda data: data[:4], display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    den = logsnr.analysis.Gaussian(0.2, 0.1).denoiser(SCH)
    logsnr.sample(den, logsnr.randn((1, 1, 4, 6), seed=0), solver="ddim", steps=3, callback=control.previews())
    assert shown == ["first", b"\x89PNG", b"\x89PNG"]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every = 0 must be an integer"):
        control.previews(tmp_path, every=0)
    den = logsnr.analysis.Gaussian(0.2, 0.1).denoiser(SCH)
    for shape in ((2, 3), (2, 2, 4, 4)):
        with pytest.raises(ValueError, match=r"previews need images of shape \(B, 1 or 3, height, width\), not"):
            logsnr.sample(den, logsnr.randn(shape, seed=0), solver="ddim", steps=2, callback=control.previews(tmp_path))
