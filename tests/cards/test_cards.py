"""The cards say what the results say, and their code runs."""

import argparse
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from hsunmix import SemiBlindUnmixingPipeline, bundled_checkpoint
from hsunmix.cards import MARK, bundled_card, plain_card
from hsunmix.cards.__main__ import main, rendered
from hsunmix.cards.failures import CASES, measure
from hsunmix.cards.released import eval_results, fill_readme, peer_table, read_measurements, weaknesses
from hsunmix.cli.common import measurement
from hsunmix.endmembers.networks import bundled_sha256
from hsunmix.evaluation import benchmark
from hsunmix.evaluation.benchmark import Score
from hsunmix.hub import NETWORKS, weights_sha256
from tests.hub.loopback import metadata_errors
from tests.pipelines.tiny import tiny_pipeline

from ..shared_data import SHARED, needs_data

ROOT = Path(__file__).parents[2]
CHECKPOINT = Path(bundled_checkpoint("base"))
RESULTS = ROOT / "model_cards" / "results"
PEERS = ROOT / "model_cards" / "peers" / "measured.json"


@pytest.fixture
def tree(tmp_path):
    """A copy of the files that cards are made of and rendered to."""
    shutil.copytree(ROOT / "model_cards", tmp_path / "model_cards")
    shutil.copytree(CHECKPOINT, tmp_path / "hsunmix" / "checkpoints" / "base")
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def found():
    return read_measurements(RESULTS, CHECKPOINT)


@pytest.fixture(scope="module")
def card():
    return (CHECKPOINT / "README.md").read_text(encoding="utf-8")


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_committed_files_are_the_rendered_ones():
    """Out of date? Measure where the weights are new (`model_cards/README.md`), then `python -m hsunmix.cards`."""
    files = rendered(ROOT)
    names = {path.relative_to(ROOT).as_posix() for path in files}
    assert names == {"README.md", "model_cards/base.md", "hsunmix/checkpoints/base/README.md"}
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date"


@pytest.mark.parametrize(
    ("name", "key", "stale"),
    [("real", "refined_rmse", 3), ("grid", "coverage", 3), ("held_out", "gain", 3), ("failures", "rmse", 2)],
)
def test_a_changed_result_is_noticed(tree, capsys, name, key, stale):
    """Every file that shows the number is out of date, until it is rendered again."""
    assert main(["--root", str(tree), "--check"]) == 0

    def edit(content):
        value = content["runs"][0][key]
        content["runs"][0][key] = {"refined": 0.8765} if key == "rmse" else value + 0.1
        if name == "grid":  # of a summary: an outlier in one of five runs changes none of its medians
            for run in content["runs"]:
                run[key] = value + 0.1

    change(tree / "model_cards" / "results" / f"{name}.json", edit)
    before = (tree / "model_cards" / "base.md").read_text()
    assert main(["--root", str(tree), "--check"]) == 1
    assert capsys.readouterr().err.count("does not agree with the results") == stale
    assert (tree / "model_cards" / "base.md").read_text() == before
    assert main(["--root", str(tree)]) == 0 and main(["--root", str(tree), "--check"]) == 0
    assert (tree / "model_cards" / "base.md").read_text() != before


def test_results_of_other_weights_are_refused(tree, capsys):
    change(
        tree / "model_cards" / "results" / "held_out.json", lambda content: content["weights"].update(unet="0" * 64)
    )
    with pytest.raises(ValueError, match=r"held_out.json was measured with other weights"):
        rendered(tree)
    with pytest.raises(SystemExit, match="2"):
        main(["--root", str(tree), "--check"])
    assert "measure again" in capsys.readouterr().err


def test_markers_of_the_readme_are_needed(found):
    with pytest.raises(ValueError, match="results: summary"):
        fill_readme("# nothing\n", found, PEERS)


def test_other_methods_stand_beside_what_was_measured_here(found, tmp_path):
    table = peer_table(found, PEERS)
    assert table.count("\n") == 1 + len(json.loads(PEERS.read_text()))
    cell = benchmark.cells(found.scenes)["samson", "blind", None]
    assert f"| {benchmark.median(cell, 'refined_rmse'):.3f} / " in table
    (tmp_path / "peers.json").write_text(
        json.dumps([dict(scene="mars", track="blind", snr_db=None, method="x", rmse=0.1, sad=None)])
    )
    with pytest.raises(KeyError, match="mars"):
        peer_table(found, tmp_path / "peers.json")


def test_metadata(card, found):
    """What the Hub reads from the card is what was measured, number by number."""
    data = ModelCard(card).data
    assert (data.license, data.library_name) == ("apache-2.0", "diffusers")
    name, results = model_index_to_eval_results(eval_results_to_model_index(data.model_name, data.eval_results))
    assert name == data.model_name and results == eval_results(found)
    assert metadata_errors(card) == []
    assert metadata_errors(card.replace("value: 0.", "value: zero", 1)) != []
    measured = {(r.dataset_name, r.dataset_config, r.metric_type): r.metric_value for r in data.eval_results}
    held_out = json.loads((RESULTS / "held_out.json").read_text())["runs"]
    for record in held_out:
        key = (
            f"held-out materials, {record['scenes']} simulated scenes",
            f"{record['track']}, {record['snr_db']:g} dB",
        )
        assert measured[(*key, "rmse")] == pytest.approx(record["refined_rmse"], abs=5e-5)
        assert measured[(*key, "coverage")] == pytest.approx(record["coverage"], abs=5e-5)
    runs = json.loads((RESULTS / "real.json").read_text())["runs"]
    seeds = [r["refined_sad"] for r in runs if (r["scene"], r["track"], r["snr_db"]) == ("samson", "blind", 20.0)]
    assert len(seeds) == 5
    key = ("samson", "blind, 20 dB, median of 5 runs", "sad")
    assert measured[key] == pytest.approx(np.median(seeds), abs=5e-5)


def test_facts_of_the_weights(card):
    pipe = SemiBlindUnmixingPipeline.from_pretrained(CHECKPOINT)
    digests = weights_sha256(pipe)
    for name in NETWORKS:
        network = getattr(pipe, name)
        file = CHECKPOINT / name / "diffusion_pytorch_model.safetensors"
        assert digests[name] == hashlib.sha256(file.read_bytes()).hexdigest()
        row = next(line for line in card.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {sum(p.numel() for p in network.parameters()):,} |" in row and digests[name] in row


@needs_data
def test_checksums_of_the_training_data():
    for file in json.loads((ROOT / "model_cards" / "base.json").read_text())["data"]:
        (path,) = SHARED.glob(f"*/{file['file']}")
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"], path.name


def test_code_of_the_card_runs(card):
    """The python blocks, one after the other, as a reader would paste them."""
    blocks = re.findall(r"```python\n(.*?)```", card, re.S)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, "card", "exec"), names)
    out, low, high = names["out"], names["low"], names["high"]
    assert out.abundances[0].shape == (24, 24, 3) and out.endmembers[0].shape == (3, names["scene"].cube.shape[2])
    np.testing.assert_allclose(out.abundances[0].sum(-1), 1, atol=1e-4)
    assert (low[0] <= out.abundances[0] + 1e-6).all() and (out.abundances[0] <= high[0] + 1e-6).all()
    assert type(names["network"]).__name__ == "ResUNet2D"


def test_pictures(card, found):
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", card)
    assert pictures == [case["picture"] for case in found.failures] == [case["picture"] for case in CASES]
    for name in pictures:
        content = (CHECKPOINT / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) < 200_000
        assert f"](../hsunmix/checkpoints/base/{name})" in (ROOT / "model_cards" / "base.md").read_text()


def test_a_failure_is_measured_again(found):
    """The numbers under the picture are what the code gives; other machines round a little differently."""
    pipe = SemiBlindUnmixingPipeline.from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    record, maps = measure(pipe, CASES[1])
    assert record["rmse"] == pytest.approx(found.failures[1]["rmse"], abs=2e-3)
    assert maps["truth"].shape == maps["refined"].shape == (48, 48, 2)


def test_weaknesses_are_counted(found):
    """A cell that turns bad is named."""
    runs = [Score(**vars(score)) for score in found.scenes]
    cell = [s for s in runs if (s.scene, s.track, s.snr_db) == ("dc1", "given", 20.0)]
    assert len(cell) == 5 and "dc1 given 20 dB" not in weaknesses(found)
    for score in cell:
        score.nnls_rmse, score.refined_rmse, score.coverage = 0.05, 0.1, 0.5
    text = weaknesses(replace(found, scenes=runs))
    assert "dc1 given 20 dB (0.0500 against 0.1000)" in text
    assert len(re.findall("dc1 given 20 dB", text)) == 3


def test_measurements_name_no_folder(tmp_path):
    (tmp_path / "scene.hdr").touch()
    args = argparse.Namespace(
        scenes=[tmp_path / "scene.hdr"], library=str(tmp_path / "scene.hdr"), snr=["inf"], seeds=5, output=tmp_path
    )
    pipe = tiny_pipeline()
    content = measurement(pipe, args, [])
    assert content["settings"] == {"scenes": ["scene.hdr"], "library": "scene.hdr", "snr": ["inf"], "seeds": 5}
    pipe.save_pretrained(tmp_path)
    assert content["weights"].items() > bundled_sha256().items() and set(bundled_sha256()) == {
        "blender",
        "corrector",
        "number",
        "scorer",
    }
    for name in NETWORKS:
        digest, file = content["weights"][name], tmp_path / name / "diffusion_pytorch_model.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
    for path in RESULTS.glob("*.json"):
        assert "/" not in json.dumps(json.loads(path.read_text())["settings"]), path.name


def test_the_measured_card_is_for_those_weights_only():
    pipe = SemiBlindUnmixingPipeline.from_pretrained(CHECKPOINT)
    assert bundled_card(pipe) == CHECKPOINT
    pipe.to(dtype=torch.float16)  # the same weights, rounded
    assert bundled_card(pipe) == CHECKPOINT
    pipe.register_to_config(default_denoising_steps=7)
    assert bundled_card(pipe) is None
    other = SemiBlindUnmixingPipeline.from_pretrained(CHECKPOINT)
    next(other.unet.parameters()).data += 1e-3
    assert bundled_card(other) is None
    assert bundled_card(tiny_pipeline()) is None and bundled_card(other.unet) is None


def test_plain_card():
    """Of weights about which nothing is known: no results, no licence, and code with the right name."""
    pipe = tiny_pipeline()
    text = plain_card(pipe, "user/mine")
    data = ModelCard(text).data
    assert data.eval_results is None and data.license is None and metadata_errors(text) == []
    assert MARK in text and 'from_pretrained("user/mine")' in text
    assert f"| `unet` | `ResUNet2D` | {sum(p.numel() for p in pipe.unet.parameters()):,} |" in text
    assert 'ResUNet1D.from_pretrained("user/alone")' in plain_card(pipe.endmember_unet, "user/alone")
