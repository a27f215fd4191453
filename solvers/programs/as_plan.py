"""Programs as plans for other servers: JSON whose columns are what a network returns."""

import json
from typing import Any

import numpy as np
import torch

from ..denoisers.denoiser import Denoiser, check_denoiser, time_map
from .as_json import call_fields, header
from .call import ONE
from .lower import lower

COND, UNCOND = "cond", "uncond"


def write_plan(program: Any, den: Denoiser) -> str:
    """``program`` lowered to the answers of ``den``'s network, in float64. ValueError for what no column can be."""
    check_denoiser(den)
    rule = den.guidance.rule if den.guidance else None
    if den.map_x0 is not None:
        raise ValueError("map_x0 is a function, which a plan cannot hold; write the plan of the denoiser without it")
    if program.basis is not None:
        raise ValueError(
            f"{program.name} is in the basis {program.basis}, and a plan has no transform; send the program, to_json()"
        )
    if rule and not rule.columns:
        raise ValueError(
            f"guidance {rule.kind!r} is not a sum with one weight for all samples, which is all that a plan can hold; "
            "write the plan of the denoiser without guidance, and let the server guide"
        )
    wide = torch.float64
    lowered = lower(program, den.schedule, den.prediction, state=wide, model=wide, rule=rule)
    times = np.array(lowered.times)
    told = time_map(den.time, den.schedule)(torch.from_numpy(times)).tolist()
    needs = rule.asks(den.schedule, times)[1] if rule else [(False, True)] * len(times)
    calls = []
    for call, update, time, need in zip(program, lowered.updates.calls, told, needs, strict=True):
        reads = [ONE if slot == lowered.updates.one else slot for slot in update.reads]
        wants = need if call.asks else (False, True)
        answers = [name for name, wanted in zip((UNCOND, COND), wants, strict=True) if wanted]
        numbers = {"writes": update.writes, "matrix": update.table.coefs.tolist()}
        calls.append(call_fields(call) | numbers | {"reads": reads, "answers": answers, "told": time})
    return json.dumps(header(program) | {"head": den.prediction, "calls": calls})
