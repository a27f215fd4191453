"""What other libraries call the solvers here, and the grids.

The nearest solver of each: most are the same formula, some simplify its weights (``compat=``), and their defaults may
set another grid or another end.
"""

ELSEWHERE: dict[str, dict[str, tuple[str, ...]]] = {
    "ComfyUI": {
        "ddim": ("euler", "ddim"), "heun-rho": ("heun",), "dpm-2": ("dpm_2",), "dpm2-a": ("dpm_2_ancestral",),
        "lms-4": ("lms",), "ipndm-4": ("ipndm",), "deis-rho-4": ("ipndm_v",), "deis-3": ("deis",),
        "dpm-fast": ("dpm_fast",), "dpmpp-2m": ("dpmpp_2m", "res_multistep"), "exp-heun": ("exp_heun_2_x0",),
        "unipc-3": ("uni_pc", "uni_pc_bh2"), "gradient-estimation": ("gradient_estimation",),
        "euler-a": ("euler_ancestral",), "dpmpp-2s-a": ("dpmpp_2s_ancestral",),
        "sde-dpmpp-2s": ("dpmpp_sde", "seeds_2"),
        "sde-dpmpp-2m": ("dpmpp_2m_sde", "dpmpp_2m_sde_heun"), "sde-dpmpp-3m": ("dpmpp_3m_sde",),
        "ddpm": ("ddpm",), "er-sde-3": ("er_sde",), "sde-dpmpp-3s": ("seeds_3",),
        "sa-3": ("sa_solver", "sa_solver_pece"), "lcm": ("lcm",), "res-2s": ("res_2s",), "res-3s": ("res_3s",),
        "dpm-23": ("dpm_adaptive",),
    },
    "diffusers": {
        "ddim": ("DDIMScheduler", "EulerDiscreteScheduler"), "ddpm": ("DDPMScheduler",),
        "euler": ("FlowMatchEulerDiscreteScheduler",), "heun": ("FlowMatchHeunDiscreteScheduler",),
        "heun-rho": ("HeunDiscreteScheduler",), "dpm-2": ("KDPM2DiscreteScheduler",),
        "dpm2-a": ("KDPM2AncestralDiscreteScheduler",), "lms-4": ("LMSDiscreteScheduler",),
        "pndm": ("PNDMScheduler",), "ipndm-4": ("IPNDMScheduler",), "dpm-3m": ("DEISMultistepScheduler",),
        "dpmpp-2s": ("DPMSolverSinglestepScheduler",),
        "dpmpp-2m": ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
        "unipc-2": ("UniPCMultistepScheduler",), "euler-a": ("EulerAncestralDiscreteScheduler",),
        "sde-dpmpp-2s": ("DPMSolverSDEScheduler",), "sde-dpmpp-2m": ("CosineDPMSolverMultistepScheduler",),
        "sa-2": ("SASolverScheduler",), "lcm": ("LCMScheduler",), "tcd": ("TCDScheduler",),
    },
    "A1111": {
        "ddim": ("Euler", "DDIM"), "euler-a": ("Euler a",), "heun-rho": ("Heun",), "lms-4": ("LMS",),
        "dpm-2": ("DPM2",), "dpm2-a": ("DPM2 a",), "dpm-fast": ("DPM fast",), "dpmpp-2m": ("DPM++ 2M",),
        "dpmpp-2s-a": ("DPM++ 2S a",), "sde-dpmpp-2s": ("DPM++ SDE",), "sde-dpmpp-2m": ("DPM++ 2M SDE",),
        "sde-dpmpp-3m": ("DPM++ 3M SDE",), "unipc-3": ("UniPC",), "restart": ("Restart",), "lcm": ("LCM",),
        "dpm-23": ("DPM adaptive",),
    },
}  # fmt: skip

ALSO = {  # other spellings
    "euler_a": "euler-a", "euler ancestral": "euler-a", "dpm++ 2m sde heun": "sde-dpmpp-2m", "unipc_bh2": "unipc-3",
    "plms": "pndm", "dopri": "dopri5", "rk45": "dopri5", "heun2": "heun", "consistency": "lcm",
    "etd-rk4": "etdrk4", "rk4-etd": "etdrk4", "zeab": "dpm-3m", "xeab": "dpmpp-3m", "zab": "lms-3",
    "vab": "flow-3m",
}  # fmt: skip
GRIDS_ELSEWHERE = {
    "karras": "karras", "exponential": "logsnr", "simple": "time", "normal": "time", "uniform": "time",
    "sgm_uniform": "time", "ddim_uniform": "leading", "beta": "beta", "beta57": "beta", "kl_optimal": "arctan",
    "kl": "arctan", "linear_quadratic": "linear-quadratic", "bong_tangent": "bong-tangent", "lu": "logsnr",
    "ays": "ays-sd1", "align_your_steps": "ays-sd1", "oss": "oss-flux", "optimal_steps": "oss-flux",
}  # fmt: skip


def _plain(name: str) -> str:
    """A name without case, and with one kind of gap."""
    return name.lower().replace("_", " ").replace("-", " ").removesuffix("scheduler").removesuffix("sampler").strip()


SOLVERS_ELSEWHERE = {_plain(name): solver for name, solver in ALSO.items()} | {
    _plain(name): solver for names in ELSEWHERE.values() for solver, several in names.items() for name in several
}


def known_elsewhere(name: str) -> tuple[str | None, str | None]:
    """The solver and the grid, or None, that others mean by ``name``, as "DPM++ 2M Karras"."""
    words = _plain(name).split()
    for n in range(1, len(words)):  # the most words that are a grid, as "SGM Uniform"
        if grid := GRIDS_ELSEWHERE.get("_".join(words[n:])):
            return SOLVERS_ELSEWHERE.get(" ".join(words[:n])), grid
    return SOLVERS_ELSEWHERE.get(" ".join(words)), None


def names_elsewhere(solver: str) -> dict[str, tuple[str, ...]]:
    """By library, what it calls ``solver``; only libraries that have it."""
    return {library: names[solver] for library, names in ELSEWHERE.items() if solver in names}
