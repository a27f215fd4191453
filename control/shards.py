"""Pairs on a disk: shards, and a manifest that says what they are of. Files appear whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

FORMAT, MANIFEST = "logsnr-pairs-1", "manifest.json"


@dataclass(frozen=True)
class Pairs:
    """What `pairs` has written: shards k = 0, 1, ... of ``batch`` samples each; ``count`` samples in all.

    ``for shard in found`` gives one dictionary each: "noise" and "sample", (n, *shape), and the rows of the model's
    conditions by their names.
    """

    folder: Path
    count: int
    batch: int
    setting: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "Pairs":
        """What is in ``folder``. Raises FileNotFoundError where there is no manifest, ValueError where it is none."""
        path = Path(folder) / MANIFEST
        try:
            told = json.loads(path.read_text())
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']!r:.60}")
            return cls(Path(folder), int(told["count"]), int(told["setting"]["batch"]), told["setting"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no manifest of pairs: {error}") from None

    def __len__(self) -> int:
        """The number of shards."""
        return -(-self.count // self.batch)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        if not 0 <= k < len(self):
            raise IndexError(f"shard {k} is not one of {len(self)}")
        rows = min(self.batch, self.count - k * self.batch)
        try:
            return {name: tensor[:rows] for name, tensor in load_file(self.shard(k)).items()}
        except (SafetensorError, FileNotFoundError) as error:
            told = f"{self.shard(k)} is lost or damaged ({error}): the same call of pairs writes it again"
            raise ValueError(told) from None

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[k] for k in range(len(self)))

    def shard(self, k: int) -> Path:
        return self.folder / f"pairs-{k:06d}.safetensors"

    def write(self) -> None:
        told = {"format": FORMAT, "count": self.count, "setting": self.setting}
        write(self.folder / MANIFEST, (json.dumps(told, indent=1) + "\n").encode())


def written(path: Path, rows: int, conditions: Mapping[str, torch.Tensor]) -> bool:
    """Whether the shard is there, with ``rows`` samples; ValueError if they have other conditions."""
    if not path.exists():
        return False
    try:
        with safe_open(path, "pt") as file:
            if file.get_slice("sample").get_shape()[0] < rows:
                return False
            for name, y in conditions.items():
                if not torch.equal(file.get_tensor(name)[:rows], y.cpu()):
                    raise ValueError(f"{path} has other rows of {name}: give another folder")
    except SafetensorError:  # damaged on the disk
        return False
    return True


def write(path: Path, data: bytes) -> None:
    """All of it or nothing, whatever is killed."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
