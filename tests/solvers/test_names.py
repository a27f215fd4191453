"""Names of other libraries: each leads to a solver that exists, and the error says which, with its grid."""

import pytest

import logsnr
from logsnr.solvers.catalogue.catalogue import families
from logsnr.solvers.names_elsewhere import ALSO, ELSEWHERE, SOLVERS_ELSEWHERE, known_elsewhere, names_elsewhere


def test_every_name_elsewhere_is_of_a_solver_here() -> None:
    """The table names solvers that there are, and no name of another library twice."""
    named = {solver for names in ELSEWHERE.values() for solver in names}
    assert named | set(ALSO.values()) <= set(logsnr.solver_names())
    for names in ELSEWHERE.values():
        several = [name for known in names.values() for name in known]
        assert len(several) == len(set(several))


def test_families_are_all_names() -> None:
    """Those that need something given are listed too, but are no names that stand alone."""
    listed = [name for names in families().values() for name in names]
    assert [name for name in listed if name in logsnr.solver_names()] == logsnr.solver_names()
    assert {name.rsplit("-", 1)[0] for name in set(listed) - set(logsnr.solver_names())} == {"wiener", "dpm-v3"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DPM++ 2M Karras", "that is solver='dpmpp-2m' with grid='karras'"),
        ("dpmpp_2m", "that is solver='dpmpp-2m'$"),
        ("DPM++ 3M SDE Exponential", "that is solver='sde-dpmpp-3m' with grid='logsnr'"),
        ("UniPCMultistepScheduler", "that is solver='unipc-2'"),
        ("IPNDM", "that is solver='ipndm-4'"),
        ("Euler a", "that is solver='euler-a'"),
        ("PLMS", "that is solver='pndm'"),
        ("DPM++ 2M SGM Uniform", "that is solver='dpmpp-2m' with grid='time'$"),
        ("DPM++ 2M SDE Align Your Steps", "that is solver='sde-dpmpp-2m' with grid='ays-sd1'"),
        ("euler_a_kl_optimal", "that is solver='euler-a' with grid='arctan'"),
        ("DPM adaptive Karras", "that is solver='dpm-23' with grid='karras'"),
        ("zEABSampler", "that is solver='dpm-3m'"),
        ("etdrk5", "did you mean 'etdrk4'"),
    ],
)
def test_errors_name_the_solver_here(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        logsnr.solver(name)


def test_names_by_library() -> None:
    assert names_elsewhere("lms-4") == {"ComfyUI": ("lms",), "diffusers": ("LMSDiscreteScheduler",), "A1111": ("LMS",)}
    assert names_elsewhere("dpm-23") == {"ComfyUI": ("dpm_adaptive",), "A1111": ("DPM adaptive",)}
    assert names_elsewhere("ho4") == {}
    assert known_elsewhere("nothing of the kind") == (None, None)
    assert all(name == name.lower() for name in SOLVERS_ELSEWHERE)


@pytest.mark.parametrize(
    ("name", "compat", "said"),
    [
        ("unipc-2", "bh3", "compat = 'bh3' is not a form of unipc-2: take 'bh2' or 'bh1'"),
        ("dpmpp-2m", "bh1", "compat = 'bh1' is not a form of dpmpp-2m: take 'published'"),
        ("ho4", True, "'ho4' is the same everywhere"),
    ],
)
def test_forms_that_there_are_not(name: str, compat: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        logsnr.solver(name, compat=compat)  # type: ignore[arg-type]


@pytest.mark.parametrize(("gauge", "given"), [("wiener", "logsnr.Wiener"), ("v3", "logsnr.calibrate")])
def test_gauges_of_the_data_say_what_they_need(gauge: str, given: str) -> None:
    """Their names are no gauge yet: they hold numbers."""
    with pytest.raises(ValueError, match=f"gauge = '{gauge}' needs numbers of the data: give gauge={given}"):
        logsnr.solver("adams", gauge=gauge)


def test_labels_say_what_is_set() -> None:
    """Settings are in the name, gauges by theirs; True is the first form."""
    assert logsnr.solver("adams", gauge="v", variable="clock").name == "adams (gauge='v', variable='clock')"
    assert logsnr.solver("unipc-2", compat=True).name == "unipc-2 (compat='bh2')"
    assert logsnr.solver("unipc-2", compat="bh1").planner.moments == "bh1"  # type: ignore[union-attr]
    assert logsnr.solver("dpm-3m", corrector=True).order == 4
