"""Optional libraries stay optional."""

import sys

import pytest

import logsnr


def test_a_missing_diffusers_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "logsnr.integrations.diffusers", raising=False)
    monkeypatch.delitem(vars(logsnr.integrations), "diffusers", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'logsnr\[diffusers\]'"):
        _ = logsnr.integrations.diffusers


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'comfy_ui'"):
        _ = logsnr.integrations.comfy_ui
