"""The Space folder and the command fit the package."""

import configparser
import re
import runpy
from pathlib import Path

import pytest
import yaml

from hsunmix.cli import app
from hsunmix.cli.main import main
from hsunmix.data import optional

ROOT = Path(__file__).resolve().parents[2]


def front_matter():
    text = (ROOT / "space" / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def test_the_space_says_what_the_hub_needs():
    card = front_matter()
    assert card["sdk"] == "gradio" and (ROOT / "space" / card["app_file"]).is_file()
    assert len(card["short_description"]) <= 60 and card["license"] == "apache-2.0"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    low, high = re.search(r"gradio>=(\d+),<(\d+)", setup["options.extras_require"]["demo"]).groups()
    assert int(low) <= int(card["sdk_version"].split(".")[0]) < int(high)
    wanted = (ROOT / "space" / "requirements.txt").read_text().split()
    assert wanted == ["hsunmix[demo]", f"gradio=={card['sdk_version']}"]


def test_the_space_starts_the_command(monkeypatch):
    calls = []
    monkeypatch.setattr("hsunmix.cli.main.main", lambda arguments: calls.append(arguments) or 0)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "space" / "app.py"), run_name="__main__")
    assert stop.value.code == 0 and calls[0][:5] == ["app", "--host", "0.0.0.0", "--port", "7860"]


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", missing)
    assert main(["app"]) == 2
    assert 'needs gradio: `pip install "hsunmix[demo]"`, in a clone `pip install ".[demo]"`' in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--max-pixels", "0"], ["--keep", "-1"], ["--max-upload", "much"]])
def test_impossible_limits(option, monkeypatch, capsys):
    monkeypatch.setattr(app, "load_pipeline", lambda *_, **__: pytest.fail("loaded before the options were checked"))
    assert main(["app", *option]) == 2
    assert "hsunmix: error:" in capsys.readouterr().err
